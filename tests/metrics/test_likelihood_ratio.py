# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import math

import numpy as np
import pytest

from dual_skd.errors import InputError
from dual_skd.metrics import likelihood_ratio as module
from dual_skd.metrics.likelihood_ratio import likelihood_ratios, ratio_interval

# statsmodels 0.15: confint_proportions_2indep(*counts, compare="ratio", method="score", correction=False)
KOOPMAN = {
    (90, 100, 20, 100): (3.0942642166155356, 6.779644416475493),
    (10, 100, 80, 100): (0.06854307283961492, 0.22008350924198203),
    (9, 10, 0, 50): (12.558019479219508, math.inf),
    (0, 10, 40, 50): (0, 0.34888624056834583),
    (20, 20, 3, 30): (3.903035700811695, 28.9018270348354),
    (7, 12, 5, 400): (17.12564584744459, 119.40261105470478),
}


def images(true_yes: int, false_no: int, false_yes: int, true_no: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers and truth of as many images of each kind."""
    counts = [true_yes, false_no, false_yes, true_no]
    return np.repeat([1, 0, 1, 0], counts), np.repeat([1, 1, 0, 0], counts)


def test_the_examples_are_true():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("counts", KOOPMAN)
def test_the_interval_of_a_ratio_is_that_of_statsmodels(counts):
    assert ratio_interval(*counts) == pytest.approx(KOOPMAN[counts], rel=1e-6, abs=1e-9)


def test_both_ratios_are_of_the_answers_with_and_without_the_class():
    found = likelihood_ratios(*images(90, 10, 20, 80))
    assert (found.positive.value, found.negative.value) == pytest.approx((4.5, 0.125))
    assert (found.positive.low, found.positive.high) == pytest.approx(KOOPMAN[90, 100, 20, 100], rel=1e-6)
    assert (found.negative.low, found.negative.high) == pytest.approx(KOOPMAN[10, 100, 80, 100], rel=1e-6)
    narrow = likelihood_ratios(*images(90, 10, 20, 80), level=0.5).positive
    assert found.positive.low < narrow.low < 4.5 < narrow.high < found.positive.high


def test_empty_cells_have_a_limit_on_one_side():
    found = likelihood_ratios(*images(9, 1, 0, 50))
    assert found.positive.value is None and found.positive.high is None and "divided by 0" in found.positive.reason
    assert found.positive.low == pytest.approx(KOOPMAN[9, 10, 0, 50][0], rel=1e-6)
    none_missed = likelihood_ratios(*images(10, 0, 10, 40)).negative
    assert (none_missed.value, none_missed.low) == (0, 0)
    assert none_missed.high == pytest.approx(KOOPMAN[0, 10, 40, 50][1], rel=1e-6)


def test_what_says_nothing_has_a_reason():
    never, always = likelihood_ratios(*images(0, 9, 0, 9)), likelihood_ratios(*images(9, 0, 9, 0))
    assert never.positive.reason == "no image is called so" and never.negative.value == 1
    assert always.negative.reason == "every image is called so" and always.positive.value == 1
    assert likelihood_ratios([1, 0], [1, 1]).positive.reason == "every image is of the class"
    assert likelihood_ratios([1, 0], [0, 0]).negative.reason == "no image is of the class"
    one = likelihood_ratios(*images(5, 5, 5, 5), ["p"] * 20).positive
    assert (one.value, one.low, one.reason) == (1, None, "no interval: all images are of one patient")
    with pytest.raises(InputError, match="one number per image"):
        likelihood_ratios([1, 0], [1])


def test_patients_whose_images_agree_count_as_one_image_each():
    called, truth = images(45, 5, 10, 40)
    alone = likelihood_ratios(called, truth).positive
    patients = [f"p{k // 4}" for k in range(400)]
    fourfold = likelihood_ratios(np.repeat(called, 4), np.repeat(truth, 4), patients).positive
    assert fourfold.value == pytest.approx(alone.value)
    # the design effect of 50 patients with four equal images is 4 * (50 / 49) / (200 / 199), not 4
    assert (fourfold.low, fourfold.high) == pytest.approx((alone.low, alone.high), rel=0.02)
    taken_apart = likelihood_ratios(np.repeat(called, 4), np.repeat(truth, 4)).positive
    assert taken_apart.low > fourfold.low + 0.5


def test_an_answer_that_is_always_the_same_has_a_ratio_of_1_that_may_be_less_or_more():
    found = likelihood_ratios(np.ones(50), np.repeat([1, 0], [20, 30]))
    squared = 1.959963984540054**2  # all yes: the score is sqrt(n (1 - ratio) / ratio) below 1
    assert found.positive.value == 1 and found.positive.low == pytest.approx(1 / (1 + squared / 20))
    assert found.positive.high == pytest.approx(1 + squared / 30) and found.negative.value is None
