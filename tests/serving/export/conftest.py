# SPDX-License-Identifier: Apache-2.0
"""A finished run of a tiny network on tiny pictures, and a working directory for the converters."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_run import picture, save_tiny

from dual_skd.runs.model_file import load_model
from dual_skd.serving.export.model_spec import model_spec


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """A run of 8 training and 12 validation pictures."""
    folder = tmp_path_factory.mktemp("run")
    save_tiny(folder, calibration={"temperature": 1.5, "images": 12, "nll_before": 1.0, "nll_after": 0.9})
    content = {"labels": {"0": "normal", "1": "nodule"}, "spatial_dims": 2, "test": []}
    for section, count in (("training", 8), ("validation", 12)):
        content[section] = [
            {"image": picture(folder / "pictures" / f"{section}{i}.png", i), "label": i % 2} for i in range(count)
        ]
    (folder / "datalist.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def work_dir(tmp_path):
    """Makes a working directory for a model: what it is calibrated on, and its specification."""

    def make(model):
        _, info = load_model(model)
        work = tmp_path / "work"
        work.mkdir()
        shape = (6, 1, *info["preprocessing"]["image_size"])
        np.save(work / "calibration.npy", np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))
        (work / "spec.json").write_text(json.dumps(model_spec(info)))
        return work

    return make
