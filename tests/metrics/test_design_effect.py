# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest

import numpy as np
import pytest

from dual_skd.metrics import design_effect as module
from dual_skd.metrics.design_effect import (
    FEW_PATIENTS,
    design_effect,
    effective_number,
    fewest_effective,
)


def test_the_examples_are_true():
    assert doctest.testmod(module).failed == 0


def test_one_image_of_each_patient_has_no_effect_and_neither_have_unlike_images():
    values = np.random.default_rng(0).normal(size=30)
    assert design_effect(values - values.mean(), np.arange(30)) == 1
    halves = np.tile([1.0, -1.0], 20)  # the two images of a patient cancel out: less than 1, which isn't relied on
    assert design_effect(halves, np.arange(40) // 2) == 1


def test_it_is_that_of_rao_and_scott():
    # patients with 1, 2, 3 images and 1, 0, 2 successes of them: share 1/2
    right, units = np.array([1, 0, 0, 1, 1, 0]), np.array([0, 1, 1, 2, 2, 2])
    clustered = 3 / 2 * ((1 - 0.5) ** 2 + (0 - 1) ** 2 + (2 - 1.5) ** 2) / 6**2  # their formula for the variance
    alone = 0.5 * 0.5 / (6 - 1)
    assert design_effect(right - 0.5, units) == pytest.approx(clustered / alone)


def test_by_the_intraclass_correlation_it_is_1_plus_m_minus_1_times_it():
    random = np.random.default_rng(1)
    patients, images, correlation = 4000, 5, 0.3
    scores = np.sqrt(correlation) * random.normal(size=(patients, 1)) + np.sqrt(1 - correlation) * random.normal(
        size=(patients, images)
    )
    found = design_effect((scores - scores.mean()).ravel(), np.arange(patients * images) // images)
    assert found == pytest.approx(1 + (images - 1) * correlation, rel=0.05)


def test_without_variance_or_with_few_patients_a_patients_images_count_as_one():
    units = np.repeat(np.arange(20), 4)
    assert design_effect(np.zeros(80), units) == 4 and design_effect(np.ones(4), np.zeros(4, int)) == 4
    assert fewest_effective(units) == effective_number(np.ones(80), units) == 20
    uneven = np.repeat([0, 1, 2], [1, 1, 8])  # 10 images; by image a patient has (1 + 1 + 64) / 10 of them
    assert design_effect(np.zeros(10), uneven) == pytest.approx(6.6) and fewest_effective(uneven) == 1
    assert fewest_effective(np.array([], int)) == 0
    alternating = np.tile([0, 1], 40)  # alike between patients, so that these images count for all of them
    assert effective_number(alternating, units) == 80
    assert effective_number(alternating[:40], units[:40]) == 10 < FEW_PATIENTS
