# SPDX-License-Identifier: Apache-2.0
"""Whole runs of the bundle's configs in this process, on a few generated images and networks of a few channels."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from dual_skd.data import write_demo
from dual_skd.networks.build import build_network
from dual_skd.runs.lock import released_afterwards
from dual_skd.runs.model_file import bundle_root

CONFIGS = Path(bundle_root()) / "configs"
TYPES = {"train.json": "train", "evaluate.json": "eval", "inference.json": "inference"}
LARGE = {"layers": [1, 1, 1, 1], "channels": [16, 16, 16, 16]}
SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
Run = Callable[..., ConfigWorkflow]


@pytest.fixture(autouse=True)
def same_excepthook(monkeypatch):
    """The configs install a hook for uncaught errors; a test leaves the process as it was."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture(scope="session")
def workflow() -> Run:
    """Builds the workflow of one config file, or of several to be merged."""

    def build(*names: str | Path, **overrides: Any) -> ConfigWorkflow:
        files = [str(CONFIGS / name) for name in names]  # an absolute path stays as it is
        kind = TYPES[Path(files[0]).name]
        settings = {"device": torch.device("cpu"), "num_workers": 0} | overrides
        if kind == "eval":
            settings.setdefault("report", False)  # takes longer than all the rest; test_report.py asks for it
        return ConfigWorkflow(files, logging_file=False, workflow_type=kind, **settings)

    return build


@pytest.fixture(scope="session")
def run(workflow: Run) -> Run:
    """The same, run to its end."""

    def go(*names: str | Path, **overrides: Any) -> ConfigWorkflow:
        built = workflow(*names, **overrides)
        with released_afterwards():  # as at the end of the process of `python -m monai.bundle run`
            built.initialize()
            built.run()
            built.finalize()
        return built

    return go


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Path:
    return write_demo(tmp_path_factory.mktemp("data") / "demo", counts={"train": 24, "val": 9, "test": 9})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, demo) -> dict[str, Any]:
    """Overrides of train.json for a run of a second: networks of 8 channels, selected from one of 16."""
    path = tmp_path_factory.mktemp("weights") / "large.pt"
    torch.manual_seed(1)
    torch.save(build_network("resnet18", num_classes=5, in_channels=3, **LARGE).state_dict(), path)
    return {
        "dataset_dir": str(demo), "image_size": 32, "epochs": 1, "batch_size": 8,
        "large": "resnet18", "large_options": LARGE, "pretrained": str(path),
        "small": "resnet18", "small_options": SMALL,
    }  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory, run, tiny) -> Path:
    """Output folder of a finished run of two epochs; tests that write into it take a copy."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    run("train.json", **tiny | {"epochs": 2}, output_dir=str(directory))
    return directory
