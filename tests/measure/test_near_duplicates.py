# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from scripts.measure.near_duplicates import main, rate


@pytest.fixture
def textures(tmp_path):
    """Twelve different pictures of two classes and six patients."""
    for number in range(12):
        coarse = np.random.default_rng(number).integers(0, 256, (12, 12), dtype=np.uint8)
        folder = tmp_path / "data" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(coarse).resize((160, 160), Image.Resampling.BICUBIC)
        picture.save(folder / f"patient{number // 2}_{number}.png")
    return tmp_path / "data"


def test_planted_copies_are_found_and_other_patients_are_none(textures, capsys):
    main([str(textures), "--number", "8", "--patient_pattern", "(patient[0-9]+)_"])
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 12
    assert found["found"]["jpeg"]["pairs"] == 4
    assert found["found"]["jpeg"]["share"] == found["found"]["resize"]["share"] == 1.0
    other = found["different_patients"]
    assert other["called_near_duplicates"] == 0 and other["images"] == 6 and 12 <= other["pairs"] <= 15


def test_a_rate_counts_the_pairs_that_were_not_measured():
    found = rate([0.9, 0.95, 0.99], 0.95)
    assert (found["pairs"], found["called_near_duplicates"], found["share"]) == (3, 2, 0.666667)
    assert found["interval"] == pytest.approx([0.2077, 0.9385], abs=1e-4)
    assert rate([0.99], 0.95, pairs=100)["share"] == 0.01
