# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from dual_skd.metrics.definitions import TABLE
from dual_skd.metrics.influence import (
    Influence,
    area_influence,
    class_influences,
    correlations,
    degrees_of_freedom,
    difference,
    overall_influence,
    ratio_influence,
    strata,
)
from dual_skd.metrics.weighted import Predictions, WeightedMetrics

SMOOTH = ("accuracy", "balanced_accuracy", "f1", "nll", "brier", "macro_auc")


def predictions(images=120, classes=3, multi_label=False, seed=0):
    random = np.random.default_rng(seed)
    if multi_label:
        labels = random.integers(2, size=(images, classes))
        return np.clip(labels * 0.3 + random.random((images, classes)) * 0.7, 0, 1), labels
    labels = random.integers(classes, size=images)
    p = random.dirichlet(np.ones(classes), size=images) + 0.3 * np.eye(classes)[labels]
    return p / p.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("multi_label", [False, True])
def test_an_influence_is_the_derivative_by_the_weight_of_an_image(multi_label):
    p, labels = predictions(multi_label=multi_label)
    units, images = np.arange(len(p)), len(p)
    given = Predictions(p, labels, None, None, multi_label)
    measure = WeightedMetrics(p, labels, list(TABLE), multi_label=multi_label)
    before = measure(np.ones((1, images)))
    weights = np.ones((images, images)) + 1e-6 * np.eye(images)
    after = measure(weights)
    for name in SMOOTH:
        found = overall_influence(given, name, units)
        assert found.value == pytest.approx(before.overall[name][0], abs=1e-12)
        derivative = (after.overall[name] - before.overall[name]) / 1e-6
        # the factor is sqrt(n / (n - 1)) of the class's images, within 3 %
        assert found.of_images == pytest.approx(derivative, rel=0.03, abs=0.02 * np.abs(derivative).max()), name
    for name in ("sensitivity", "specificity", "ppv", "npv", "f1", "auc"):
        for k, found in enumerate(class_influences(given, name, units)):
            assert found.value == pytest.approx(before.per_class[name][0, k], abs=1e-12)
            derivative = (after.per_class[name][:, k] - before.per_class[name][:, k]) / 1e-6
            assert found.of_images == pytest.approx(derivative, rel=0.03, abs=0.02 * np.abs(derivative).max()), name


def test_the_standard_error_of_a_mean_is_the_usual_one_and_of_whole_patients_that_of_their_sums():
    values = np.random.default_rng(1).normal(size=50)
    alone = ratio_influence(values, np.ones(50), np.arange(50))
    assert alone.standard_error(np.arange(50)) == pytest.approx(values.std(ddof=1) / np.sqrt(50))
    patients = np.arange(50) // 5
    found = ratio_influence(values, np.ones(50), patients)
    means = values.reshape(10, 5).mean(axis=1)
    assert found.standard_error(patients) == pytest.approx(means.std(ddof=1) / np.sqrt(10))


def test_an_area_has_the_variance_of_its_definition_by_pairs():
    random = np.random.default_rng(2)
    scores, positive = np.round(random.normal(size=40), 1), random.random(40) < 0.4
    up, down = scores[positive], scores[~positive]
    wins = (up[:, None] > down) + (up[:, None] == down) / 2
    variance = wins.mean(axis=1).var(ddof=1) / len(up) + wins.mean(axis=0).var(ddof=1) / len(down)
    found = area_influence(scores, positive, np.arange(40))
    assert found.value == pytest.approx(wins.mean())
    assert found.standard_error(np.arange(40)) == pytest.approx(np.sqrt(variance))


def test_correlations_and_those_without_a_variance():
    units = np.arange(6)
    first, last = np.array([1.0, 1, 1, 0, 0, 0]), np.array([0, 0, 0, 1.0, 1, 1])
    parts = [
        ratio_influence(np.array([1.0, 0, 1, 0, 1, 1]), np.ones(6), units),
        ratio_influence(np.array([0.0, 1, 0, 1, 0, 0]), np.ones(6), units),
        ratio_influence(first, first, units),  # nothing varies in these two
        ratio_influence(last, last, units),
    ]
    r = np.sqrt(1 / 2)
    assert correlations(parts, units) == pytest.approx(
        # of six, and one more that says 1; an image of three can have twice the influence of one of six
        np.array([[1, -5 / 7, r, r], [-5 / 7, 1, r, r], [r, r, 1, 0], [r, r, 0, 1]])
    )
    shared = np.array([0, 1, 2, 2, 3, 4])  # one patient is in both
    assert correlations(parts[2:], shared) == pytest.approx(np.array([[1, 1 / 3], [1 / 3, 1]]))


def test_degrees_of_freedom_are_those_of_welch_for_two_groups_and_of_one_mean_for_one():
    random = np.random.default_rng(3)
    scores = np.r_[random.normal(2, 3, size=5), random.normal(size=60)]
    positive = np.arange(65) < 5
    units, kinds = np.arange(65), strata(np.stack([~positive, positive], axis=1), np.arange(65))
    found = area_influence(scores, positive, units)
    wins = (scores[positive][:, None] > scores[~positive]).astype(float)
    one, other = wins.mean(axis=1).var(ddof=1) / 5, wins.mean(axis=0).var(ddof=1) / 60
    assert degrees_of_freedom(found, units, kinds) == pytest.approx((one + other) ** 2 / (one**2 / 4 + other**2 / 59))
    mean = ratio_influence(scores, np.ones(65), units)
    assert degrees_of_freedom(mean, units, np.zeros(65, int)) == pytest.approx(64)
    nothing = Influence(1.0, np.zeros(65), np.ones(65))
    assert degrees_of_freedom(nothing, units, kinds) == np.inf and nothing.standard_error(units) == 0


def test_a_unit_is_of_the_kind_of_all_its_images():
    truth = np.eye(3, dtype=bool)[[0, 0, 1, 1, 2, 0]]
    assert strata(truth, np.array([0, 1, 1, 2, 3, 4])).tolist() == [2, 3, 1, 0, 2]


def test_means_are_of_what_is_defined_and_differences_of_equal_methods_vanish():
    p, labels = predictions()
    units = np.arange(len(p)) // 2
    given = Predictions(p, labels, None, None, False)
    absent = Predictions(np.c_[p, 0 * p[:, :1]], labels, None, None, False)
    assert overall_influence(absent, "balanced_accuracy", units).value == pytest.approx(
        overall_influence(given, "balanced_accuracy", units).value
    )
    assert np.isnan(overall_influence(absent, "macro_auc", units).value)
    assert (
        overall_influence(given, "ece", units) is None and class_influences(given, "average_precision", units) is None
    )
    one = overall_influence(given, "nll", units)
    assert difference(one, one).value == 0 and difference(one, one).standard_error(units) == 0
