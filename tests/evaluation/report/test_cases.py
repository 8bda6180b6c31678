# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dual_skd.evaluation.report.cases import explained_cases
from dual_skd.evaluation.run_files import RunFiles
from dual_skd.metrics.predictions import PredictionTable

PREPROCESSING = {"spatial_dims": 2, "image_size": 32, "window": "percentile"}


class Small(nn.Module):
    """A network with feature maps."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(1, 4, 3, padding=1)
        self.classifier = nn.Linear(4, 2)

    def forward(self, x):
        return self.classifier(self.features(x).relu().mean((2, 3)))


@pytest.fixture
def files(tmp_path):
    images = []
    for place in range(4):
        pixels = np.random.default_rng(place).integers(0, 255, (40, 40), dtype=np.uint8)
        images.append(str(tmp_path / f"name{place}.png"))
        Image.fromarray(pixels).save(images[-1])
    p = np.array([0.9, 0.2, 0.55, 0.7])
    return RunFiles("test", PredictionTable(images, np.array([0, 1, 1, 0]), np.stack([p, 1 - p], 1), ["x", "y"], {}))


def test_cases_are_chosen_by_confidence_and_shown_with_a_map(files):
    torch.manual_seed(0)
    cases, reason = explained_cases(files, Small().eval(), PREPROCESSING, count=2)
    assert reason == ""
    assert [(case.kind, case.row) for case in cases] == [
        ("confident_right", 1), ("confident_right", 2), ("confident_wrong", 3),
        ("least_certain", 3), ("least_certain", 4),
    ]  # fmt: skip
    wrong = cases[2]
    assert (wrong.true, wrong.predicted, wrong.target, wrong.probability) == ("y", "x", "x", 0.55)
    name, plain, mapped = wrong.pictures[0]
    with Image.open(io.BytesIO(plain)) as image:
        assert image.size == (32, 32)
    assert name == "image" and plain != mapped


def test_gone_and_unreadable_files_are_a_sentence_without_their_names(files):
    gone, broken, *_ = files.table.images
    with open(broken, "wb") as file:
        file.write(b"no image")
    (files_left := files.table.images)[0] = gone + ".gone"
    cases, reason = explained_cases(files, Small().eval(), PREPROCESSING, count=1)
    assert [case.row for case in cases] == [3, 3]
    assert reason == "1 of 2 chosen images could not be explained: their files are gone."
    cases, reason = explained_cases(files, Small().eval(), PREPROCESSING, count=2)
    assert reason.startswith("2 of 4 chosen images") and "can't be read" in reason
    assert not any(image in reason for image in files_left)


def test_a_network_without_maps_is_a_sentence(files):
    network = nn.Sequential(nn.Flatten(), nn.Linear(1024, 2)).eval()
    cases, reason = explained_cases(files, network, PREPROCESSING)
    assert cases == [] and "no layer that a map could be made of" in reason


def test_several_labels_are_named_together(files):
    table = files.table._replace(labels=np.array([[1, 1], [0, 0], [0, 1], [1, 0]]), probabilities=np.full((4, 2), 0.8))
    several = RunFiles("test", table, multi_label=True)
    cases, _ = explained_cases(several, Small().eval(), PREPROCESSING, count=1)
    assert cases[0].true == "x|y" and cases[0].predicted == "x|y"
