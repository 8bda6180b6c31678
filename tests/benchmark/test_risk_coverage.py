# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from scripts.benchmark import risk_coverage


def test_the_risks_that_are_drawn_are_right_and_those_of_a_patient_are_alike():
    risk, ill = risk_coverage.drawn(np.random.default_rng(0), 4000, 5, 2000)
    assert ill.mean() == pytest.approx(risk.mean(), abs=0.01)
    high = risk > 0.7
    assert ill[high].mean() == pytest.approx(risk[high].mean(), abs=0.02)
    first, second = (ill - risk).reshape(4000, 5)[:, :2].T
    assert np.corrcoef(first, second)[0, 1] > 0.2


def test_intervals_hold_the_truth_about_as_often_as_they_say_and_small_sets_have_none():
    *_, row, few = risk_coverage.coverage(60, [(100, 2, 50), (20, 1, 2)])
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["100", "2", "50"] and cells[-1] == "60"
    assert all(float(cell) > 85 for cell in cells[3:6])
    assert [cell.strip() for cell in few.strip("|").split("|")][3:] == ["", "", "", "0"]
