# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from PIL import Image

from scripts.benchmark.probes import spectra


@pytest.fixture
def fine_and_coarse(tmp_path):
    """Class folders whose classes differ in fine structure, in training images only."""
    drawn = np.random.default_rng(0)
    for side, names in {"train": ("coarse", "fine"), "test": ("fine", "fine")}.items():
        for kind, label in zip(names, "ab", strict=True):
            folder = tmp_path / side / label
            folder.mkdir(parents=True)
            for number in range(12):
                step = 1 if kind == "fine" else 4
                blocks = drawn.integers(0, 256, (32 // step, 32 // step)).astype(np.uint8)
                Image.fromarray(blocks.repeat(step, 0).repeat(step, 1)).save(folder / f"{number}.png")
    return tmp_path


def test_a_shortcut_of_the_training_images_is_told_and_seen_not_to_carry_over(fine_and_coarse, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spectra.py", str(fine_and_coarse), "--image_size", "32"])
    spectra.main()
    printed = capsys.readouterr().out
    assert "20 training and 24 test images" in printed
    cells = re.findall(r"\| ([\d.]+) \| ([\d.]+) -> ([\d.]+) \|", printed)
    assert len(cells) == 9
    train, test = np.array(cells[-1][1:], dtype=float)  # the finest frequency
    assert train > 0.95 and abs(test - 0.5) < 0.25
