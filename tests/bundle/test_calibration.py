# SPDX-License-Identifier: Apache-2.0
"""From the validation images of a training to the calibrated probabilities of an evaluation and an inference."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch.nn import functional

from dual_skd.metrics import fit_temperature, predictive_entropy, read_predictions
from dual_skd.runs.model_file import load_model

COLUMNS = ["uncertainty", "disagreement", "prediction_set"]


@pytest.fixture
def finished(trained, tmp_path) -> Path:
    """A copy of the finished run, to write into."""
    return shutil.copytree(trained, tmp_path / "run")


def set_temperature(directory: Path, temperature: float) -> None:
    """Gives the student's file another temperature, one that makes a difference."""
    content = torch.load(directory / "models" / "model.pt", weights_only=True)
    content._metadata[""]["calibration"]["temperature"] = temperature
    torch.save(content, directory / "models" / "model.pt")


def entry(directory: Path, name: str = "test") -> dict:
    return json.loads((directory / "metrics.json").read_text())[name]


def test_the_best_students_predictions_and_its_temperature_are_kept(trained):
    table = read_predictions(trained / "predictions_validation.csv")
    listed = json.loads((trained / "datalist.json").read_text())["validation"]
    assert table.images == [record["image"] for record in listed]
    assert table.labels.tolist() == [record["label"] for record in listed] and set(table.columns) == {"predicted"}
    logits, labels = torch.from_numpy(table.probabilities).log(), torch.from_numpy(table.labels)
    best = entry(trained, "best")["student"]
    assert functional.nll_loss(logits, labels).item() == pytest.approx(best["nll"], abs=1e-4)
    info = load_model(trained)[1]
    patients = [record["patient"] for record in listed]
    wanted = fit_temperature(logits, labels, sharpen=False, patients=patients)
    assert all(patients) and wanted.patients == len(set(patients))
    assert info["calibration"] == pytest.approx(wanted._asdict(), rel=1e-3)
    assert info["calibration"]["nll_before"] == pytest.approx(best["nll"]) and info["calibration"]["images"] == 9
    with safe_open(trained / "models" / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["calibration"]) == info["calibration"]
    auxiliary = load_model(trained / "models" / "auxiliary.pt")[1]["calibration"]
    assert auxiliary["nll_before"] == pytest.approx(entry(trained, "best")["auxiliary"]["nll"])


def test_evaluation_calibrates_probabilities_and_reports_both(finished, run):
    set_temperature(finished, 2.5)
    run("evaluate.json", output_dir=str(finished), calibrate=False)
    plain, plain_entry = read_predictions(finished / "predictions_test.csv"), entry(finished)
    run("evaluate.json", output_dir=str(finished))
    calibrated, found = read_predictions(finished / "predictions_test.csv"), entry(finished)
    for who in ("student", "auxiliary", "mean"):
        assert found[who] == plain_entry[who]  # these are of the networks as they are
    logits, labels = torch.from_numpy(plain.probabilities).log() / 2.5, torch.from_numpy(plain.labels)
    assert calibrated.probabilities == pytest.approx(logits.softmax(1).numpy(), abs=2e-6)
    assert "calibrated" not in plain_entry
    assert found["calibrated"]["nll"] == pytest.approx(functional.cross_entropy(logits, labels).item(), abs=1e-5)
    assert found["calibrated"]["accuracy"] == found["student"]["accuracy"]
    with (finished / "predictions_test.csv").open() as file:
        header = next(csv.reader(file))
    assert header == ["image", "label", "predicted", *(f"p_{name}" for name in calibrated.class_names), *COLUMNS]
    entropy = predictive_entropy(calibrated.probabilities)
    assert [float(value) for value in calibrated.columns["uncertainty"]] == pytest.approx(entropy, abs=1e-5)


def test_sets_disagreement_and_the_worth_of_abstaining_are_in_table_and_metrics(finished, run):
    run("evaluate.json", output_dir=str(finished), alpha=0.2)
    table, found = read_predictions(finished / "predictions_test.csv"), entry(finished)
    sets = [set(names.split("|")) for names in table.columns["prediction_set"]]
    assert all(predicted in names for predicted, names in zip(table.columns["predicted"], sets, strict=True))
    hits = [table.class_names[label] in names for label, names in zip(table.labels, sets, strict=True)]
    rule = found["prediction_sets"]
    assert rule["method"] == "lac" and rule["alpha"] == 0.2 and rule["validation_images"] == 9
    assert rule["coverage"] == pytest.approx(np.mean(hits)) and rule["mean_size"] == np.mean([len(s) for s in sets])
    assert all(0 <= float(value) <= 1 for value in table.columns["disagreement"])
    assert 0 <= found["selective"]["aurc"] <= 1 and 0 <= found["selective"]["aurc_disagreement"] <= 1
    # the auxiliary has a temperature of its own, and validation predictions aren't its
    run("evaluate.json", output_dir=str(finished), checkpoint=str(finished / "models" / "auxiliary.pt"),
        report_as="auxiliary_alone")  # fmt: skip
    alone = read_predictions(finished / "predictions_auxiliary_alone.csv")
    assert "prediction_set" not in alone.columns and "prediction_sets" not in entry(finished, "auxiliary_alone")
    beside = read_predictions(finished / "predictions_test_auxiliary.csv")
    assert alone.probabilities == pytest.approx(beside.probabilities, abs=2e-6)
    assert set(beside.columns) == {"predicted"}


def test_inference_applies_the_temperature_unless_told_not_to(finished, run, demo):
    set_temperature(finished, 2.5)
    found = {}
    for calibrate in (False, True):
        run("inference.json", output_dir=str(finished), dataset_dir=str(demo / "images"), calibrate=calibrate)
        with (finished / "predictions.csv").open() as file:
            rows = list(csv.DictReader(file))
        found[calibrate] = torch.tensor([[float(row[name]) for name in row if name.startswith("p_")] for row in rows])
    assert found[True].numpy() == pytest.approx((found[False].log() / 2.5).softmax(1).numpy(), abs=3e-6)
    assert not torch.allclose(found[True], found[False], atol=0.01)


def test_a_model_without_a_temperature_is_used_as_it_is(finished, run, demo):
    content = torch.load(finished / "models" / "model.pt", weights_only=True)
    del content._metadata[""]["calibration"]
    torch.save(content, finished / "models" / "model.pt")
    tables = []
    for calibrate in (False, True):
        run("evaluate.json", output_dir=str(finished), calibrate=calibrate)
        tables.append(read_predictions(finished / "predictions_test.csv"))
    assert (tables[0].probabilities == tables[1].probabilities).all()
    assert "calibrated" not in entry(finished) and "prediction_set" not in tables[1].columns
    run("inference.json", output_dir=str(finished), dataset_dir=str(demo / "images"))


def test_several_labels_share_one_temperature_and_have_no_sets(tmp_path, run, tiny, demo):
    path = demo / "several.csv"
    with (demo / "datalist.csv").open() as file:
        lines = [f"{row['image']},{row['label']}{'|odd' * (place % 2)},{row['split']},{row['patient']}"
                 for place, row in enumerate(csv.DictReader(file))]  # fmt: skip
    path.write_text("\n".join(["image,label,split,patient", *lines]))
    run("train.json", **tiny | {"dataset_dir": str(path), "output_dir": str(tmp_path)})
    table = read_predictions(tmp_path / "predictions_validation.csv", multi_label=True)
    logits = torch.from_numpy(table.probabilities).logit()
    listed = json.loads((tmp_path / "datalist.json").read_text())["validation"]
    patients = [record["patient"] for record in listed]
    wanted = fit_temperature(logits, torch.from_numpy(table.labels), multi_label=True, sharpen=False, patients=patients)
    assert load_model(tmp_path)[1]["calibration"] == pytest.approx(wanted._asdict(), rel=1e-3)
    run("evaluate.json", output_dir=str(tmp_path))
    tested = read_predictions(tmp_path / "predictions_test.csv", multi_label=True)
    assert {"uncertainty", "disagreement"} <= set(tested.columns) and "prediction_set" not in tested.columns
    assert entry(tmp_path)["calibrated"]["accuracy"] == entry(tmp_path)["student"]["accuracy"]
