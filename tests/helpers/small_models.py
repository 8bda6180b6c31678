# SPDX-License-Identifier: Apache-2.0
"""An untrained model of a few channels, saved as a run saves its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dual_skd.networks.build import build_network
from dual_skd.runs.model_file import save_model

OPTIONS = {"name": "monai_resnet10", "num_classes": 2, "in_channels": 1, "block_inplanes": [4, 4, 4, 4]}
NAMES = ["ill", "well"]


@pytest.fixture(scope="session")
def make_model(tmp_path_factory):
    """Saves an untrained model of a few channels, whose answers depend on the image."""

    def make(seed: int = 0, directory: Path | None = None, temperature: float = 1.0, **preprocessing) -> Path:
        dims = preprocessing.setdefault("spatial_dims", 2)
        settings = {"image_size": 16, "window": "percentile", "spacing": None, "frame": None} | preprocessing
        torch.manual_seed(seed)
        architecture = OPTIONS | {"spatial_dims": dims}
        network = build_network(**architecture)
        torch.nn.init.normal_(network.fc.weight, std=3)
        directory = directory or tmp_path_factory.mktemp("model")
        return save_model(
            directory, network, architecture=architecture, class_names=NAMES, preprocessing=settings,
            calibration={"temperature": temperature, "images": 0, "nll_before": 1.0, "nll_after": 1.0},
        )  # fmt: skip

    return make
