# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from dual_skd import EvaluationResult, InferenceResult, TrainingResult
from dual_skd.api.results import last_words, say
from dual_skd.errors import InputError
from dual_skd.utils.wording import WIDTH

HOSTILE = '<script>alert("x")</script>'
STUDENT = {"macro_auc": 0.91, "balanced_accuracy": 0.82, "accuracy": 0.8, "nll": 0.4, "ece": 0.12, "f1": None}


def epoch(number: int, **student: float | None) -> dict:
    return {"epoch": number, "images": 7, "student": STUDENT | student}


def write(folder: Path, **files: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def run(tmp_path) -> Path:
    """Files of a run of three epochs whose second one was kept, and of two evaluations."""
    epochs = [epoch(1, nll=0.9), epoch(2), epoch(3, macro_auc=0.9)]
    timings = {"epochs": [{"epoch": n, "seconds": n / 2} for n in (1, 2, 3)], "total_seconds": 3}
    limits = {"value": 0.82, "low": 0.71, "high": 0.9, "reason": ""}
    overall = {
        "balanced_accuracy": limits,
        "macro_auc": {"value": 0.91, "low": None, "high": None, "reason": "one patient"},
    }
    test = {
        "source": "class folders in /data", "images": 3, "student": STUDENT, "temperature": 2.5,
        "calibrated": STUDENT | {"ece": 0.034}, "with_twins": {"images": 4},
        "analysis": {"settings": {"level": 0.95}, "metrics": {"overall": overall}},
    }  # fmt: skip
    other = {"source": f"table in /data/{HOSTILE}", "images": 2, "student": STUDENT, "temperature": None}
    records = [{"image": str(n), "label": 0, "patient": patient} for n, patient in enumerate("aab")]
    folder = write(
        tmp_path / "a run",
        run={"finished": "2024", "timings": timings},
        metrics={"class_names": [HOSTILE, "b"], "key_metric": "macro_auc", "epochs": epochs, "best": epochs[1],
                 "final": epochs[2], "test": test, "b": other},
        datalist={"validation": records, "test": records[1:]},
        datalist_b={"test": [{"image": "x", "label": 0, "patient": ""}]},
    )  # fmt: skip
    (folder / "report").mkdir()
    (folder / "report" / "report.html").touch()
    return folder


def test_a_training_is_what_its_files_say(run):
    result = TrainingResult(run)
    assert (result.finished, result.epochs, result.kept_epoch, result.images, result.patients) == (True, 3, 2, 7, 2)
    assert result.kept_because == "the best macro AUC on the validation images"
    assert result.metrics == STUDENT and result.report == run / "report" / "report.html"
    assert result.history[0] == {"epoch": 1, "seconds": 0.5} | STUDENT | {"nll": 0.9}
    assert [one["epoch"] for one in result.history] == [1, 2, 3]
    assert last_words(result).splitlines() == [
        f"Trained: {run}/models/model.pt",
        "  kept        epoch 2 of 3, the best macro AUC on the validation images",
        "  validation  macro AUC 0.910, balanced accuracy 0.820, NLL 0.400, ECE 0.120 on",
        "              7 images of 2 patients; they chose the epoch, so new images may",
        "              fare worse, and too few to say much",
        f"  per epoch   {run}/metrics.json",
        f"  report      {run}/report/report.html",
        f"Next: dual-skd evaluate '{run}'",
    ]
    assert repr(result) == last_words(result).rpartition("\nNext: ")[0]


def test_the_rule_by_which_an_epoch_was_kept(run):
    record = json.loads((run / "metrics.json").read_text())
    write(run, metrics=record | {"key_metric": "last"})
    assert TrainingResult(run).kept_because == "the last one, whatever its validation"
    write(run, metrics=record | {"key_metric": "f1"})
    assert TrainingResult(run).kept_because == "the lowest NLL on the validation images, for which F1 isn't defined"
    (run / "metrics.json").unlink()
    result = TrainingResult(run)
    assert (result.kept_epoch, result.kept_because) == (3, "the last one, as there were no validation images")
    assert "validation  " not in last_words(result) and result.metrics == {} and result.images == 0
    assert result.history == [{"epoch": n, "seconds": n / 2} for n in (1, 2, 3)]


def test_a_run_that_was_stopped_says_so(run):
    write(run, run={"finished": None, "timings": {"epochs": [{"epoch": 1, "seconds": 1}]}}, metrics={})
    words = last_words(TrainingResult(run)).splitlines()
    assert words[0] == f"Not trained to the end: 1 epoch done in {run}"
    assert words[-1] == "Next: give the same command again: the training goes on where it stopped"


def test_numbers_of_a_run_that_was_stopped_come_after_a_warning(run):
    timings = {"epochs": [{"epoch": n, "seconds": 1} for n in (1, 2)]}
    write(run, run={"finished": None, "config": {"dataset_dir": "my data", "epochs": 24}, "timings": timings})
    lines = last_words(EvaluationResult(run)).splitlines()
    assert lines[1].startswith("  warning            Training was stopped after epoch 2 of 24, or still runs;")
    assert "numbers are of an unfinished model." in " ".join(" ".join(lines[2:4]).split())
    assert lines[-1].startswith(f"Next: dual-skd train 'my data' -o '{run}' --epochs 24")
    write(run, metrics=json.loads((run / "metrics.json").read_text()) | {"key_metric": "last"})
    lines = last_words(TrainingResult(run)).splitlines()
    assert lines[0] == f"Not trained to the end: 2 epochs of 24 done in {run}"
    assert lines[1] == "  kept        epoch 2, the last one so far, whatever its validation"


def test_an_evaluation_is_what_its_files_say(run):
    result = EvaluationResult(run)
    assert (result.images, result.patients, result.temperature) == (3, 2, 2.5)
    assert result.data == "the run's own test images"
    assert result.metrics == STUDENT and result.calibrated == STUDENT | {"ece": 0.034}
    assert result.intervals == {"balanced_accuracy": (0.71, 0.9)}
    (run / "models").mkdir()
    (run / "models" / "model.pt").touch()
    assert last_words(result).splitlines() == [
        f"Evaluated: {run}, kept as 'test'",
        "  measured           3 images of 2 patients: the run's own test images; 1 image",
        "                     with a twin in training left out",
        "  macro AUC          0.910; one patient",
        "  balanced accuracy  0.820 (95% interval 0.710 to 0.900)",
        "  calibration        probabilities and the share that is right differ by 3.4",
        "                     points (ECE); by 12.0 without the temperature of 2.50",
        f"  per image          {run}/predictions_test.csv",
        f"  report             {run}/report/report.html",
        f"Next: dual-skd predict IMAGES --model '{run}'",
    ]


def test_an_evaluation_of_another_data_set_without_a_report(run):
    result = EvaluationResult(run, "b")
    assert result.data == f"table in /data/{HOSTILE}" and result.patients == 0
    assert result.calibrated is None and result.intervals == {} and result.report is None
    words = last_words(result)
    assert "12.0 points (ECE); as the network gives them" in " ".join(words.split()) and "interval" not in words
    assert words.endswith("\nNext: dual-skd train DATA -o OUT")  # there is no model file: the bundle's was measured


def test_another_data_set_is_said_beside_the_runs_own_test_images(run):
    words = " ".join(last_words(EvaluationResult(run, "b")).split())
    assert "at home the run's own test images weren't evaluated with the same setting of calibrate; do that" in words
    record = json.loads((run / "metrics.json").read_text())
    write(run, metrics=record | {"b": record["b"] | {"calibrated": STUDENT}})
    lines = last_words(EvaluationResult(run, "b")).splitlines()
    place = lines.index("  balanced accuracy  0.820")
    assert lines[place + 1] == "    at home          0.820 (95% interval 0.710 to 0.900)"
    assert lines[place - 1] == "    at home          0.910; one patient"
    del record["test"]
    write(run, metrics=record)
    words = " ".join(last_words(EvaluationResult(run, "b")).split())
    assert "at home the run's own test images weren't evaluated; do that first, by `dual-skd evaluate`," in words


def test_what_isnt_there_is_said_with_what_is(run, tmp_path):
    with pytest.raises(InputError, match=r"has no evaluation 'tests' \(did you mean test\?\); there are test, b\."):
        EvaluationResult(run, "tests")
    with pytest.raises(InputError, match="has no evaluation 'best'"):  # other entries of the file
        EvaluationResult(run, "best")
    with pytest.raises(InputError, match=r"`dual-skd evaluate .*` makes one"):
        EvaluationResult(tmp_path)
    with pytest.raises(InputError, match=r"has no run\.json"):
        TrainingResult(tmp_path)
    with pytest.raises(InputError, match="There is no table of predictions"):
        InferenceResult(tmp_path / "predictions.csv")


def test_a_table_of_predictions_is_counted_and_its_problems_grouped(tmp_path):
    path = tmp_path / "predictions.csv"
    rows = [["a.png", "x", ""], ["b.png", "y", ""], ["c.png", "y", ""],
            *([f"/d/{n}.png", "", f"/d/{n}.png has {n} bytes, so it can't be read"] for n in (7, 8)),
            ["/d/e.png", "", "e.png is a table"]]  # fmt: skip
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "predicted", "problem"], *rows])
    result = InferenceResult(path)
    assert result.answers == {"y": 2, "x": 1} and len(result.predictions) == 6
    assert result.problems == {"7.png has 7 bytes, so it can't be read": 2, "e.png is a table": 1}
    assert last_words(result).splitlines() == [
        f"Predicted: {path}",
        "  images    6, 3 answered, 3 not",
        "  answers   y 2, x 1",
        "  not used  2: 7.png has 7 bytes, so it can't be read",
        "            1: e.png is a table",
    ]


@pytest.mark.parametrize("make", [TrainingResult, EvaluationResult, lambda run: EvaluationResult(run, "b")])
def test_a_notebook_shows_a_table_and_the_curves_without_letting_a_name_be_code(run, make):
    page = make(run)._repr_html_()
    assert "<script" not in page and "0.820" in page and "balanced accuracy" in page
    assert ("<svg" in page) == (make is TrainingResult)
    assert page.count("&lt;script&gt;") == (HOSTILE in repr(make(run)))


def test_a_hostile_folder_is_text_in_a_notebook(run):
    renamed = run.rename(run.parent / '<img src=x onerror="alert(1)">')
    for result in (TrainingResult(renamed), EvaluationResult(renamed)):
        assert "<img" not in result._repr_html_() and "&lt;img" in result._repr_html_()


def test_lines_fit_a_terminal(run):
    record = json.loads((run / "metrics.json").read_text())
    record["b"]["source"] = "word " * 60
    write(run, metrics=record)
    for result in (TrainingResult(run), EvaluationResult(run), EvaluationResult(run, "b")):
        long = [line for line in last_words(result).splitlines() if len(line) > WIDTH]
        assert all(str(run) in line for line in long)


def test_the_last_words_are_said_once_and_where_information_is_shown(run, capsys, caplog, monkeypatch):
    caplog.set_level(logging.WARNING, "dual_skd.api.results")
    say(TrainingResult, run)
    assert capsys.readouterr().out == ""  # in Python nothing asked for them
    caplog.set_level(logging.INFO, "dual_skd.api.results")
    monkeypatch.setenv("RANK", "1")
    say(TrainingResult, run)
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    say(TrainingResult, run)
    assert capsys.readouterr().out == f"\n{last_words(TrainingResult(run))}\n"


def test_the_module_brings_neither_torch_nor_monai():
    named = "dual_skd.TrainingResult, dual_skd.InferenceResult"
    code = f"import sys, dual_skd; {named}; print({{'torch', 'monai'}} & {{*sys.modules}})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"


def test_a_closed_output_is_no_error(run, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="dual_skd")
    monkeypatch.setattr(sys, "stdout", None)
    say(TrainingResult, run)
