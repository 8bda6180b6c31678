# SPDX-License-Identifier: Apache-2.0
"""Whole runs with images without labels: the command line, what is recorded, resuming to the bit, volumes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from dual_skd.cli.dispatch import main
from dual_skd.data import write_demo
from dual_skd.runs.checkpoint import Checkpoints
from dual_skd.runs.lock import released_afterwards


@pytest.fixture(scope="module")
def more(tmp_path_factory) -> Path:
    """Images of other patients, without a table."""
    path = write_demo(tmp_path_factory.mktemp("more") / "demo", seed=5, counts={"train": 12, "val": 0, "test": 0})
    folder = tmp_path_factory.mktemp("images")
    for file in sorted((path if path.is_dir() else path.parent).joinpath("images").iterdir()):
        os.link(file, folder / file.name)
    return folder


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "models" / "model.pt").read_bytes()).hexdigest()


def words_of(options: dict) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def test_the_command_trains_on_them_and_records_them(tmp_path, tiny, more, caplog):
    options = {name: value for name, value in tiny.items() if name != "dataset_dir"} | {"device": "cpu"}
    words = words_of(options | {"unlabelled": more, "num_workers": 0, "patient_pattern": "", "unlabelled_strength": 2})
    with caplog.at_level(logging.INFO, logger="dual_skd"), released_afterwards():
        assert main(["train", tiny["dataset_dir"], "-o", str(tmp_path / "run"), *words]) in (0, None)
    assert "without labels: 12 images" in caplog.text
    datalist = json.loads((tmp_path / "run" / "datalist.json").read_text())
    assert len(datalist["unlabelled"]) == 12 and len(datalist["training"]) == 24
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["unlabelled_images"] == 12 and record["config"]["unlabelled"] == str(more)
    with released_afterwards():
        assert main(["evaluate", str(tmp_path / "run"), "--no-report", "--device", "cpu"]) in (0, None)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]["images"] == 9


@pytest.mark.skipif(sys.platform != "linux", reason="sends this process signals")
def test_a_run_stopped_within_an_epoch_goes_on_to_the_bit(tmp_path, run, tiny, more, monkeypatch):
    options = tiny | {"unlabelled": str(more), "patient_pattern": "", "epochs": 2, "unlabelled_ratio": 2}
    options |= {"cache": "none"}
    run("train.json", **options, output_dir=str(tmp_path / "whole"))
    attach = Checkpoints._attach

    def attach_and_stop(self, trainer):
        attach(self, trainer)
        trainer.add_event_handler(Events.ITERATION_STARTED(once=5), lambda: os.kill(os.getpid(), signal.SIGTERM))

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Checkpoints, "_attach", attach_and_stop)
        run("train.json", **options, output_dir=str(tmp_path / "parts"))
    run("train.json", **options, output_dir=str(tmp_path / "parts"), num_workers=1)
    assert digest(tmp_path / "whole") == digest(tmp_path / "parts")
    states = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts")]
    assert torch.equal(states[0]["random"]["cpu"], states[1]["random"]["cpu"])


def test_options_of_images_without_labels_change_nothing_where_there_are_none(tmp_path, run, tiny):
    for name, further in (("plain", {}), ("other", {"unlabelled_weight": 5.0, "unlabelled_ratio": 3})):
        run(
            "train.json", **tiny | {"method": "same_rule", "skd_weight": 0.0} | further, output_dir=str(tmp_path / name)
        )
    assert digest(tmp_path / "plain") == digest(tmp_path / "other")
    assert json.loads((tmp_path / "plain" / "run.json").read_text())["unlabelled_images"] == 0


def test_volumes_and_the_rest_of_the_training_images(tmp_path, run):
    demo = write_demo(tmp_path / "demo", spatial_dims=3, counts={"train": 18, "val": 6, "test": 6})
    narrow = {"block_inplanes": [2, 2, 2, 2]}
    run(
        "train.json", dataset_dir=str(demo), output_dir=str(tmp_path / "run"), spatial_dims=3, image_size=16, epochs=1,
        batch_size=3, large="monai_resnet10", large_options=narrow, small="monai_resnet10", small_options=narrow,
        selection_student="scratch", selection_auxiliary="scratch", train_fraction=0.5, unlabelled="rest",
        unlabelled_loss="soft",
    )  # fmt: skip
    datalist = json.loads((tmp_path / "run" / "datalist.json").read_text())
    assert len(datalist["unlabelled"]) + len(datalist["training"]) == 18
    events = [path for path in (tmp_path / "run" / "tensorboard").rglob("*") if path.is_file()]
    assert any(b"train_loss_unlabelled" in path.read_bytes() for path in events)
