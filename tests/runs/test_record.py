# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.runs.record import RunRecord, describe_architecture

ARCHITECTURE = {"name": "resnet18", "num_classes": 2, "in_channels": 1, "spatial_dims": 2,
                "layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}  # fmt: skip


def test_a_large_network_without_a_form_for_these_images_stops_no_run(tmp_path):
    flat = {"name": "vit_tiny_patch16_224", "num_classes": 2, "in_channels": 1, "spatial_dims": 3}
    student = ARCHITECTURE | {"spatial_dims": 3}
    record = RunRecord(tmp_path, input_shape=(1, 32, 32, 32), architectures={"student": student, "large": flat}).record
    assert record["networks"]["large"] == {"architecture": flat} and record["networks"]["student"]["macs"] > 0
    with pytest.raises(InputError, match="no 3D form"):
        RunRecord(tmp_path, input_shape=(1, 32, 32, 32), architectures={"student": flat})


def test_images_of_a_size_that_a_network_cannot_take(tmp_path):
    fixed = {"name": "vit_tiny_patch16_224", "num_classes": 2, "in_channels": 1, "img_size": 96, "depth": 1}
    both = {"student": ARCHITECTURE, "large": fixed}
    networks = RunRecord(tmp_path, input_shape=(1, 64, 64), architectures=both).record["networks"]
    assert networks["large"] == {"architecture": fixed} and networks["student"]["macs"] > 0
    deep = {"name": "densenet121", "num_classes": 2, "in_channels": 1, "spatial_dims": 2}
    with pytest.raises(
        InputError, match="densenet121, the student, can't take images of 16 x 16 .*; give another image_"
    ):
        RunRecord(tmp_path, input_shape=(1, 16, 16), architectures={"student": deep})


def test_run_record_holds_what_made_the_model(tmp_path):
    record = RunRecord(
        tmp_path, seed=7, config={"epochs": 2, "output_dir": Path("out")}, data_hash="abc", input_shape=(1, 32, 32),
        architectures={"student": ARCHITECTURE}, extra={"selection": {"student": {"rule": "uniform"}}},
    )  # fmt: skip
    trainer = Engine(lambda engine, batch: None)
    trainer.state.device = torch.device("cpu")
    seen = []
    record.attach(trainer)
    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: seen.append(json.loads((tmp_path / "run.json").read_text()))
    )
    trainer.run([0], max_epochs=2)
    assert seen[0]["finished"] is None and len(seen[0]["timings"]["epochs"]) == 1
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["seed"] == 7 and written["data_hash"] == "abc" and written["config"]["output_dir"] == "out"
    assert written["finished"] >= written["started"]
    assert [entry["epoch"] for entry in written["timings"]["epochs"]] == [1, 2]
    assert written["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert written["selection"]["student"]["rule"] == "uniform"
    student = written["networks"]["student"]
    assert student["parameters"] == sum(p.numel() for p in build_network(**ARCHITECTURE).parameters())
    assert student["macs"] == describe_architecture(ARCHITECTURE, (1, 32, 32))["macs"] > 0
    assert written["device"].startswith("cpu")
