# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from scipy.optimize import brentq

from dual_skd.errors import InputError
from dual_skd.metrics import sample_size as module
from dual_skd.metrics.intervals import auc_interval
from dual_skd.metrics.sample_size import images_for_auc, images_for_share
from dual_skd.metrics.score_intervals import wilson_interval

Z = 1.959963984540054


def test_the_examples_are_true():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.97, 1.0])
@pytest.mark.parametrize("half_width", [0.02, 0.05, 0.2])
def test_so_many_images_have_the_interval_and_one_less_has_not(share, half_width):
    count = images_for_share(share, half_width)
    widths = [np.subtract(*wilson_interval(share * n, n)[::-1]) / 2 for n in (count, count - 1)]
    assert widths[0] <= half_width < widths[1]


def test_where_the_interval_is_nearly_normal_it_is_the_number_of_the_textbook():
    assert images_for_share(0.5, 0.01) == pytest.approx(Z**2 * 0.25 / 0.01**2, rel=0.001)  # 9604
    # the equation for the Wilson interval, solved for n by hand: a quadratic (Newcombe 2012, chapter 3)
    share, half = 0.9, 0.05
    b = 2 * Z**2 * half**2 - Z**2 * share * (1 - share)
    n = (-b + math.sqrt(b**2 - 4 * half**2 * (half**2 * Z**4 - Z**4 / 4))) / (2 * half**2)
    assert images_for_share(share, half) == math.ceil(n)


def newcombe(area: float, m: float, n: float) -> tuple[float, float]:
    """Method 5 of Newcombe 2006, as the paper writes it."""
    mean = (m + n) / 2

    def apart(true: float) -> float:
        variance = true * (1 - true) / (m * n) * (2 * mean - 1 - (3 * mean - 3) / ((2 - true) * (1 + true)))
        return abs(area - true) - Z * math.sqrt(variance)

    return brentq(apart, 1e-12, area - 1e-9), brentq(apart, area + 1e-9, 1 - 1e-12) if area < 1 else 1.0


@pytest.mark.parametrize(
    ("area", "half_width", "ratio"), [(0.8, 0.05, 1), (0.9, 0.03, 1), (0.7, 0.1, 4), (1.0, 0.02, 1)]
)
def test_so_many_images_of_each_side_have_newcombes_interval_of_the_area(area, half_width, ratio):
    ill, well = images_for_auc(area, half_width, 1 / (1 + ratio))
    widths = [np.subtract(*newcombe(area, *sides)[::-1]) / 2 for sides in ((ill, well), (ill - 1, well - ratio))]
    assert widths[0] <= half_width < widths[1] and abs(well - ratio * ill) <= ratio


@pytest.mark.parametrize(("area", "half_width"), [(0.6, 0.03), (0.8, 0.03), (0.9, 0.02)])
def test_large_balanced_studies_are_those_of_hanley_and_mcneil(area, half_width):
    def standard_error(ill: float) -> float:  # equation 1 of the paper of 1982
        q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
        return math.sqrt((area * (1 - area) + (ill - 1) * (q1 - area**2) + (ill - 1) * (q2 - area**2)) / ill**2)

    ill = brentq(lambda n: Z * standard_error(n) - half_width, 1, 1e5)
    assert images_for_auc(area, half_width, 0.5)[0] == pytest.approx(ill, rel=0.01)


def test_simulated_areas_of_so_many_images_vary_as_planned():
    area, half_width = 0.8556, 0.05  # of normal scores 1.5 deviations apart
    ill, well = images_for_auc(area, half_width, 0.5)
    positive, random = np.arange(ill + well) < ill, np.random.default_rng(0)
    areas = [auc_interval(random.normal(size=ill + well) + 1.5 * positive, positive).value for _ in range(300)]
    assert Z * np.std(areas) == pytest.approx(half_width, rel=0.1)


def test_few_are_enough_for_a_wide_interval_and_a_wider_level_takes_more():
    assert images_for_share(0.5, 0.49) == 1 and images_for_auc(0.6, 0.49, 0.5) == (1, 1)
    assert images_for_share(0.9, 0.05, level=0.99) > images_for_share(0.9, 0.05)
    assert images_for_auc(0.9, 0.05, 0.01)[0] < 0.02 * images_for_auc(0.9, 0.05, 0.01)[1]


def test_what_cannot_be_planned_is_said_plainly():
    for values in ((1.2, 0.05), (0.9, 0), (0.9, 0.5)):
        with pytest.raises(InputError, match="Expected a value from 0 to 1, a half width above 0 and below 0.5"):
            images_for_share(*values)
    with pytest.raises(InputError, match="Expected a prevalence above 0 and below 1, found 0"):
        images_for_auc(0.9, 0.05, 0)
