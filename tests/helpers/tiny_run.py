# SPDX-License-Identifier: Apache-2.0
"""A tiny network's model file and tiny pictures."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from dual_skd.networks.build import build_network
from dual_skd.runs.model_file import save_model

NAMES = ["normal", "nodule"]
SIZE = 32
ARCHITECTURE = {
    "name": "tf_efficientnet_lite0", "num_classes": 2, "in_channels": 1, "spatial_dims": 2, "depths": [1, 1],
}  # fmt: skip
PREPROCESSING = {"spatial_dims": 2, "image_size": [SIZE, SIZE], "window": "percentile", "spacing": None, "frame": None}


def save_tiny(folder, architecture=ARCHITECTURE, *, seed=0, preprocessing=PREPROCESSING, **more):
    """Writes ``models/model.pt`` of a network whose answers differ between images."""
    torch.manual_seed(seed)
    network = build_network(**architecture)
    shape = (16, 1, *preprocessing["image_size"])
    with torch.no_grad():
        for _ in range(20):  # statistics of its own, so that an exporter that takes others is found
            network.train()(torch.randn(shape) + torch.rand(16, *[1] * (len(shape) - 1)))
        for parameter in network.get_classifier().parameters() if hasattr(network, "get_classifier") else ():
            parameter.normal_()
    given = {"class_names": NAMES, "preprocessing": preprocessing} | more
    save_model(folder / "models", network, architecture=architecture, **given)
    return folder / "models" / "model.pt"


def picture(path, seed, size=(50, 41), mode="L"):
    """Writes a PNG with a bright disc, larger and nearer to the middle the larger the seed."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    disc = (rows - 10 - seed % 7) ** 2 + (columns - 12 - seed % 11) ** 2 < (4 + seed) ** 2
    noise = np.random.default_rng(seed).integers(0, 90, size[::-1])
    grey = np.where(disc, 200, 0) * 0.5 + noise
    values = grey if mode == "L" else np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8), mode).save(path)
    return str(path)
