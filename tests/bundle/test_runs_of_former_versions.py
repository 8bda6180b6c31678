# SPDX-License-Identifier: Apache-2.0
"""A run that version 0.1.0 began, before the package had rooms: today's code resumes, measures and asks it.

``tests/assets/run_0.1.0`` was stopped by SIGTERM after 4 of 6 iterations. Its files name the folder ``/data``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dual_skd import EvaluationResult, TrainingResult, load_model, predict
from dual_skd.data import load_split, write_demo
from dual_skd.metrics import read_predictions

FORMER = Path(__file__).resolve().parents[1] / "assets" / "run_0.1.0"
SETTINGS = {
    "image_size": 32, "epochs": 2, "batch_size": 8, "selection_student": "scratch", "selection_auxiliary": "scratch",
    "large": "resnet18", "large_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
    "small": "resnet18", "small_options": {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]},
}  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    return write_demo(tmp_path_factory.mktemp("former") / "demo", counts={"train": 24, "val": 9, "test": 9})


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, demo, run) -> Path:
    folder = tmp_path_factory.mktemp("former") / "run"
    shutil.copytree(FORMER, folder)
    run("train.json", **SETTINGS, dataset_dir=str(demo), output_dir=str(folder))
    return folder


def test_it_goes_on_to_the_weights_of_a_run_of_today(tmp_path, resumed, demo, run):
    run("train.json", **SETTINGS, dataset_dir=str(demo), output_dir=str(tmp_path / "run"))
    former, today = (torch.load(folder / "last.pt", weights_only=True) for folder in (resumed, tmp_path / "run"))
    assert former.keys() == today.keys() and former["trainer"] == today["trainer"]
    for name in ("network", "auxiliary"):
        assert former[name].keys() == today[name].keys()
        # equal to the bit on the computer that made the assets; other processors round otherwise, and Adam's first
        # steps turn that into a few small weights that differ
        old, new = (torch.cat([one.double().flatten() for one in each[name].values()]) for each in (former, today))
        assert torch.linalg.vector_norm(old - new) < 0.002 * torch.linalg.vector_norm(new)


def test_its_first_epoch_stays_in_the_record(resumed):
    former, today = (json.loads((folder / "metrics.json").read_text()) for folder in (FORMER, resumed))
    assert today["epochs"][0] == former["epochs"][0] and [epoch["epoch"] for epoch in today["epochs"]] == [1, 2]
    assert TrainingResult(resumed).finished


def test_it_is_measured_and_reported(resumed, demo, run):
    run("evaluate.json", output_dir=str(resumed), dataset_dir=str(demo), report=True)
    assert len(EvaluationResult(resumed).predictions) == 9
    assert (resumed / "report" / "report.html").stat().st_size > 50_000


def test_its_model_and_tables_are_read_as_they_were_written(tmp_path, demo):
    network, info = load_model(FORMER / "models" / "model.pt")
    assert info["class_names"] == ["interstitial", "nodule", "normal"] and info["preprocessing"]["image_size"] == 32
    answers = predict(sorted(demo.rglob("*.dcm"))[:2], model=FORMER)
    assert all(abs(sum(answer.probabilities.values()) - 1) < 1e-6 for answer in answers)
    assert len(read_predictions(FORMER / "predictions_validation.csv").images) == 9
    datalist = (FORMER / "datalist.json").read_text(encoding="utf-8").replace("/data/demo", str(demo))
    (tmp_path / "datalist.json").write_text(datalist, encoding="utf-8")
    assert not network.training and len(load_split(tmp_path / "datalist.json").train) == 24
