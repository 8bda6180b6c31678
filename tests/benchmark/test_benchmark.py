# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from dual_skd.data import write_demo
from dual_skd.errors import InputError, input_error_behind
from dual_skd.evaluation import read_predictions, write_predictions
from dual_skd.evaluation.paired import holm
from dual_skd.networks import build_network

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
LARGE = {"layers": [1, 1, 1, 1], "channels": [16, 16, 16, 16]}
SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


@pytest.fixture(scope="module")
def scripts():
    """The programs, imported as they import each other: from their own folder."""
    names = ("benchmark_store", "benchmark_leave_out", "benchmark_cells", "benchmark_robustness", "benchmark_latency")
    names += ("benchmark", "benchmark_results", "benchmark_claims", "benchmark_names", "benchmark_pictures")
    names += ("benchmark_report",)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        loaded = {name.removeprefix("benchmark_"): __import__(name) for name in names}
        yield SimpleNamespace(**loaded)
        for name in names:
            sys.modules.pop(name)


class InProcess(nullcontext):
    """Runs the bundle's configs in this process: the imports of another would take longer than the runs."""

    def __init__(self, failure: type[Exception]) -> None:
        super().__init__(self)
        self.failure = failure
        self.trained: list[str] = []

    def __call__(self, runs: list[dict], log: Path) -> None:
        for run in runs:
            options = dict(run)
            kind = {"training": "train", "evaluating": "eval"}[options.pop("run_id")]
            workflow = ConfigWorkflow(
                options.pop("config_file"),
                logging_file=False,
                workflow_type=kind,
                device=torch.device("cpu"),
                **options,
            )
            try:
                workflow.initialize()
                workflow.run()
            except Exception as error:  # a process would end with this sentence
                raise self.failure(str(input_error_behind(error))) from error
            workflow.finalize()
            if kind == "train":
                self.trained.append(log.parent.name)


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Path:
    """A plan of tiny networks and its data, in the folder of the plan."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_demo(folder / "demo", counts={"train": 24, "val": 9, "test": 9})
    torch.manual_seed(1)
    torch.save(build_network("resnet18", num_classes=5, in_channels=3, **LARGE).state_dict(), folder / "large.pt")
    tiny = {
        "image_size": 32,
        "batch_size": 8,
        "num_workers": 0,
        "cache": "memory",
    }
    tiny |= {"large": "resnet18", "large_options": LARGE, "small": "resnet18", "small_options": SMALL}
    content = {
        "common": tiny,
        "data": {"phantoms": {
            "path": "demo", "epochs": {"1.0": 1, "0.5": 1}, "files": {"pretrained": "large.pt"},
            "robustness": {"corruptions": ["noise", "jpeg"], "strengths": [1, 5]},
        }},
        "control": "single",
        "rows": {
            "single": {"method": "single"},
            "dual": {"method": "dual"},
            "large": {"method": "single", "small_options": LARGE},
            "distill": {"method": "distill", "needs": "large"},
            "broken": {"method": "single", "selection_student": "none_such"},
        },
        "tune": {"learning_rate": [0.001, 0.01], "by": "nll", "shares": {"phantoms_1.0": {"val_fraction": 0.4}}},
        "tiers": [
            {"on": [["phantoms", 1.0]], "rows": ["single", "dual", "distill"], "seeds": [0]},
            {"on": [["phantoms", 0.5]], "rows": ["single", "dual"], "seeds": [0, 1]},
        ],
        "claims": {
            "method": "dual", "scarce": [["phantoms", 0.5]], "full": [["phantoms", 1.0]],
            "accuracy": [[["phantoms", 1.0]], 0.01],
        },
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(content))
    return folder / "plan.json"


@pytest.fixture(scope="module")
def start(scripts, plan):
    """Runs the program on a folder and returns which cells were trained, in order."""

    def go(folder: Path, *options: str, plan: Path = plan) -> list[str]:
        execute = InProcess(scripts.cells.CellFailed)
        arguments = ["--data_root", plan.parent, "--results", folder / "results", "--work", folder / "work"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "excepthook", sys.excepthook)
            patch.setattr("signal.signal", lambda *_: None)
            scripts.benchmark.main([*map(str, arguments), "--plan", str(plan), "--jobs", "1", *options], execute)
        return execute.trained

    return go


@pytest.fixture(scope="module")
def done(start, tmp_path_factory) -> Path:
    """A folder in which the first tier was run."""
    folder = tmp_path_factory.mktemp("done")
    start(folder, "--only", "1.0")
    return folder


def lines(folder: Path, table: str = "benchmark") -> list[dict]:
    with (folder / "results" / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def changed(plan: Path, name: str, change) -> Path:
    content = json.loads(plan.read_text())
    change(content)
    path = plan.with_name(name)
    path.write_text(json.dumps(content))
    return path


def test_cells_are_planned_one_seed_of_everything_after_the_other_and_what_is_needed_first(scripts, plan):
    found = [cell.id for cell in scripts.cells.planned_cells(scripts.cells.read_plan(plan))]
    tier = ["phantoms_1.0_single_0", "phantoms_1.0_dual_0", "phantoms_1.0_large_0", "phantoms_1.0_distill_0"]
    assert found[:4] == tier
    assert found[4:] == [f"phantoms_0.5_{row}_{seed}" for seed in (0, 1) for row in ("single", "dual")]


def test_the_plan_of_the_repository_is_complete_and_starts_with_the_decisive_cells(scripts):
    plan = scripts.cells.read_plan(SCRIPTS / "benchmark_plan.json")
    cells = scripts.cells.planned_cells(plan)
    assert len({cell.id for cell in cells}) == len(cells)
    assert {cell.data for cell in cells[:18]} >= {"chest_xray", "lung_ct", "brain_mri"}
    assert {cell.row for cell in cells} == set(plan["rows"])


def test_a_finished_cell_has_a_line_per_network_with_the_numbers_of_its_run(done):
    found = {(line["row"], line["network"]): line for line in lines(done)}
    networks = {"single": ["student"], "large": ["student"]}
    networks |= {row: ["student", "auxiliary", "mean"] for row in ("dual", "distill")}
    assert list(found) == [(row, who) for row in ("single", "dual", "large", "distill") for who in networks[row]]
    metrics = json.loads((done / "work" / "phantoms_1.0_dual_0" / "metrics.json").read_text())
    for who in networks["dual"]:
        line = found["dual", who]
        assert float(line["nll"]) == pytest.approx(metrics["test"][who]["nll"], abs=1e-6)
        assert float(line["val_ece"]) == pytest.approx(metrics["best"][who]["ece"], abs=1e-6)
    small, large = (sum(p.numel() for p in build_network("resnet18", num_classes=3, **size).parameters())
                    for size in (SMALL, LARGE))  # fmt: skip
    assert int(found["single", "student"]["parameters"]) == small
    assert int(found["large", "student"]["parameters"]) == large
    assert int(found["dual", "mean"]["parameters"]) == 2 * small
    assert int(found["distill", "mean"]["parameters"]) == small + large
    assert {line["images"] for line in found.values()} == {"9"}


def test_the_stored_probabilities_give_the_metrics_of_the_table(done, scripts):
    stored = dict(np.load(scripts.store.predictions_path(done / "results", "phantoms", 1.0)))
    for line in lines(done):
        p = scripts.store.probabilities(stored, line["row"], line["seed"], line["network"])
        assert p.shape == (9, 3) and p.sum(1) == pytest.approx(1, abs=1e-6)
        assert -np.log(p[np.arange(9), stored["labels"]]).mean() == pytest.approx(float(line["nll"]), abs=2e-3)
    assert stored["single/0/student"].dtype == np.float16
    assert not any("demo" in str(value) for value in stored.values() if value.ndim == 0)  # no names of images


def test_only_the_model_that_another_row_needs_is_kept(done):
    assert [path.parent.parent.name for path in done.rglob("*.pt")] == ["phantoms_1.0_large_0"]
    kept = {path.name for path in (done / "work" / "phantoms_1.0_single_0").iterdir()}
    assert {"metrics.json", "run.json", "predictions_test.csv"} <= kept and "models" not in kept


def test_a_second_start_runs_what_is_left_and_stops_when_the_minutes_are_over(done, start, tmp_path):
    folder = shutil.copytree(done, tmp_path / "copy")
    assert start(folder, "--only", "1.0") == []
    assert start(folder, "--minutes", "0") == []
    assert start(folder, "--only", "_0$") == ["phantoms_0.5_single_0", "phantoms_0.5_dual_0"]
    assert len(lines(folder)) == len(lines(done)) + 4


def test_a_failed_cell_is_noted_with_its_reason_and_run_again_only_on_request(start, plan, tmp_path, capsys):
    tiers = [{"on": [["phantoms", 1.0]], "rows": ["broken", "single"], "seeds": [0]}]
    path = changed(plan, "failing.json", lambda content: content.update(tiers=tiers))

    assert start(tmp_path, plan=path) == ["phantoms_1.0_single_0"]  # the others go on
    failed = json.loads((tmp_path / "work" / "failed.json").read_text())
    assert list(failed) == ["phantoms_1.0_broken_0"] and "none_such" in failed["phantoms_1.0_broken_0"]
    assert "1 failed: phantoms_1.0_broken_0" in capsys.readouterr().out
    assert start(tmp_path, plan=path) == []
    assert "failed" not in capsys.readouterr().out.replace("0 failed", "")
    start(tmp_path, "--list", plan=path)
    assert re.search(r"phantoms_1.0_broken_0 +failed: .*none_such", capsys.readouterr().out)

    mended = changed(path, "mended.json", lambda content: content["rows"].update(broken={"method": "scratch"}))
    assert start(tmp_path, "--retry", plan=mended) == ["phantoms_1.0_broken_0"]
    assert json.loads((tmp_path / "work" / "failed.json").read_text()) == {}


def test_what_the_training_images_said_of_frequencies_is_taken_back(done, scripts, plan):
    stored = {"row/0/counts": np.array([30, 10])}
    found = scripts.store.for_equal_classes(stored, "row", 0, np.array([[0.75, 0.25], [0.6, 0.4]]))
    assert found == pytest.approx(np.array([[0.5, 0.5], [1 / 3, 2 / 3]]))  # 0.6 / 30 : 0.4 / 10 is 1 : 2
    assert scripts.store.for_equal_classes(stored, "other", 0, np.ones((1, 2)) / 2) is None

    path = scripts.store.predictions_path(done / "results", "phantoms", 1.0)
    assert np.load(path)["dual/0/counts"].tolist() == [8, 8, 8]  # of 24 training images
    results = scripts.results.Results(done / "results", scripts.cells.read_plan(plan))
    alike = results.predictions("phantoms", 1.0, "dual", 0)
    assert results.predictions("phantoms", 1.0, "dual", 0, "equal classes") == pytest.approx(alike)
    results._loaded["phantoms", 1.0]["dual/0/counts"] = np.array([1, 10**9, 10**9])  # whatever it is, it is rare

    def equal() -> list[str]:
        return [line for line in scripts.report.read_otherwise(results, "equal classes") if " | dual | " in line]

    (line,) = equal()
    assert line.split(" | ")[4] == "0.333"  # all images are of the first class then
    results.plan["rows"]["dual"]["logit_adjustment"] = 1.0
    assert equal() == []


def test_calibrated_probabilities_are_those_with_the_temperature_of_the_validation_images(
    done, scripts, plan, tmp_path
):
    run = shutil.copytree(done / "work" / "phantoms_1.0_dual_0", tmp_path / "run")
    table = read_predictions(run / "predictions_validation.csv")
    sure = np.eye(3)[(table.labels + (np.arange(len(table.labels)) % 3 == 0)) % 3].clip(1e-6)  # and wrong in a third
    write_predictions(run / "predictions_validation.csv", table.images, table.labels, sure, table.class_names)
    found = scripts.cells.read_predictions(run)
    assert found.temperature == pytest.approx(np.log(1e6) / np.log(4), rel=1e-3)  # 2/3, 1/6 and 1/6 are right
    powers = found.networks["student"] ** (1 / found.temperature)
    assert found.networks["calibrated"] == pytest.approx(powers / powers.sum(1, keepdims=True))
    (run / "predictions_validation.csv").unlink()
    assert "calibrated" not in scripts.cells.read_predictions(run).networks


def test_the_report_compares_calibrated_students_with_each_other(done, scripts, plan):
    results = scripts.results.Results(done / "results", scripts.cells.read_plan(plan))
    stored = results._stored("phantoms", 1.0)
    halves, seven = np.full((9, 3), 1 / 3), np.full((9, 3), 0.15) + 0.55 * np.eye(3)[stored["labels"]]
    stored |= {"single/0/calibrated": halves, "dual/0/calibrated": seven, "dual/0/temperature": np.array(2.5)}
    lines = scripts.report.read_otherwise(results, "calibrated")
    (line,) = [line for line in lines if line.startswith("| phantoms, 100% | dual | ")]
    cells = line.strip("| ").split(" | ")
    assert cells[3] == "2.50" and cells[6:8] == ["0.357", "0.300"]  # -log 0.7, and always right
    assert cells[8].startswith("-0.742 (")  # log 3 before
    assert results.differences("phantoms", 1.0, "single", "single", "calibrated") == {}

    results.plan["claims"]["scarce"] = [["phantoms", 1.0], ["phantoms", 0.5]]
    (claim,) = [text for text in scripts.claims.claims(results) if "with a temperature fitted for each" in text]
    assert claim.startswith("* **open**") and "phantoms 100% -0.742, p = 0.0" in claim and "50% not run" in claim


def test_predictions_for_other_test_images_are_refused(done, scripts, tmp_path):
    stored = shutil.copy(scripts.store.predictions_path(done / "results", "phantoms", 1.0), tmp_path / "kept.npz")
    found = scripts.store.Predictions([f"{n}.png" for n in range(9)], np.load(stored)["labels"], -np.ones(9),
                                      {"student": np.full((9, 3), 1 / 3)}, np.ones(3))  # fmt: skip
    with pytest.raises(InputError, match="9 other test images than the 9 that single with seed 1"):
        scripts.store.add_predictions(stored, "single", 1, found)


def test_cells_that_ran_with_other_settings_are_named_and_run_again_on_request(done, start, plan, tmp_path, capsys):
    path = changed(plan, "longer.json", lambda content: content["rows"]["single"].update(weight_decay=0.5))
    start(done, "--list", plan=path)
    assert "than the plan has now, and again with --renew: phantoms_1.0_single_0\n" in capsys.readouterr().out
    start(done, "--list", plan=changed(plan, "revised.json", lambda content: content.update(revision=1)))
    named = capsys.readouterr().out.split("--renew: ")[1].splitlines()[0].split(", ")
    assert set(named) == {f"phantoms_1.0_{line['row']}_{line['seed']}" for line in lines(done)} != set()
    folder = shutil.copytree(done, tmp_path / "copy")
    assert start(folder, "--only", "1.0_(single|dual)", plan=path) == []
    assert start(folder, "--only", "1.0_(single|dual)", "--renew", plan=path) == ["phantoms_1.0_single_0"]
    assert len(lines(folder)) == len(lines(done))
    assert start(folder, "--only", "1.0_(single|dual)", "--renew", plan=path) == []


def test_learning_rates_are_chosen_by_validation_alone_and_used_by_the_cells(start, scripts, plan, tmp_path):
    assert start(tmp_path, "--tune", "--only", "1.0_single") == [
        "phantoms_1.0_single_0_tune_0.001", "phantoms_1.0_single_0_tune_0.01",
    ]  # fmt: skip
    assert not (tmp_path / "results" / "benchmark.csv").exists()
    validation = {}
    for line in lines(tmp_path, "tuned"):
        assert (line["data"], line["fraction"], line["row"], line["seed"]) == ("phantoms", "1.0", "single", "0")
        folder = tmp_path / "work" / f"phantoms_1.0_single_0_tune_{line['learning_rate']}"
        metrics = json.loads((folder / "metrics.json").read_text())
        assert "test" not in metrics
        validation[float(line["learning_rate"])] = metrics["best"]["student"]["nll"]
        assert float(line["nll"]) == pytest.approx(metrics["best"]["student"]["nll"], abs=1e-6)
        assert int(line["images"]) == metrics["best"]["images"]
        assert json.loads((folder / "settings.json").read_text())["val_fraction"] == 0.4
    assert list(validation) == [0.001, 0.01]
    chosen = min(validation, key=validation.get)
    assert start(tmp_path, "--tune", "--only", "1.0_single") == []
    scripts.report.main(["--results", str(tmp_path / "results"), "--plan", str(plan), "--no_pictures"])
    means = [f"**{value:.3f}**" if rate == chosen else f"{value:.3f}" for rate, value in validation.items()]
    report = (tmp_path / "results" / "tables.md").read_text()
    assert f"| single | mean |  |  | {' | '.join(means)} |" in report
    at_best = next(line for line in lines(tmp_path, "tuned") if float(line["learning_rate"]) == chosen)
    values = " | ".join(f"{float(at_best[name]):.3f}" for name in ("balanced_accuracy", "macro_auc", "nll", "ece"))
    assert f"| phantoms, 100% | single | 1 | {at_best['images']} | {chosen:g} | {values} |" in report
    start(tmp_path, "--only", "1.0_single")
    assert float(lines(tmp_path)[0]["learning_rate"]) == chosen
    assert "val_fraction" not in json.loads((tmp_path / "work" / "phantoms_1.0_single_0" / "settings.json").read_text())


def grid_line(data: str, row: str, rate: float, nll: float, images: int = 9) -> dict[str, str]:
    found = {"data": data, "fraction": 1.0, "row": row, "seed": 0, "learning_rate": rate, "images": images, "nll": nll}
    return {name: str(value) for name, value in found.items()}


def test_one_rate_is_chosen_for_all_data_sets_of_the_same_networks_by_all_their_images(scripts, plan):
    content = scripts.cells.read_plan(plan)
    content["data"] |= {"others": {"path": "demo"}, "volumes": {"path": "demo", "configs": ["volume.json"]}}
    content["rows"]["noisy"] = {"method": "single", "noise": 0.2, "rate_of": "single"}
    tuned = [
        grid_line("phantoms", "single", 0.001, 1.0), grid_line("phantoms", "single", 0.01, 0.5),
        grid_line("others", "single", 0.001, 1.0, images=4), grid_line("others", "single", 0.01, 1.6, images=4),
        grid_line("phantoms", "single", 0.1, 0.0),  # the others haven't been tried with it
        grid_line("volumes", "single", 0.001, 0.0), grid_line("forgotten", "single", 0.001, 0.0),
    ]  # fmt: skip

    def rate(data: str, row: str) -> float | None:
        return scripts.cells.chosen_rate(content, scripts.cells.Cell(data, 1.0, row, 3), tuned)

    assert scripts.cells.grid_means(tuned[:4], "nll") == pytest.approx({0.001: 1.0, 0.01: (9 * 0.5 + 4 * 1.6) / 13})
    assert rate("phantoms", "single") == rate("others", "single") == rate("others", "noisy") == 0.01
    assert rate("volumes", "single") == 0.001
    assert rate("phantoms", "dual") is None
    settings = scripts.cells.settings_of(content, scripts.cells.Cell("phantoms", 1.0, "noisy", 3), tuned)
    assert settings["learning_rate"] == 0.01 and settings["noise"] == 0.2 and "rate_of" not in settings
    assert scripts.cells.grid_means([tuned[0] | {"nll": ""}, *tuned[1:2]], "nll") == {0.01: 0.5}
    without = {key: value for key, value in content.items() if key != "tune"}
    with pytest.raises(InputError, match="no learning rates to compare"):
        scripts.benchmark.grid_cells(without, [], [])
    assert scripts.cells.chosen_rate(without, scripts.cells.Cell("phantoms", 1.0, "single", 3), tuned) is None


def test_a_rate_is_taken_from_a_row_that_the_plan_has(scripts, plan):
    path = changed(plan, "rate_of.json", lambda content: content["rows"]["dual"].update(rate_of="nothing"))
    with pytest.raises(InputError, match="names the row 'nothing'"):
        scripts.cells.read_plan(path)


def test_cells_that_ran_with_another_rate_than_the_chosen_one_are_named(start, scripts, done, tmp_path, capsys):
    shutil.copytree(done / "results", tmp_path / "results")
    (line,) = [line for line in lines(tmp_path) if line["row"] == "single"]
    for rate, named in ((float(line["learning_rate"]), False), (0.5, True)):
        scripts.store.write_rows(tmp_path / "results", [grid_line("phantoms", "single", rate, 1.0)], "tuned")
        start(tmp_path, "--list")
        assert ("and again with --renew: phantoms_1.0_single_0" in capsys.readouterr().out) == named


def test_the_report_has_all_tables_with_blanks_for_what_has_not_run(done, scripts, plan):
    results = done / "results"
    scripts.report.main(["--results", str(results), "--plan", str(plan), "--no_pictures"])
    text = (results / "tables.md").read_text()
    assert "## phantoms, 100% of the training images" in text and "## phantoms, 50% of the training images" in text
    tables = text[text.index("## phantoms") :].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in tables if line.startswith("| ")]
    head, single = rows[0], rows[2]
    (line,) = [line for line in lines(done) if line["row"] == "single"]
    assert single[:3] == ["single", "student", "1"]
    assert single[head.index("NLL")] == f"{float(line['nll']):.3f}"
    assert single[head.index("AUC minus control")] == ""
    dual = next(row for row in rows if row[:2] == ["dual", "student"])
    assert re.fullmatch(
        r"[+-]0\.\d{3} \([+-]\d\.\d{3} to [+-]\d\.\d{3}\), p \d\.\d{3}", dual[head.index("ECE minus control")]
    )
    blank = [row for row in rows if row[2:] == [""] * (len(head) - 2)]
    assert [row[0] for row in blank] == ["single", "dual"]  # the half of the data, not run
    claims = text[text.index("## Claims") :]
    assert "**holds**: accuracy of 0.01 or better on phantoms (" in claims
    assert "phantoms 50% not run" in claims and claims.count("\n* ") == 11
    sizes = {line["row"]: int(line["parameters"]) for line in lines(done) if line["network"] == "student"}
    share = f"{sizes['dual'] / sizes['large']:.1%}"
    assert f"**does not hold**: `dual` has under 1/5 of the large model's parameters: phantoms 100% {share}." in claims


def test_the_short_table_and_the_claims_stand_between_the_marks_of_the_document(done, scripts, plan):
    document = done / "results.md"
    document.write_text("Before\n<!-- made by scripts/benchmark/report.py -->\nformer lines\n<!-- end -->\nAfter\n")
    for _ in range(2):  # a second time changes nothing
        scripts.report.main(["--results", str(done / "results"), "--plan", str(plan), "--no_pictures"])
        text = document.read_text()
        assert text.startswith("Before\n<!-- made") and text.endswith("<!-- end -->\nAfter\n") and "former" not in text
        rows = [line for line in text.splitlines() if line.startswith("| phantoms")]
        assert [row.split(" | ")[1] for row in rows] == ["single", "dual", "large", "distill"]
        assert text.count("accuracy of 0.01 or better") == 1
    content = json.loads(plan.read_text()) | {"short": ["large", "single"]}
    chosen = plan.with_name("short.json")
    chosen.write_text(json.dumps(content))
    scripts.report.main(["--results", str(done / "results"), "--plan", str(chosen), "--no_pictures"])
    rows = [line for line in document.read_text().splitlines() if line.startswith("| phantoms")]
    assert [row.split(" | ")[1] for row in rows] == ["single", "large"]
    assert "| distill | student |" in (done / "results" / "tables.md").read_text()


@pytest.mark.parametrize(
    ("single", "dual", "large", "state"),
    [(0.7, 0.76, 0.8, "holds"), (0.7, 0.74, 0.8, "does not hold"), (0.8, 0.85, 0.7, "void"), (0.7, 0.8, None, "open")],
)
def test_a_gap_to_the_large_model_is_halved_or_there_is_none_to_halve(scripts, plan, single, dual, large, state):
    content = scripts.cells.read_plan(plan)
    content["claims"]["scarce"] = [["phantoms", 1.0], ["phantoms", 0.5]]
    results = scripts.results.Results(plan.parent, content)
    line = dict.fromkeys(scripts.store.COLUMNS, "") | {"data": "phantoms", "network": "student", "seed": 0}
    results.lines = [
        line | {"row": row, "fraction": fraction, "balanced_accuracy": value}
        for fraction in (1.0, 0.5)
        for row, value in (("single", single), ("dual", dual), ("large", large))
        if value is not None
    ]
    (found,) = [text for text in scripts.claims.claims(results) if "halves the gap" in text]
    assert found.startswith(f"* **{state}**")
    assert large is None or f"{100 * (large - single):+.1f} and {100 * (large - dual):+.1f} points" in found


def test_the_gain_with_few_images_is_compared_with_that_with_many(scripts, plan):
    content = scripts.cells.read_plan(plan)
    content["claims"]["shares"] = [["phantoms", 0.5, 1.0]]
    results = scripts.results.Results(plan.parent, content)
    line = dict.fromkeys(scripts.store.COLUMNS, "") | {"data": "phantoms", "network": "student", "seed": 0}
    results.lines = [
        line | {"row": row, "fraction": fraction, "macro_auc": auc}
        for row, fraction, auc in (("single", 0.5, 0.6), ("dual", 0.5, 0.7), ("single", 1.0, 0.8), ("dual", 1.0, 0.83))
    ]

    def claim() -> str:
        (found,) = [text for text in scripts.claims.claims(results) if "with few images than with many" in text]
        return found

    assert claim().startswith("* **holds**") and "phantoms 50% +7.0 points more" in claim()
    results.lines[-1]["macro_auc"] = 0.95
    assert claim().startswith("* **does not hold**") and "phantoms 50% -5.0 points more" in claim()
    other = [one | {"seed": 1} for one in results.lines]
    other[-1]["macro_auc"] = 0.8
    results.lines += other  # more in the mean of both seeds, and less in one of them
    assert claim().startswith("* **does not hold**") and "+2.5 points more (-5.0 to +10.0)" in claim()
    del results.lines[4:]
    del results.lines[-1]
    assert claim().startswith("* **open**") and "phantoms 50% not run" in claim()


def test_accuracy_is_that_of_the_light_row_and_size_that_validation_chooses(scripts, plan):
    content = scripts.cells.read_plan(plan)
    content["claims"]["accuracy"] = [[["phantoms", 0.5], ["phantoms", 1.0]], 0.75]
    results = scripts.results.Results(plan.parent, content)
    line = dict.fromkeys(scripts.store.COLUMNS, "") | {"data": "phantoms", "network": "student", "seed": 0}
    results.lines = [
        line | {"row": row, "fraction": fraction, "val_accuracy": validation, "accuracy": accuracy}
        for row, fraction, validation, accuracy in (
            ("single", 0.5, 0.7, 0.9), ("dual", 1.0, 0.8, 0.7), ("single", 1.0, 0.6, 0.8), ("large", 1.0, 0.95, 0.85)
        )
    ]  # fmt: skip
    (found,) = [text for text in scripts.claims.claims(results) if "accuracy of 0.75 or better" in text]
    assert found.startswith("* **does not hold**") and "`dual`): phantoms 100% 0.700" in found


def test_a_variant_of_the_method_has_claims_against_its_own_control(done, scripts, plan):
    content = scripts.cells.read_plan(plan)
    results = scripts.results.Results(done / "results", content)
    content["claims"]["scarce"] = [["phantoms", 1.0]]
    before = scripts.claims.claims(results)
    content["claims"]["variants"] = [{"method": "dual", "control": "large", "on": [["phantoms", 1.0]]}]
    found = scripts.claims.claims(results)
    *added, together = found[len(before) :]
    assert found[: len(before)] == before and len(added) == 6
    assert all("`dual`" in text and "`large`" in text and "phantoms 100%" in text for text in added)
    first, second = (results.differences("phantoms", 1.0, "dual", control) for control in ("large", "single"))
    corrected = holm([one[name].p for one in (first, second) for name in scripts.results.COMPARED])
    assert (
        f"too ({len(corrected)}): phantoms 100% balanced accuracy {corrected[0]:.3f}, AUC {corrected[1]:.3f}"
        in together
    )
    ece = results.shared_means("phantoms", 1.0, ("dual", "large"), "ece")
    assert f"{ece[0] / ece[1]:.2f} times" in found[len(before) + 1]


def test_pairs_of_rows_are_compared(done, scripts, plan):
    content = scripts.cells.read_plan(plan)
    results = scripts.results.Results(done / "results", content)
    assert scripts.report.comparisons(results) == []
    content["claims"] |= {"compared": [["dual", "single"], ["dual", "large"]], "scarce": [["phantoms", 1.0]]}
    *_, first, second = scripts.report.comparisons(results)
    auc = results.differences("phantoms", 1.0, "dual", "single")["macro_auc"]
    assert first.startswith("| `dual` minus `single` | phantoms, 100% | 1 | ") and f"| {auc.value:+.3f} (" in first
    assert second.startswith("| `dual` minus `large` | phantoms, 100% | 1 | ")


def test_a_pair_can_be_compared_over_the_seeds_that_came_later_alone(done, scripts, plan):
    content = scripts.cells.read_plan(plan)
    content["claims"] |= {"compared": [["dual", "single", 1], ["dual", "single", 2]], "scarce": [["phantoms", 1.0]]}
    results = scripts.results.Results(done / "results", content)
    results.lines = [line | {"seed": seed} for line in results.lines for seed in (0, 1)]
    stored = results._stored("phantoms", 1.0)
    stored |= {key.replace("/0/", "/1/"): value for key, value in stored.items() if "/0/" in key}
    stored["dual/1/student"] = stored["single/1/student"]
    *_, row = scripts.report.comparisons(results)  # of seed 1, whose probabilities are the same; none has seed 2
    assert row.startswith("| `dual` minus `single` | phantoms, 100% | 1 (from 1 on) | +0.000 (+0.000 to +0.000) |")


def test_measured_rows_that_the_plan_no_longer_has_stay_in_its_tables(scripts, plan):
    content = scripts.cells.read_plan(plan)
    results = scripts.results.Results(plan.parent, content)
    line = {"data": "phantoms", "fraction": "1.0", "network": "student"}
    results.lines = [line | {"row": row} for row in ("gone_b", "single", "gone_a", "gone_b")]
    (rows,) = (rows for data, fraction, rows in results.tables() if (data, fraction) == ("phantoms", 1.0))
    planned = [row for row in content["rows"] if row in rows]
    assert "single" in planned and rows == [*planned, "gone_b", "gone_a"]


def test_rows_are_compared_over_the_seeds_that_all_of_them_have(scripts, plan):
    content = scripts.cells.read_plan(plan)
    results = scripts.results.Results(plan.parent, content)
    line = {"data": "phantoms", "fraction": "1.0", "network": "student"}
    results.lines = [
        line | {"row": row, "seed": seed, "ece": ece}
        for row, seed, ece in (("single", 0, 0.1), ("single", 1, 0.3), ("dual", 1, 0.2), ("dual", 2, 0.9))
    ]
    assert results.shared_means("phantoms", 1.0, ("single", "dual"), "ece").tolist() == [0.3, 0.2]
    assert np.isnan(results.shared_means("phantoms", 1.0, ("single", "large"), "ece")).all()
    results.lines.append(line | {"fraction": "0.5", "row": "single", "seed": 1, "ece": 0.7})
    cells = [("phantoms", share, row) for share, row in ((0.5, "single"), (1.0, "single"), (1.0, "dual"))]
    assert results.means_of(cells, "ece").tolist() == [0.7, 0.3, 0.2]


def test_a_table_has_no_outdated_cells_beside_others_and_is_marked_when_it_has_no_others(done, scripts, plan, tmp_path):
    folder = shutil.copytree(done / "results", tmp_path / "results")
    stored = lines(done)
    half = [line | {"fraction": "0.5"} for line in stored if line["row"] == "single"]
    scripts.store.write_rows(folder, [line | {"settings": "00000000"} for line in half] + stored, "benchmark")
    results = scripts.results.Results(folder, scripts.cells.read_plan(plan))
    assert (
        results.outdated == {"phantoms_0.5_single_0"} and results.hidden == set() and len(results.lines) > len(stored)
    )
    assert results.mark("phantoms", 0.5) == " †" and results.mark("phantoms", 1.0) == ""
    assert any(line.startswith("| phantoms, 50% † | single ") for line in scripts.report.summary(results))

    changed_row = [line | ({"settings": "00000000"} if line["row"] == "dual" else {}) for line in stored]
    scripts.store.write_rows(folder, changed_row, "benchmark")
    measured = [
        {"data": "phantoms", "fraction": 1.0, "row": row, "seed": 0, "network": "student", "corruption": "none"}
        | {"strength": 0} for row in ("single", "dual")
    ]  # fmt: skip
    scripts.store.write_rows(folder, measured, "robustness")
    results = scripts.results.Results(folder, scripts.cells.read_plan(plan))
    assert results.hidden == {"phantoms_1.0_dual_0"} and results.mark("phantoms", 1.0) == ""
    assert {line["row"] for line in results.lines} == {line["row"] for line in stored} - {"dual"}
    shift = scripts.report.robustness.Robustness(folder, results.plan, results.hidden)
    assert shift.seeds("phantoms", 1.0, "single") and not shift.seeds("phantoms", 1.0, "dual")


def test_a_finished_cell_has_a_line_per_corruption_where_the_plan_asks_for_them(done):
    found = {(line["row"], line["network"], line["corruption"], line["strength"]): line
             for line in lines(done, "robustness")}  # fmt: skip
    networks = [("single", "student"), ("large", "student"), ("dual", "student"), ("dual", "auxiliary"),
                ("distill", "student"), ("distill", "auxiliary")]  # fmt: skip
    kinds = [("none", "0"), ("noise", "1"), ("noise", "5"), ("jpeg", "1"), ("jpeg", "5")]
    assert set(found) == {(*network, *kind) for network in networks for kind in kinds}
    metrics = json.loads((done / "work" / "phantoms_1.0_dual_0" / "metrics.json").read_text())["robustness"]
    for who in ("student", "auxiliary"):
        measured = metrics["corrupted"]["noise"]["5"][who]
        assert float(found["dual", who, "noise", "5"]["nll"]) == pytest.approx(measured["nll"], abs=1e-6)
    clean = {(line["row"], line["network"]): line for line in lines(done)}
    for network in networks:
        assert found[(*network, "none", "0")]["accuracy"] == clean[network]["accuracy"]
        assert found[(*network, "none", "0")]["nll"] == pytest.approx(clean[network]["nll"], abs=1e-6)


def test_cells_that_were_finished_without_corruptions_stay_finished(start, plan, tmp_path):
    def without(content):
        del content["data"]["phantoms"]["robustness"]

    path = changed(plan, "plain.json", without)
    assert start(tmp_path, "--only", "1.0_single", plan=path) == ["phantoms_1.0_single_0"]
    assert not (tmp_path / "results" / "robustness.csv").exists()
    assert start(tmp_path, "--only", "1.0_single") == []


@pytest.fixture
def shifted(scripts, plan, tmp_path):
    """Results with made-up corruptions: two seeds of the control, three of the method."""
    accuracy = {
        ("single", 0): {"none": 0.8, "noise": 0.6, "blur": 0.4},
        ("single", 1): {"none": 0.9, "noise": 0.5, "blur": 0.4},
        ("dual", 0): {"none": 0.8, "noise": 0.7, "blur": 0.5}, ("dual", 1): {"none": 0.8, "noise": 0.5, "blur": 0.5},
        ("dual", 2): {"none": 1.0, "noise": 0.0, "blur": 0.0},
    }  # fmt: skip
    for (row, seed), values in accuracy.items():
        found = [
            {"data": "phantoms", "fraction": 0.5, "row": row, "seed": seed, "network": "student", "corruption": name,
             "strength": 0 if name == "none" else 3, "accuracy": value, "balanced_accuracy": value, "macro_auc": "",
             "nll": 1 - value, "ece": 0.1}
            for name, value in values.items()
        ]  # fmt: skip
        scripts.store.add_rows(tmp_path, found, "robustness")
    scripts.report.main(["--results", str(tmp_path), "--plan", str(plan), "--no_pictures"])
    return tmp_path


def test_the_report_compares_corrupted_images_over_the_seeds_that_both_have(shifted):
    text = (shifted / "tables.md").read_text()
    section = text[text.index("# Corrupted images") :]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")]
    named = [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
    single, dual = named
    assert "in 2 ways" in section and single["row"] == "single" and dual["seeds"] == "3"
    assert single["accuracy"] == "0.850 ± 0.071" and single["corrupted"] == "0.475 ± 0.035"
    assert single["drop"] == "0.438 ± 0.088"  # 1 - 0.5 / 0.8 and 1 - 0.45 / 0.9
    assert single["corrupted minus control"] == "" and single["AUC corrupted"] == ""
    assert dual["corrupted minus control"] == "+0.075 ± 0.035 (2 of 2 better)"  # 0.6 - 0.5 and 0.5 - 0.45
    assert dual["drop minus control"] == "-0.125 ± 0.000 (2 of 2 better)"  # 0.25 - 0.375 and 0.375 - 0.5
    assert single["balanced accuracy corrupted"] == single["corrupted"] and single["NLL corrupted"] == "0.525 ± 0.035"
    assert single["noise"] == "0.550 ± 0.071" and single["blur"].startswith("0.400")
    claims = text[text.index("## Claims") :]
    assert (
        "**holds**: `dual` has a mean accuracy under corruption not below that of `single`: phantoms 50% +7.5" in claims
    )
    lost = "loses a smaller share of its accuracy under corruption than `single`: phantoms 50% -12.5 points."
    assert f"**holds**: `dual` {lost}" in claims


def test_claims_about_corrupted_images_are_open_without_measurements(done, scripts, plan):
    scripts.report.main(["--results", str(done / "results"), "--plan", str(plan), "--no_pictures"])
    text = (done / "results" / "tables.md").read_text()
    claim = "**open**: `dual` has a mean accuracy under corruption not below that of `single`:"
    assert f"{claim} phantoms 50% not run" in text
    path = changed(plan, "silent.json", lambda content: content["data"]["phantoms"].pop("robustness"))
    scripts.report.main(["--results", str(done / "results"), "--plan", str(path), "--no_pictures"])
    text = (done / "results" / "tables.md").read_text()
    assert f"{claim} not asked for by the plan" in text and text.count("not asked for by the plan") == 2


def test_each_network_of_the_plan_is_timed_once_and_shown_in_the_tables(done, scripts, plan, tmp_path, capsys):
    results = shutil.copytree(done / "results", tmp_path / "results")
    scripts.latency.main(["--results", str(results), "--plan", str(plan), "--rounds", "3"])
    with (results / "latency.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [line["network"] for line in found] == [f"resnet18 {json.dumps(o, sort_keys=True)}" for o in (LARGE, SMALL)]
    large, small = found
    assert {line["size"] for line in found} == {"32x32"} and "1 thread, torch" in large["machine"]
    assert float(large["of_large"]) == 1 and float(small["milliseconds"]) > 0
    sizes = {(line["row"], line["network"]): line for line in lines(done)}
    for line, row in ((small, "single"), (large, "large")):
        assert int(line["macs"]) == pytest.approx(int(sizes[row, "student"]["macs"]), rel=0.01)

    scripts.report.main(["--results", str(results), "--plan", str(plan), "--no_pictures"])
    text = (results / "tables.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]]
            for line in text[text.index("## phantoms") :].splitlines() if line.startswith("| ")]  # fmt: skip
    shown = {tuple(row[:2]): row[rows[0].index("CPU ms")] for row in rows[2:10]}
    one, two = (f"{float(line['milliseconds']):.1f} ({float(line['of_large']):.2f})" for line in (small, large))
    assert shown["single", "student"] == shown["dual", "auxiliary"] == one
    assert shown["large", "student"] == shown["distill", "auxiliary"] == two
    both = float(small["of_large"]) + 1
    assert shown["distill", "mean"].endswith(f"({both:.2f})")


def test_a_time_is_not_shown_for_a_result_of_another_network(done, scripts, plan, tmp_path):
    narrow = changed(plan, "narrow.json", lambda c: c["common"].update(small_options=LARGE | {"channels": [4] * 4}))
    scripts.latency.main(["--results", str(tmp_path), "--plan", str(narrow), "--rounds", "1"])
    latencies = scripts.latency.Latencies(tmp_path, scripts.cells.read_plan(narrow))
    macs = {line["row"]: float(line["macs"]) for line in lines(done) if line["network"] == "student"}
    assert latencies.text("phantoms", "single", "student", macs["single"]) == ""
    assert latencies.text("phantoms", "large", "student", macs["large"])


def test_networks_take_turns_and_the_first_two_rounds_do_not_count(scripts):
    calls = []

    class Noted(torch.nn.Module):
        def forward(self, x):
            calls.append(len(x))

    times = scripts.latency.milliseconds({n: (Noted(), torch.zeros(n, 1)) for n in (1, 2)}, 3)
    assert calls == [1, 2] * 5 and [len(values) for values in times.values()] == [3, 3]


def test_a_run_in_its_own_process_gives_its_last_error_line(scripts, tmp_path):
    with scripts.cells.Processes() as execute:
        config = str(SCRIPTS.parent / "bundle" / "configs" / "train.json")
        places = {"dataset_dir": str(tmp_path / "nowhere"), "output_dir": str(tmp_path), "device": "cpu"}
        for name in ("log.txt", "again.txt"):  # a failed cell doesn't harm the process that the next one comes from
            with pytest.raises(scripts.cells.CellFailed, match=r"^Error: The data set .*nowhere does not exist"):
                execute([{"run_id": "training", "config_file": config, **places}], tmp_path / name)
        assert not execute.running
        processes = list(execute.waiting)
        assert len(processes) == (1 if sys.platform == "linux" else 0)
    assert all(process.returncode is not None for process in processes)


@pytest.fixture
def quick(scripts):
    """Processes with a ``run`` that needs no imports."""
    execute = scripts.cells.Processes()
    execute.IMPORTS = """
def run(name):
    print(name, os.environ["MALLOC_TOP_PAD_"], os.environ["OMP_NUM_THREADS"], flush=True)
    if name == "killed": os.kill(os.getpid(), 9)
    if name == "endless": import time; time.sleep(60)
"""
    with execute:
        yield execute


def test_cells_are_forked_from_one_process_with_one_thread_and_memory_that_is_kept(scripts, quick, tmp_path):
    for name in "ab":
        quick([{"name": name}, {"name": name.upper()}], tmp_path / f"{name}.txt")
        assert (tmp_path / f"{name}.txt").read_text() == f"{name} 268435456 1\n{name.upper()} 268435456 1\n"
    with pytest.raises(scripts.cells.CellFailed, match="^killed 268435456 1$"):
        quick([{"name": "killed"}, {"name": "never"}], tmp_path / "c.txt")
    assert "never" not in (tmp_path / "c.txt").read_text()


def test_leaving_ends_the_cells_that_run(scripts, quick, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        cell = pool.submit(quick, [{"name": "endless"}], tmp_path / "log.txt")
        while not ((tmp_path / "log.txt").is_file() and "endless" in (tmp_path / "log.txt").read_text()):
            time.sleep(0.02)
        quick.__exit__()
        with pytest.raises(scripts.cells.CellFailed):
            cell.result(timeout=10)


def test_a_plan_that_names_what_it_does_not_define_is_refused(scripts, plan, start, tmp_path):
    tiers = [{"on": [["phantoms", 1.0]], "rows": ["dua"], "seeds": [0]}]
    path = changed(plan, "wrong.json", lambda content: content.update(tiers=tiers))
    with pytest.raises(SystemExit, match="names the row 'dua', which it doesn't define; known: single, dual"):
        start(tmp_path, plan=path)
