# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
METRICS = ("accuracy", "balanced_accuracy", "macro_auc", "f1", "nll", "ece", "brier")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    before = set(sys.modules)
    yield __import__("label_efficiency")
    for name in set(sys.modules) - before:
        if name.startswith(("label_efficiency", "benchmark")):
            sys.modules.pop(name)


class Recorded:
    """Stands for the runs: a run of more images is better, and one with distillation better than one without."""

    def __init__(self) -> None:
        self.runs: list[dict] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __call__(self, runs: list[dict], log: Path) -> None:
        settings = json.loads(Path(runs[0]["config_file"][-1]).read_text())
        self.runs.append(settings)
        output = Path(settings["output_dir"])
        (output / "models").mkdir(parents=True, exist_ok=True)
        value = 0.5 + 0.2 * settings["train_fraction"] + 0.1 * (settings["method"] == "coupled")
        measured = dict.fromkeys(METRICS, value)
        best = {"student": measured, "auxiliary": measured, "mean": measured}
        names = ["interstitial", "nodule", "normal"]
        content = {
            "class_names": names,
            "best": best,
            "test": {**best, "images": 9},
            "auxiliary": {**best, "images": 9},
        }
        (output / "metrics.json").write_text(json.dumps(content))
        shared = {"student": {"parameters": 1, "macs": 1}, "large": {"parameters": 5, "macs": 5}}
        config = {"method": settings["method"], "learning_rate": settings.get("learning_rate", 0.002)}
        run = {"networks": shared, "timings": {"total_seconds": 1.0}, "config": config}
        (output / "run.json").write_text(json.dumps(run))
        datalist = json.loads(Path(settings["dataset_dir"]).read_text())
        test = datalist["test"]
        (output / "datalist.json").write_text(json.dumps({"training": datalist["training"], "test": test}))
        for name in ("test", "auxiliary"):
            with (output / f"predictions_{name}.csv").open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["image", "label", "predicted", *(f"p_{name}" for name in names)])
                for record in test:
                    table.writerow([record["image"], names[record["label"]], names[0], 0.5, 0.3, 0.2])


def test_small_shares_get_more_epochs_up_to_a_limit(script):
    assert [script.epochs_of(fraction, 10) for fraction in (1.0, 0.5, 0.1, 0.01)] == [10, 20, 80, 80]


def test_options_are_those_of_the_bundle(script):
    assert script.parse_options(["--image_size", "[8,8]", "--patient_pattern", "(p[0-9]+)"]) == {
        "image_size": [8, 8], "patient_pattern": "(p[0-9]+)",
    }  # fmt: skip
    with pytest.raises(SystemExit, match="--name value"):
        script.parse_options(["image_size", "8"])


def test_one_command_runs_all_shares_and_writes_table_and_plot(script, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    from dual_skd.data import write_demo

    demo = write_demo(tmp_path / "demo", counts={"train": 24, "val": 9, "test": 9})
    runs = Recorded()
    arguments = [str(demo), "--output", str(tmp_path / "curve"), "--fractions", "0.5", "1", "--seeds", "2"]
    script.main([*arguments, "--epochs", "3", "--", "--image_size", "32"], runs)
    assert len(runs.runs) == 2 * 2 * 2
    assert {(run["train_fraction"], run["epochs"]) for run in runs.runs} == {(0.5, 6), (1.0, 3)}
    assert all(run["image_size"] == 32 and run["dataset_dir"].endswith("split.json") for run in runs.runs)
    written = (tmp_path / "curve" / "label_efficiency.md").read_text()
    assert "| single | 0.5 | 2 | 0.600 +- 0.000 |" in written and "| coupled | 1 | 2 | 0.800 +- 0.000 |" in written
    assert (tmp_path / "curve" / "label_efficiency.png").stat().st_size > 5_000
    script.main([*arguments, "--epochs", "3", "--", "--image_size", "32"], runs)  # nothing is run twice
    assert len(runs.runs) == 8
    assert "single" in capsys.readouterr().out


def test_runs_of_other_settings_are_not_averaged_and_run_again(script, tmp_path):
    from dual_skd.data import write_demo

    demo = write_demo(tmp_path / "demo", counts={"train": 24, "val": 9, "test": 9})
    arguments, table = [str(demo), "--output", str(tmp_path / "curve")], tmp_path / "curve" / "label_efficiency.md"
    first, again, given, usual = (Recorded() for _ in range(4))
    script.main([*arguments, "--fractions", "0.5", "1", "--seeds", "1", "--epochs", "3"], first)
    with pytest.raises(SystemExit, match="no run has finished"):  # of those that are wanted now
        script.main([*arguments, "--fractions", "1", "--seeds", "2", "--epochs", "5", "--minutes", "0"], Recorded())
    script.main([*arguments, "--fractions", "1", "--seeds", "2", "--epochs", "5"], again)
    assert len(first.runs) == len(again.runs) == 4 and {run["epochs"] for run in again.runs} == {5}
    assert "| 1 | 2 |" in table.read_text() and "| 0.5 |" not in table.read_text()
    arguments += ["--fractions", "1", "--seeds", "1", "--epochs", "5"]
    script.main([*arguments, "--", "--learning_rate", "0.01"], given)
    script.main(arguments, usual)
    assert [len(runs.runs) for runs in (given, usual)] == [2, 2]


def test_runs_that_failed_run_again_with_the_next_command(script, tmp_path):
    from dual_skd.data import write_demo

    class Failing(Recorded):
        def __call__(self, runs: list[dict], log: Path) -> None:
            raise script.benchmark.CellFailed("no space left")

    demo = write_demo(tmp_path / "demo", counts={"train": 24, "val": 9, "test": 9})
    arguments = [str(demo), "--output", str(tmp_path / "curve"), "--fractions", "1", "--seeds", "1"]
    with pytest.raises(SystemExit, match="no run has finished"):
        script.main(arguments, Failing())
    script.main(arguments, again := Recorded())
    assert len(again.runs) == 2


def test_a_folder_keeps_to_the_data_and_options_that_it_was_made_of(script, tmp_path, monkeypatch):
    from dual_skd.data import write_demo

    counts = {"train": 24, "val": 9, "test": 9}
    one, two = (write_demo(tmp_path / name, counts=counts) for name in ("one", "two"))
    path = tmp_path / "curve" / "split.json"
    script.divide_once(str(one), {"patient_pattern": "", "image_size": 32}, path)
    content = path.read_text()
    for data, options in ((two, {"patient_pattern": ""}), (one, {}), (one, {"patient_pattern": "(p)"})):
        with pytest.raises(script.InputError, match=f"holds the division of {one} with the data options --patient_pat"):
            script.divide_once(str(data), options, path)
    monkeypatch.chdir(tmp_path)
    relative = str(one.relative_to(tmp_path))
    assert script.divide_once(relative, {"patient_pattern": "", "val_fraction": 0.3}, path) == {"val_fraction": 0.3}
    assert path.read_text() == content
    path.with_name("split_made_of.json").unlink()  # of a former version
    assert script.divide_once(str(two), {"image_size": 8}, path) == {"image_size": 8}


def test_what_can_not_be_read_is_one_sentence(script, tmp_path):
    with pytest.raises(SystemExit, match="Error: The data set .* does not exist"):
        script.main([str(tmp_path / "nowhere"), "--output", str(tmp_path / "curve")])
    for number in range(9):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    table = tmp_path / "images.csv"
    table.write_text("image,a,b,patient\n" + "".join(f"{number}.png,1,{number % 2},{number}\n" for number in range(9)))
    with pytest.raises(SystemExit, match="several labels per image; name the column of one"):
        script.main([str(table), "--output", str(tmp_path / "curve"), "--", "--label_column", "['a', 'b']"])
    with pytest.raises(SystemExit, match="fractions lie between"):
        script.main([str(tmp_path), "--output", str(tmp_path / "curve"), "--fractions", "10"])


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", "30"), ("method", "dual"), ("seed", "7"), ("train_fraction", "1")]
)
def test_what_the_script_sets_itself_is_refused_among_the_options_of_training(script, tmp_path, name, value):
    with pytest.raises(
        SystemExit, match=f"Error: {name} can't stand after --, as the script sets it run by run; give --epochs"
    ):
        script.main([str(tmp_path), "--output", str(tmp_path / "curve"), "--", f"--{name}", value])
    assert not (tmp_path / "curve").exists()
