# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from dual_skd.errors import InputError
from dual_skd.metrics.intervals import metric_intervals
from dual_skd.metrics.operating_point import OperatingPoint
from dual_skd.metrics.subgroups import subgroup_metrics


def predictions(images: int, classes: int = 2):
    random = np.random.default_rng(0)
    labels = np.arange(images) % classes
    p = np.exp(random.normal(size=(images, classes)) + np.eye(classes)[labels])
    return p / p.sum(axis=1, keepdims=True), labels


def test_each_group_is_measured_as_if_it_were_alone():
    p, labels = predictions(100)
    groups = ["north"] * 60 + ["south"] * 40
    patients = [f"p{image // 2}" for image in range(100)]
    found = subgroup_metrics(p, labels, groups, patients, resamples=200)
    assert list(found) == ["north", "south"]
    alone = metric_intervals(p[60:], labels[60:], patients[60:], resamples=200)
    assert found["south"].metrics == alone
    assert (found["south"].images, found["south"].patients, found["south"].class_images) == (40, 20, (20, 20))
    assert found["north"].too_small == found["south"].too_small == ""
    json.dumps({name: dataclasses.asdict(group) for name, group in found.items()}, allow_nan=False)


def test_values_that_nobody_knows_are_a_group_of_their_own_and_the_last():
    p, labels = predictions(8)
    found = subgroup_metrics(p, labels, ["z", None, "", float("nan"), " z", "unknown", "  ", 3], resamples=20)
    assert {name: group.images for name, group in found.items()} == {"3": 1, "z": 2, "unknown": 5}
    assert list(found)[-1] == "unknown"


def test_small_groups_are_marked_with_the_reason():
    p, labels = predictions(60)
    labels = np.where(np.arange(60) < 20, 0, labels)
    groups = ["one class"] * 20 + ["few images"] * 6 + ["few patients"] * 14 + ["enough"] * 20
    patients = [f"{name}{place // 4 if name == 'few patients' else place}" for place, name in enumerate(groups)]
    found = subgroup_metrics(p, labels, groups, patients, minimum=10, resamples=50, class_names=["well", "ill"])
    assert {name: group.too_small for name, group in found.items()} == {
        "enough": "",
        "few images": "6 images, fewer than 10",
        "few patients": "4 patients, fewer than 10",
        "one class": "no image of ill",
    }
    assert found["one class"].metrics.overall["macro_auc"].reason == "no image of ill"
    assert found["one class"].metrics.overall["accuracy"].value is not None


def test_unknown_patients_stand_for_themselves_in_their_group():
    p, labels = predictions(40)
    found = subgroup_metrics(p, labels, ["a"] * 40, [""] * 40, resamples=20)
    assert found["a"].patients == 40


def test_operating_points_and_several_labels_reach_the_groups():
    p, labels = predictions(40, classes=3)
    point = OperatingPoint(0.3, 2, "", 1, 1, 1, 1)
    found = subgroup_metrics(p, labels, ["a"] * 40, operating_point=point, resamples=20)["a"]
    assert found.metrics.overall["sensitivity"].value == (p[labels == 2, 2] >= 0.3).mean()
    assert found.class_images == (14, 13, 13)
    several = np.stack([np.ones(40), labels > 0], axis=1).astype(int)
    marked = subgroup_metrics(p[:, :2], several, ["a"] * 40, multi_label=True, resamples=20)["a"]
    assert marked.class_images == (40, 26) and marked.too_small == "a label that every image has"


def test_not_one_group_per_image_is_refused():
    p, labels = predictions(4)
    with pytest.raises(InputError, match="4 images, but 3 groups"):
        subgroup_metrics(p, labels, ["a", "b", "c"])
