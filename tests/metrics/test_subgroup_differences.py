# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.score_intervals import wilson_interval
from dual_skd.metrics.subgroup_differences import group_differences, mover_difference
from dual_skd.metrics.subgroups import subgroup_metrics


def share(successes: int, count: int) -> Estimate:
    return Estimate(successes / count, *wilson_interval(successes, count))


@pytest.mark.parametrize(
    ("one", "other", "limits"),
    [  # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((0, 10), (0, 10), (-0.2775, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0000)),
        ((10, 10), (0, 10), (0.6075, 1.0000)),
    ],
)
def test_two_shares_have_the_interval_of_newcombe(one, other, limits):
    found = mover_difference(share(*one), share(*other))
    assert found.value == pytest.approx(one[0] / one[1] - other[0] / other[1])
    assert (found.low, found.high) == pytest.approx(limits, abs=6e-5)


def test_it_is_antisymmetric_and_takes_a_correlation():
    one, other = Estimate(0.8, 0.7, 0.85), Estimate(0.6, 0.5, 0.75)
    there, back = mover_difference(one, other, 0.3), mover_difference(other, one, 0.3)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    below = math.sqrt(0.1**2 - 2 * 0.3 * 0.1 * 0.15 + 0.15**2)
    above = math.sqrt(0.05**2 - 2 * 0.3 * 0.05 * 0.1 + 0.1**2)
    assert (there.low, there.high) == pytest.approx((0.2 - below, 0.2 + above))
    same = mover_difference(Estimate(0.5, 0.4, 0.6), Estimate(0.5, 0.4, 0.6), 1.0)
    assert (same.low, same.high) == (0, 0)


def test_what_one_side_lacks_the_difference_lacks_with_its_reason():
    whole, undefined = Estimate(0.8, 0.7, 0.9), Estimate(None, reason="no image of ill")
    without = Estimate(0.6, reason="no interval: one patient")
    assert mover_difference(whole, undefined) == mover_difference(undefined, whole) == undefined
    assert mover_difference(whole, without) == Estimate(whole.value - 0.6, reason="no interval: one patient")
    assert mover_difference(without, whole) == Estimate(0.6 - whole.value, reason="no interval: one patient")


def groups_of(images: int, seed: int = 0, classes: int = 2):
    random = np.random.default_rng(seed)
    labels = np.arange(images) // 2 % classes
    p = np.exp(random.normal(size=(images, classes)) + np.eye(classes)[labels])
    return p / p.sum(axis=1, keepdims=True), labels


METRICS = {"metrics": ["accuracy", "balanced_accuracy", "macro_auc", "sensitivity", "specificity"]}


def test_each_group_is_compared_with_the_largest_and_the_unknown_with_none():
    p, labels = groups_of(120)
    groups = ["b"] * 60 + ["a"] * 40 + [""] * 12 + ["c"] * 8
    patients = [f"p{image // 2}" for image in range(120)]
    found = subgroup_metrics(p, labels, groups, patients, class_names=["well", "ill"], resamples=100, **METRICS)
    differences = group_differences(p, labels, groups, patients, found)
    assert [(one.name, one.reference, one.shared_patients) for one in differences] == [("a", "b", 0), ("c", "b", 0)]
    assert differences[0].too_small == "" and differences[1].too_small == "c: 8 images, fewer than 10"
    for name, one in differences[0].metrics.items():
        assert one == mover_difference(found["a"].metrics.overall[name], found["b"].metrics.overall[name])
        assert one.low < one.value < one.high
    assert set(differences[0].metrics) == set(METRICS["metrics"])
    json.dumps([dataclasses.asdict(one) for one in differences], allow_nan=False)
    assert found["a"].class_patients == (10, 10) and found["a"].class_images == (20, 20)


def test_one_known_group_has_nothing_to_be_compared_with():
    p, labels = groups_of(40)
    groups = ["a"] * 30 + [""] * 10
    assert group_differences(p, labels, groups, None, subgroup_metrics(p, labels, groups, resamples=20)) == ()


def test_of_patients_in_both_groups_the_correlation_counts():
    p, labels = groups_of(80)
    p, labels = np.concatenate([p, p]), np.concatenate([labels, labels])  # each patient once in each view, alike
    groups, patients = ["front"] * 80 + ["side"] * 80, [f"p{image}" for image in range(80)] * 2
    found = subgroup_metrics(p, labels, groups, patients, resamples=300, **METRICS)
    (paired,) = group_differences(p, labels, groups, patients, found)
    assert paired.shared_patients == 80
    for one in paired.metrics.values():
        assert one.value == 0 and one.high - one.low < 0.15  # r is 1; its limits aren't symmetric
    apart = [f"{group} {patient}" for group, patient in zip(groups, patients, strict=True)]
    (independent,) = group_differences(p, labels, groups, apart, found)
    assert independent.metrics["accuracy"].high > 0.1


def test_a_metric_that_never_changes_has_no_correlation():
    labels = np.arange(40) % 2
    p = np.eye(2)[labels] * 0.8 + 0.1
    groups, patients = ["a"] * 20 + ["b"] * 20, [f"p{image % 10}" for image in range(40)]
    found = subgroup_metrics(p, labels, groups, patients, resamples=50, metrics=["accuracy"])
    (one,) = group_differences(p, labels, groups, patients, found)
    assert one.metrics["accuracy"] == mover_difference(*(found[name].metrics.overall["accuracy"] for name in "ba"))


def test_several_labels_are_compared_too():
    p, labels = groups_of(60, classes=3)
    several = np.eye(3, dtype=int)[labels]
    groups, patients = ["a", "b"] * 30, [f"p{image // 2}" for image in range(60)]
    chosen = {"metrics": ["accuracy", "macro_auc"], "multi_label": True}
    found = subgroup_metrics(p, several, groups, patients, resamples=100, **chosen)
    (one,) = group_differences(p, several, groups, patients, found, multi_label=True)
    assert one.shared_patients == 30 and set(one.metrics) == {"accuracy", "macro_auc"}
