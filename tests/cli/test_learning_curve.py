# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from dual_skd.cli import learning_curve
from dual_skd.cli.dispatch import main, parser_of
from dual_skd.cli.learning_curve import (
    Runs,
    divide_once,
    epochs_of,
    last_error,
    of_division,
    run_command,
    words_of_runs,
)
from dual_skd.data import write_demo
from dual_skd.errors import InputError
from dual_skd.evaluation.learning_curve import Cell, Measured, by_share, rows
from dual_skd.options import Training, training
from dual_skd.options.arguments import given


class Recorded:
    """Stands for the runs: a run of more images is better, and one with distillation better than one without."""

    def __init__(self, failing: str = "") -> None:
        self.trained: list[dict] = []
        self.failing = failing

    def __call__(self, command: list[str], log: Path) -> int:
        assert command[:3] == [sys.executable, "-m", "dual_skd"]
        what, data, *words = command[3:]
        if what == "evaluate":
            assert words == ["--report", "false"]
            run = Path(data)
            settings = json.loads((run / "settings.json").read_text())
            value = 0.5 + 0.2 * float(settings["train_fraction"]) + 0.1 * (settings["method"] == "coupled")
            measured = {"balanced_accuracy": value, "macro_auc": value, "ece": None}
            (run / "metrics.json").write_text(json.dumps({"test": {"student": measured}}))
            return 0
        run = Path(words[words.index("-o") + 1])
        settings = given(parser_of("train").parse(words), Training) | {"data": data}
        if self.failing and self.failing in run.name:
            log.write_text("INFO\nError: no space left.\n")
            return 1
        self.trained.append(settings)
        run.mkdir(exist_ok=True)
        (run / "settings.json").write_text(json.dumps(settings))
        (run / "datalist.json").write_text(json.dumps({"training": [{}] * 7, "validation": [{}] * 2, "test": [{}]}))
        return 0


@pytest.fixture
def demo(tmp_path):
    return write_demo(tmp_path / "demo", counts={"train": 24, "val": 9, "test": 9})


@pytest.fixture
def curve(demo, tmp_path, monkeypatch):
    """The command on the demo images, its runs made by what is given."""

    def run(runs: Recorded, *words: str, data: Path = demo) -> int:
        monkeypatch.setattr(learning_curve, "run_command", runs)
        return main(["learning-curve", str(data), "-o", str(tmp_path / "curve"), *words])

    return run


def test_small_shares_get_more_epochs_up_to_a_limit():
    assert [epochs_of(fraction, 10) for fraction in (1.0, 0.5, 0.1, 0.01)] == [10, 20, 80, 80]


def test_a_run_is_two_commands_and_the_data_options_are_used_up(tmp_path):
    values = {"patient_pattern": "(p)", "val_fraction": 0.3, "keep_twins": True, "image_size": 128}
    runs = Runs(tmp_path, 12, {"coupled": words_of_runs(values, ["volume"])})
    train, evaluate = runs.commands_of(Cell("coupled", 0.25, 1))
    out = str(tmp_path / "runs" / "coupled_0.25_1")
    assert train == [
        sys.executable, "-m", "dual_skd", "train", str(tmp_path / "split.json"), "-o", out, "--method", "coupled",
        "--epochs", "48", "--train-fraction", "0.25", "--seed", "1", "--preset", "volume", "--image-size", "128",
        "--val-fraction", "0.3", "--keep-twins", "true",
    ]  # fmt: skip
    assert evaluate == [sys.executable, "-m", "dual_skd", "evaluate", out, "--report", "false"]


def test_one_command_runs_all_shares_and_writes_table_and_plot(curve, tmp_path, capsys):
    words = "--fractions 0.5 1 --seeds 2 --epochs 3 --image-size 32".split()
    assert curve(runs := Recorded(), *words) == 0
    assert len(runs.trained) == 2 * 2 * 2
    assert {(run["train_fraction"], run["epochs"]) for run in runs.trained} == {(0.5, 6), (1, 3)}
    assert all(run["image_size"] == 32 and run["data"].endswith("split.json") for run in runs.trained)
    written = (tmp_path / "curve" / "learning_curve.md").read_text(encoding="utf-8")
    assert "| single | 0.5 | 9 | 2 | 0.600 ± 0.000 | 0.600 ± 0.000 | – |" in written
    assert "| coupled | 1 | 9 | 2 | 0.800 ± 0.000 |" in written
    assert (tmp_path / "curve" / "learning_curve.png").stat().st_size > 5_000
    with (tmp_path / "curve" / "learning_curve.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 8 and table[0] == {
        "method": "single", "fraction": "0.5", "seed": "0", "images": "9", "balanced_accuracy": "0.6",
        "macro_auc": "0.6", "ece": "",
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "Run 8 of 8: coupled, 100 % of the images, seed 1 ... balanced accuracy 0.800" in said
    assert said.splitlines()[-1].startswith("Next:  dual-skd compare ") and said.rstrip().endswith("runs/single_1_0")
    assert max(map(len, said.split("\n\n")[1].splitlines())) <= 80
    assert curve(runs, *words) == 0  # nothing is run twice
    assert len(runs.trained) == 8 and "Run 8" not in capsys.readouterr().out


def test_mean_and_deviation_are_those_over_the_seeds():
    values = [("coupled", 1.0, 0, 0.7), ("coupled", 1.0, 1, 0.9), ("single", 1.0, 0, 0.5), ("single", 0.05, 0, None)]
    found = by_share(
        Measured(Cell(method, share, seed), 10 + seed, {"balanced_accuracy": one, "macro_auc": 1.0, "ece": 0.0})
        for method, share, seed, one in values
    )
    assert rows(found)[1:] == [
        ["single", "0.05", "10", "1", "–", "1.000", "0.000"],
        ["single", "1", "10", "1", "0.500", "1.000", "0.000"],
        ["coupled", "1", "10", "2", "0.800 ± 0.141", "1.000 ± 0.000", "0.000 ± 0.000"],
    ]


def test_runs_of_other_options_are_not_averaged(curve, tmp_path, capsys):
    table = tmp_path / "curve" / "learning_curve.md"
    words = "--fractions 0.5 1 --seeds 1 --epochs 3".split()
    assert curve(first := Recorded(), *words) == 0 and len(first.trained) == 4
    other = "--fractions 1 --seeds 2 --epochs 5".split()
    assert curve(refused := Recorded(), *other, "--minutes", "0") == 1 and not refused.trained
    assert "0 of 4 runs finished" in capsys.readouterr().err
    # training refuses a folder of other settings, and what it says is passed on
    assert curve(Recorded(failing="_0"), *other) == 1
    said = capsys.readouterr()
    assert "Failed: single_1_0: Error: no space left." in said.err and "2 of 4 runs finished" in said.err
    assert "| single | 1 | 9 | 1 |" in table.read_text() and "| 0.5 |" not in table.read_text()
    assert curve(again := Recorded(), *words) == 0 and not again.trained  # those are still there
    assert curve(other_rate := Recorded(), *words, "--learning-rate", "0.01") == 0 and len(other_rate.trained) == 4


def test_runs_that_failed_run_again_and_the_others_go_on(curve, capsys):
    words = "--fractions 0.5 1 --seeds 1".split()
    assert curve(runs := Recorded(failing="single_1"), *words) == 1
    assert len(runs.trained) == 3
    said = capsys.readouterr()
    assert (
        "single, 100 % of the images, seed 0 ... failed: Error: no space left.\n" in said.out and "coupled" in said.out
    )
    assert "3 of 4 runs finished; the same command goes on." in said.err
    assert curve(again := Recorded(), *words) == 0 and len(again.trained) == 1
    assert capsys.readouterr().err == ""


def test_a_folder_keeps_to_the_data_and_options_that_it_was_made_of(demo, tmp_path, monkeypatch):
    two = write_demo(tmp_path / "two", counts={"train": 24, "val": 9, "test": 9})
    path = tmp_path / "curve" / "split.json"
    plain = of_division(training(patient_pattern="", image_size=32, val_fraction=0.3))
    assert plain == {"patient_pattern": ""}
    divide_once(str(demo), plain, path)
    content = path.read_text()
    for data, options in ((two, plain), (demo, {}), (demo, {"patient_pattern": "(p)"})):
        with pytest.raises(InputError, match=f"holds the division of {demo} with the data options --patient-pat"):
            divide_once(str(data), options, path)
    monkeypatch.chdir(tmp_path)
    divide_once("demo/../demo", plain, path)
    assert path.read_text() == content


def test_what_can_not_be_read_is_one_sentence(curve, tmp_path, capsys):
    assert curve(Recorded(), data=tmp_path / "nowhere") == 1
    assert "Error: The data set" in capsys.readouterr().err
    for number in range(9):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
    table = tmp_path / "images.csv"
    table.write_text("image,a,b,patient\n" + "".join(f"{number}.png,1,{number % 2},{number}\n" for number in range(9)))
    assert curve(Recorded(), "--label-column", "a", "b", data=table) == 1
    assert "several labels per image; name the column of one: --label-column NAME." in capsys.readouterr().err
    table.write_text(
        "image,label,split\n" + "".join(f"{n}.png,{n % 2},{'val' if n > 5 else 'train'}\n" for n in range(9))
    )
    assert curve(Recorded(), "--twin-search", "never", data=table) == 1
    assert "has no test images, on which all runs are measured" in capsys.readouterr().err
    assert not (tmp_path / "curve" / "split.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--fractions 10", "Fractions are above 0 and at most 1, found 10.0."),
        ("--seeds 0", "a seed and an epoch or more"),
        ("--method nosuch", "Unknown method 'nosuch'"),
        ("--method distill", "learning-curve takes no teacher"),
        ("--method distill --teacher-checkpoint t.pt", "learning-curve takes no teacher"),
        ("--method dual --selection-auxiliary teacher --teacher-checkpoint t.pt", "learning-curve takes no teacher"),
        ("--minutes nan", "Expected minutes of at least 0, found nan."),
        ("--image-size 0", "image_size is 0; expected a whole number of at least 1"),
    ],
)
def test_what_no_run_can_do_is_refused_before_anything_is_read(curve, tmp_path, capsys, words, said):
    assert curve(Recorded(), *words.split(), data=tmp_path / "nowhere") == 1
    assert said in capsys.readouterr().err and not (tmp_path / "curve").exists()


@pytest.mark.parametrize("word", ["--seed", "--train_fraction"])
def test_what_is_set_run_by_run_is_no_option(curve, capsys, word):
    with pytest.raises(SystemExit, match="2"):
        curve(Recorded(), word, "1")
    assert f"nknown option {word}" in capsys.readouterr().err


def test_a_config_says_nothing_of_single_runs(curve, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("seed: 5\nrotate: 3.0\nepochs: 3\n")
    assert curve(Recorded(), "--config", str(tmp_path / "mine.yaml")) == 1
    assert "learning-curve sets seed and epochs itself; leave that out of" in capsys.readouterr().err
    assert not (tmp_path / "curve").exists()


@pytest.mark.parametrize(
    "words",
    [
        "--method dual --skd-weight 2 --unlabelled-loss soft",
        "--method coupled --update ema --momentum 0.9 --temperature 2 --selection-layers-auxiliary first",
    ],
)
def test_plain_fine_tuning_goes_without_the_options_of_a_second_network(curve, tmp_path, words):
    (tmp_path / "mine.yaml").write_text("rotate: 3.0\n")
    words = [*words.split(), "--fractions", "1", "--seeds", "1", "--config", str(tmp_path / "mine.yaml")]
    runs = Recorded()
    assert curve(runs, *words) == 0
    single, other = runs.trained
    own = {"data", "output_dir", "epochs", "train_fraction", "seed", "method", "rotate"}
    assert single.keys() == own and single["method"] == "single" and single["rotate"] == other["rotate"] == 3.0
    assert len(other) == len(own) + (len(words) - 6) // 2 - 1
    Training.model_validate({name: value for name, value in single.items() if name != "data"})
    assert curve(again := Recorded(), *words) == 0 and not again.trained


def test_the_control_keeps_what_one_network_uses(curve):
    of_unlabelled = "--unlabelled rest --unlabelled-loss soft --unlabelled-strength 2 --skd-ramp 0"
    words = f"--fractions 1 --seeds 1 {of_unlabelled}".split()
    runs = Recorded()
    assert curve(runs, *words) == 0
    single, coupled = runs.trained
    assert single.pop("method") == "single" and coupled.pop("method") == "coupled"
    assert single.pop("output_dir") != coupled.pop("output_dir") and single == coupled
    alone = Recorded()
    assert curve(alone, *words, "--method", "single", "--skd-weight", "2") == 0
    assert [run["skd_weight"] for run in alone.trained] == [2.0]


def test_entries_without_a_label_are_kept_where_the_rest_is_asked_for(curve, demo, tmp_path):
    with (demo / "datalist.csv").open(newline="") as file:
        header, *entries = list(csv.reader(file))
    of_train = [entry for entry in entries if entry[header.index("split")] == "train"]
    for entry in of_train[:2]:
        entry[header.index("label")] = ""
    with (demo / "datalist.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *entries])
    assert curve(Recorded(), "--fractions", "1", "--seeds", "1", "--unlabelled", "rest") == 0
    division = json.loads((tmp_path / "curve" / "split.json").read_text())
    assert len(division["unlabelled"]) == 2 and len(division["training"]) == len(of_train) - 2


def test_the_method_may_stand_in_a_config(curve, tmp_path):
    (tmp_path / "mine.yaml").write_text("method: dual\n")
    assert curve(runs := Recorded(), "--fractions", "1", "--seeds", "1", "--config", str(tmp_path / "mine.yaml")) == 0
    assert [run["method"] for run in runs.trained] == ["single", "dual"]


def test_a_command_leaves_its_output_and_the_reason_why_it_failed(tmp_path):
    log = tmp_path / "log"
    code = "import sys; print('one'); sys.stderr.write('\\nError: two.\\n'); print('three', flush=True); sys.exit({})"
    assert [run_command([sys.executable, "-c", code.format(end)], log) for end in (0, 3)] == [0, 3]
    assert log.read_text().count("one") == 2 and last_error(log) == "Error: two."
    log.write_text("epoch 1\rkilled\n\n")
    assert last_error(log) == "killed" and last_error(tmp_path / "none") == ""


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGTERM")
def test_ended_by_a_signal_it_lets_the_run_in_progress_save(demo, tmp_path):
    """A stand-in for training saves where it is told to end, as training does."""
    code = f"""
import sys
from pathlib import Path
from dual_skd.cli import learning_curve
from dual_skd.cli.dispatch import main

child = '''
import signal, time
from pathlib import Path
def end(*_):
    time.sleep(0.2)
    Path({str(tmp_path / "saved")!r}).touch()
    raise SystemExit(143)
signal.signal(signal.SIGTERM, end)
Path({str(tmp_path / "runs")!r}).touch()
time.sleep(60)
'''
learning_curve.Runs.commands_of = lambda self, cell: [[sys.executable, "-c", child]]
sys.exit(main(["learning-curve", {str(demo)!r}, "-o", {str(tmp_path / "curve")!r}]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not (tmp_path / "runs").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGTERM)
    assert "0 of 30 runs finished; the same command goes on." in process.communicate(timeout=60)[1]
    assert process.returncode == 143 and (tmp_path / "saved").exists()


def test_help_comes_at_once():
    code = "import sys; sys.argv[1:] = ['learning-curve', '-h']; from dual_skd.cli import main; main()"
    heavy = "import atexit, sys; atexit.register(lambda: print('HEAVY' if 'torch' in sys.modules else 'light'));"
    said = subprocess.run([sys.executable, "-c", heavy + code], capture_output=True, text=True, check=True).stdout
    assert "--fractions X ..." in said and "--image-size" in said and said.splitlines()[-1] == "light"
