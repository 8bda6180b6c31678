# SPDX-License-Identifier: Apache-2.0
"""The weights that come with the bundle, as a fresh clone has them."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dual_skd import predict
from dual_skd.errors import InputError, input_error_behind
from dual_skd.metrics import classification_metrics
from dual_skd.runs.model_file import bundle_root, load_model
from dual_skd.runs.places import shipped_models

MODELS = Path(bundle_root()) / "models"
TOLERANCE = 0.01  # other machines sum in another order; one of the 120 images is 0.008 of the accuracy


def test_the_shipped_model_is_the_one_that_its_record_describes():
    content, record = (MODELS / "model.pt").read_bytes(), json.loads((MODELS / "model.json").read_text())
    assert hashlib.sha256(content).hexdigest() == record["sha256"] and len(content) == record["bytes"]
    assert sum(path.stat().st_size for path in MODELS.iterdir()) < 5_000_000
    network, info = load_model(MODELS)
    assert info["class_names"] == ["interstitial", "nodule", "normal"] and info["calibration"]["temperature"] >= 1
    assert 0.9e6 < sum(p.numel() for p in network.parameters()) < 0.92e6


TASKS = {
    "chest_xray_pneumonia": ["normal", "pneumonia"],
    "brain_mri_tumor": ["glioma", "meningioma", "notumor", "pituitary"],
}


def test_models_of_real_tasks_are_loaded_by_name(tmp_path, monkeypatch):
    assert set(shipped_models()) == set(TASKS)
    monkeypatch.chdir(tmp_path)
    for name, classes in TASKS.items():
        network, info = load_model(name)
        assert info["class_names"] == classes and info["preprocessing"]["image_size"] == 224
        assert 0.9e6 < sum(p.numel() for p in network.parameters()) < 0.92e6
        answer = predict(np.random.default_rng(0).normal(size=(256, 256)), model=name)
        assert sum(answer.probabilities.values()) == pytest.approx(1)
    with pytest.raises(InputError, match="did you mean chest_xray_pneumonia"):
        load_model("chest_xray_pneumonai")
    (tmp_path / "chest_xray_pneumonia").mkdir()  # a folder of one's own comes first
    with pytest.raises(InputError, match="chest_xray_pneumonia"):
        load_model("chest_xray_pneumonia")


@pytest.mark.parametrize("name", TASKS)
def test_a_model_of_a_real_task_says_what_it_is(name):
    path = shipped_models()[name]
    record = json.loads(path.with_name("model.json").read_text())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record["sha256"]
    assert path.stat().st_size == record["bytes"] < 5_000_000
    assert record["data_licence"] in ("CC BY 4.0", "CC0") and record["limits"] and record["commands"]
    assert 0.9 < record["test"]["macro_auc"][0] <= 1 and record["test"]["images"] > 500
    card = path.with_name("README.md").read_text()
    value, low, high = (f"{one:.3f}" for one in record["test"]["macro_auc"])
    assert f"{value} ({low} to {high})" in card and "for its authors to write here" not in card.split("##")[1]
    assert not re.search(r"(?<![\w.])/\w+/", card + json.dumps(record))  # no path of the machine that made it


def test_inference_without_training_gives_the_recorded_metrics_and_says_whose_model_it_is(tmp_path, run, caplog):
    with caplog.at_level(logging.WARNING):
        run("inference.json", output_dir=str(tmp_path))
    assert "the bundle's own is used" in caplog.text and "it knows no patients" in caplog.text
    with (tmp_path / "demo" / "datalist.csv").open() as file:
        labels = {str(tmp_path / "demo" / row["image"]): row["label"] for row in csv.DictReader(file)}
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = load_model(MODELS)[1]["class_names"]
    p = torch.tensor([[float(row[f"p_{name}"]) for name in names] for row in rows], dtype=torch.float64)
    found = classification_metrics(
        p.clamp(min=1e-30).log(), torch.tensor([names.index(labels[row["image"]]) for row in rows])
    )
    # the folder now holds no run, and its name is as good as mistyped
    shutil.copytree(tmp_path / "demo" / "images", tmp_path / "patients")
    (tmp_path / "predictions.csv").unlink()
    with pytest.raises(Exception) as caught:
        run("inference.json", output_dir=str(tmp_path), dataset_dir=str(tmp_path / "patients"))
    assert "it knows no patients" in str(input_error_behind(caught.value))
    assert not (tmp_path / "predictions.csv").exists()
    recorded = json.loads((MODELS / "model.json").read_text())["demo_test"]
    assert len(rows) == recorded.pop("images")
    assert found == pytest.approx(recorded, abs=TOLERANCE)
