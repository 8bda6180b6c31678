# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import Polynomial
from scipy import stats

from dual_skd.metrics.score_intervals import (
    area_score_interval,
    mover_interval,
    normal_quantile,
    wilson_interval,
)


def roots_of_newcombe(area, positives, negatives, effect=1.0):
    """The limits as roots of the polynomial that the equation becomes when its fractions are cleared."""
    x, z = Polynomial([0, 1]), stats.norm.ppf(0.975)
    two_less, one_more, star = 2 - x, 1 + x, (positives + negatives) / 2 - 1
    spread = two_less * one_more + star * ((1 - x) * one_more + x * two_less)
    equation = (area - x) ** 2 * two_less * one_more * positives * negatives - z**2 * effect * x * (1 - x) * spread
    real = sorted(root.real for root in equation.roots() if abs(root.imag) < 1e-9 and -1e-9 <= root.real <= 1 + 1e-9)
    return min(real), max(real)


@pytest.mark.parametrize(
    ("area", "positives", "negatives", "effect"),
    [
        (0.8, 20, 40, 1),
        (0.9988, 20, 40, 1),
        (0.31, 5, 395, 1),
        (0.86, 50, 50, 1.7),
        (0.5, 1, 3, 1),
        (0.97, 2, 2000, 3.2),
    ],
)
def test_the_interval_of_an_area_solves_newcombes_equation(area, positives, negatives, effect):
    found = area_score_interval(area, positives, negatives, design_effect=effect)
    assert found == pytest.approx(roots_of_newcombe(area, positives, negatives, effect), abs=1e-9)
    mirrored = area_score_interval(1 - area, positives, negatives, design_effect=effect)
    assert mirrored == pytest.approx((1 - found[1], 1 - found[0]))


def test_a_perfect_area_is_the_limit_of_nearly_perfect_ones():
    perfect, nearly = (area_score_interval(area, 20, 40) for area in (1, 1 - 1e-7))
    assert perfect[1] == 1 and nearly == pytest.approx(perfect, abs=1e-5)
    assert perfect[0] == pytest.approx(
        0.925, abs=5e-4
    )  # of another implementation: 0.925 and, with one inversion, 0.922
    assert area_score_interval(1 - 1 / 800, 20, 40)[0] == pytest.approx(0.922, abs=5e-4)
    assert area_score_interval(0, 20, 40) == pytest.approx((0, 1 - perfect[0]))


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilsons_interval_is_scipys_and_grows_with_every_success(level):
    for successes, count in ((0, 12), (5, 12), (19, 20), (20, 20)):
        wanted = stats.binomtest(successes, count).proportion_ci(level, method="wilson")
        assert wilson_interval(successes, count, level) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    lows = [wilson_interval(successes, 20, level)[0] for successes in range(21)]
    assert lows == sorted(lows)
    assert normal_quantile(level) == pytest.approx(stats.norm.ppf((1 + level) / 2))


@pytest.mark.parametrize(
    ("one", "other", "wanted"),  # Newcombe 1998, Stat Med 17:873, table II, method 10
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
        ((10, 10), (0, 10), (0.6075, 1.0)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
    ],
)
def test_the_difference_of_two_shares_is_newcombes(one, other, wanted):
    values = [successes / count for successes, count in (one, other)]
    lows, highs = zip(wilson_interval(*one), wilson_interval(*other), strict=True)
    found = mover_interval(values, lows, highs, [1, -1])
    assert found == pytest.approx(wanted, abs=6e-5)


def test_the_sum_of_normal_parts_has_the_normal_interval_of_their_correlation():
    errors, related = np.array([0.3, 0.4]), np.array([[1, -0.25], [-0.25, 1]])
    half = 1.96 * np.sqrt(4 * 0.09 + 0.16 + 2 * -2 * -0.25 * 0.12)
    found = mover_interval([1, 2], [1, 2] - 1.96 * errors, [1, 2] + 1.96 * errors, [2, -1], related)
    assert found == pytest.approx((-half, half))
