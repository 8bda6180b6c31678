# SPDX-License-Identifier: Apache-2.0
"""A plan of tiny networks, and a folder with its first tier done."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_benchmark import LARGE, SMALL, InProcess

from dual_skd.data import write_demo
from dual_skd.networks.build import build_network
from scripts.benchmark import run
from scripts.benchmark.processes import CellFailed


@pytest.fixture(scope="session")
def plan(tmp_path_factory) -> Path:
    """A plan of tiny networks and its data, in the folder of the plan."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_demo(folder / "demo", counts={"train": 24, "val": 9, "test": 9})
    torch.manual_seed(1)
    torch.save(build_network("resnet18", num_classes=5, in_channels=3, **LARGE).state_dict(), folder / "large.pt")
    tiny = {"image_size": 32, "batch_size": 8, "num_workers": 0, "cache": "memory"}
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


@pytest.fixture(scope="session")
def start(plan):
    """Runs the program on a folder and returns which cells were trained, in order."""

    def go(folder: Path, *options: str, plan: Path = plan) -> list[str]:
        execute = InProcess(CellFailed)
        arguments = ["--data_root", plan.parent, "--results", folder / "results", "--work", folder / "work"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "excepthook", sys.excepthook)
            patch.setattr("signal.signal", lambda *_: None)
            run.main([*map(str, arguments), "--plan", str(plan), "--jobs", "1", *options], execute)
        return execute.trained

    return go


@pytest.fixture(scope="session")
def done(start, tmp_path_factory) -> Path:
    """A folder in which the first tier was run."""
    folder = tmp_path_factory.mktemp("done")
    start(folder, "--only", "1.0")
    return folder
