# SPDX-License-Identifier: Apache-2.0
"""What results say of real runs, against their files."""

from __future__ import annotations

import csv
import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch

from dual_skd import EvaluationResult, InferenceResult, TrainingResult
from dual_skd.api.results import last_words

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "user_guide.md"


def accuracy(path: Path) -> tuple[int, float]:
    """Images and mean of the classes' accuracies, from a table of predictions."""
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    right = {name: [row["predicted"] == name for row in table if row["label"] == name] for name in
             {row["label"] for row in table}}  # fmt: skip
    return len(table), sum(sum(hits) / len(hits) for hits in right.values()) / len(right)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, trained, run, demo) -> Path:
    """The run, evaluated, and asked about images of which one can't be read."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("runs") / "output")
    run("evaluate.json", output_dir=str(folder))
    images = shutil.copytree(demo / "images", folder.parent / "images")
    min(path for path in images.rglob("*") if path.is_file()).write_bytes(b"%PDF-1.7")
    run("inference.json", output_dir=str(folder), dataset_dir=str(images))
    return folder


def test_a_training_run(finished):
    result = TrainingResult(finished)
    assert (result.images, result.metrics["balanced_accuracy"]) == pytest.approx(
        accuracy(finished / "predictions_validation.csv")
    )
    assert (result.epochs, result.kept_epoch, result.kept_because) == (2, 2, "the last one, whatever its validation")
    records = json.loads((finished / "datalist.json").read_text())["validation"]
    assert result.patients == len({record["patient"] for record in records}) > 1
    assert len(result.predictions) == result.images == 9 and result.class_names == ["interstitial", "nodule", "normal"]
    assert result.history[-1]["nll"] == result.metrics["nll"]
    network, info = result.model()
    saved = torch.load(result.model_file, weights_only=True)
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())
    words = " ".join(last_words(result).split())
    fitted = info["calibration"]
    assert f"temperature {fitted['temperature']:.3f} from 9 images of {fitted['patients']} patients; so few" in words
    assert words.endswith(f"Next: dual-skd evaluate {finished}")


def test_an_evaluation(finished):
    result = EvaluationResult(finished)
    answered = result.calibrated
    assert answered is not None and result.data == "the run's own test images"
    assert (result.images, answered["balanced_accuracy"]) == pytest.approx(accuracy(finished / "predictions_test.csv"))
    assert result.report is None and result.intervals == {}  # evaluated without one
    assert result.temperature == TrainingResult(finished).model()[1]["calibration"]["temperature"]


def test_answers_and_what_has_none(finished):
    result = InferenceResult(finished / "predictions.csv")
    with (finished / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert sum(result.answers.values()) == len(table) - 1 == 41 and sum(result.problems.values()) == 1
    (problem,) = result.problems
    words = last_words(result)
    assert "  images    42, 41 answered, 1 not\n" in words and str(finished.parent / "images") not in words
    assert f"not used 1: {problem}" in " ".join(words.split())


def test_the_report_adds_intervals(finished, run, capsys, caplog):
    caplog.set_level(logging.INFO)
    run("evaluate.json", output_dir=str(finished), report=True, split="val")
    result = EvaluationResult(finished, "val")
    analysis = json.loads((finished / "metrics.json").read_text())["val"]["analysis"]
    one = analysis["metrics"]["overall"]["balanced_accuracy"]
    assert result.intervals["balanced_accuracy"] == (one["low"], one["high"])
    assert result.report == finished / "report_val" / "report.html" and result.report.is_file()
    said = capsys.readouterr().out
    assert said.endswith(f"\n{last_words(result)}\n") and f"interval {one['low']:.3f} to {one['high']:.3f}" in said


def test_the_example_of_the_user_guide_runs(finished, monkeypatch, capsys):
    examples = re.findall(r"```py\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (example,) = (one for one in examples if "TrainingResult" in one)
    monkeypatch.chdir(finished.parent)
    exec(compile(example, str(GUIDE), "exec"), {})
    assert capsys.readouterr().out.startswith("Trained: output/models/model.pt\n")
