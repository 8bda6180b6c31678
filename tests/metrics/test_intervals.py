# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import tracemalloc

import numpy as np
import pytest
import torch

from dual_skd.errors import InputError
from dual_skd.metrics import classification_metrics, intervals
from dual_skd.metrics.definitions import CLASS_METRICS, METRICS, OVERALL_METRICS
from dual_skd.metrics.intervals import ALL_METRICS, BINARY_METRICS, metric_intervals
from dual_skd.metrics.operating_point import OperatingPoint


def predictions(random, images: int = 100, classes: int = 2, sharpness: float = 1.5):
    labels = random.integers(classes, size=images)
    p = np.exp(random.normal(size=(images, classes)) + sharpness * np.eye(classes)[labels])
    return p / p.sum(axis=1, keepdims=True), labels


def right_on(share_right: int, images: int):
    """Two classes, all images of class 0, of which the first few are recognised."""
    return np.where(np.arange(images)[:, None] < share_right, [0.9, 0.1], [0.1, 0.9]), np.zeros(images, int)


def all_estimates(found):
    return [*found.overall.values(), *(one for of_class in found.per_class for one in of_class.values())]


def assert_no_nan_and_every_gap_explained(found):
    json.dumps(dataclasses.asdict(found), allow_nan=False)
    for one in all_estimates(found):
        assert (one.low is None) == (one.high is None)
        assert one.low is not None or one.reason
        assert one.value is not None or one.low is None
        assert one.low is None or one.low <= one.value + 1e-9


@pytest.mark.parametrize("classes", [2, 3])
def test_the_values_are_those_of_every_other_report_and_limits_without_a_formula_percentiles_of_resamples(classes):
    p, labels = predictions(np.random.default_rng(0), classes=classes)
    found = metric_intervals(p, labels, resamples=100)
    wanted = classification_metrics(torch.from_numpy(np.log(p)), torch.from_numpy(labels))
    assert {name: found.overall[name].value for name in METRICS} == pytest.approx(wanted)
    chosen = np.random.default_rng(0).integers(100, size=(100, 100), dtype=np.int32)
    drawn = [classification_metrics(torch.from_numpy(np.log(p[c])), torch.from_numpy(labels[c])) for c in chosen]
    low = np.percentile([one["ece"] for one in drawn], 2.5)
    assert found.overall["ece"].high == pytest.approx(max(2 * wanted["ece"] - low, wanted["ece"]))


def test_everything_asked_for_is_there_and_two_classes_have_the_metrics_of_the_positive_one():
    p, labels = predictions(np.random.default_rng(2))
    found = metric_intervals(p, labels, resamples=100)
    assert set(found.overall) == {*OVERALL_METRICS, *BINARY_METRICS}
    assert [set(of_class) for of_class in found.per_class] == [set(CLASS_METRICS)] * 2
    assert found.overall["sensitivity"] == found.per_class[1]["sensitivity"]
    assert metric_intervals(p, labels, resamples=100, positive=0).overall["ppv"] == found.per_class[0]["ppv"]
    assert (found.images, found.patients, found.level, found.resamples) == (100, 100, 0.95, 100)
    three = metric_intervals(*predictions(np.random.default_rng(2), classes=3), resamples=100)
    assert set(three.overall) == set(OVERALL_METRICS)
    few = metric_intervals(p, labels, resamples=100, metrics=["accuracy", "npv"])
    assert set(few.overall) == {"accuracy", "npv"} and set(few.per_class[0]) == {"npv"}
    assert few.overall["accuracy"] == found.overall["accuracy"]  # the same draws whatever is measured


def test_equal_seeds_give_equal_intervals_and_a_higher_level_wider_ones():
    p, labels = predictions(np.random.default_rng(3))
    one, same, other = (metric_intervals(p, labels, resamples=300, seed=seed).overall for seed in (1, 1, 2))
    assert one == same and one != other
    wide = metric_intervals(p, labels, resamples=300, seed=1, level=0.99).overall
    for name in ("macro_auc", "nll", "accuracy", "f1"):
        assert wide[name].low < one[name].low < one[name].high < wide[name].high


def test_images_of_one_patient_are_drawn_together():
    # 100 patients of 4 equal images each are 100 observations: twice the interval of 400
    p, labels = right_on(300, 400)
    alone = metric_intervals(p, labels, metrics=["accuracy"]).overall["accuracy"]
    found = metric_intervals(p, labels, [f"p{image // 4}" for image in range(400)], metrics=["accuracy"])
    whole = found.overall["accuracy"]
    assert found.patients == 100
    assert (whole.high - whole.low) / (alone.high - alone.low) == pytest.approx(2, rel=0.08)
    assert metric_intervals(p, labels, [""] * 400, metrics=["accuracy"]).overall["accuracy"] == alone


def test_the_calibration_error_of_a_calibrated_classifier_is_not_said_to_be_above_zero():
    random = np.random.default_rng(6)
    held = 0
    for case in range(100):
        second = 1 / (1 + np.exp(-2 * random.normal(size=200)))
        labels = (random.random(200) < second).astype(int)
        found = metric_intervals(
            np.stack([1 - second, second], axis=1), labels, metrics=["ece"], resamples=200, seed=case
        ).overall["ece"]
        held += found.low == 0 < found.value <= found.high
    assert held >= 85  # of plain percentile intervals none would
    overconfident = np.where(labels[:, None] == [0, 1], 0.99, 0.01)[np.random.default_rng(0).permutation(200)]
    assert metric_intervals(overconfident, labels, metrics=["ece"], resamples=200).overall["ece"].low > 0.3


def test_a_perfect_result_has_intervals_but_for_what_is_resampled():
    mixed = np.r_[np.zeros(30, int), np.ones(10, int)]
    perfect = metric_intervals(np.eye(2)[mixed], mixed, resamples=100)
    assert perfect.overall["average_precision"].low is None
    assert "same value" in perfect.overall["average_precision"].reason
    assert perfect.overall["macro_auc"].low < 1 and perfect.overall["balanced_accuracy"].low < 1
    assert_no_nan_and_every_gap_explained(perfect)


def test_one_class_in_the_test_set_leaves_the_reasons():
    found = metric_intervals(*right_on(30, 40), resamples=100, class_names=["well", "ill"])
    assert found.overall["macro_auc"].reason == "no image of ill"
    assert found.overall["sensitivity"].reason == "no image of ill"
    assert found.per_class[0]["specificity"].reason == "every image is of well"
    assert found.per_class[0]["auc"].reason == "every image is of well"
    assert found.overall["accuracy"].low is not None
    assert_no_nan_and_every_gap_explained(found)


def test_absent_classes_and_a_constant_predictor_leave_the_reasons():
    p = np.tile([0.6, 0.2, 0.1, 0.1], (30, 1))
    found = metric_intervals(p, np.arange(30) % 2, resamples=100, class_names=list("abcd"))
    assert found.overall["macro_auc"].reason == found.overall["average_precision"].reason == "no image of c, d"
    assert found.per_class[1]["ppv"].reason == "no image is predicted as b"
    assert found.per_class[0]["npv"].reason == "every image is predicted as a"
    assert found.per_class[0]["auc"].value == 0.5 and found.per_class[0]["auc"].low < 0.5
    assert_no_nan_and_every_gap_explained(found)


@pytest.mark.parametrize("images", [1, 5])
def test_one_patient_or_one_image_gives_values_without_intervals(images):
    p, labels = predictions(np.random.default_rng(7), images)
    found = metric_intervals(p, labels, ["p"] * images, resamples=50)
    assert found.overall["nll"].value is not None
    assert all(one.low is None for one in all_estimates(found))
    assert found.overall["nll"].reason == "no interval: all images are of one patient"
    assert_no_nan_and_every_gap_explained(found)


def test_two_thousand_classes_are_bounded_in_memory_and_say_what_was_left_out(monkeypatch):
    random = np.random.default_rng(9)
    labels = random.integers(2000, size=1000)
    p = np.exp(2 * random.normal(size=(1000, 2000)) + 4 * (labels[:, None] == np.arange(2000)))
    p /= p.sum(axis=1, keepdims=True)
    monkeypatch.setattr(intervals, "RANK_WORK", 1e7)
    tracemalloc.start()
    found = metric_intervals(p, labels, resamples=50)
    assert tracemalloc.get_traced_memory()[1] < 400 * 2**20
    tracemalloc.stop()
    assert found.overall["accuracy"].low < found.overall["accuracy"].value
    assert found.overall["macro_auc"].value is None and "and" in found.overall["macro_auc"].reason
    present = labels[0]
    assert found.per_class[present]["auc"].low < found.per_class[present]["auc"].value
    assert "2000 classes x 1000 images x 50 times" in found.per_class[present]["average_precision"].reason
    assert_no_nan_and_every_gap_explained(found)


def test_an_operating_point_replaces_the_most_probable_class():
    p, labels = predictions(np.random.default_rng(10))
    point = OperatingPoint(0.8, 1, "", 1, 1, 1, 1)
    found = metric_intervals(p, labels, resamples=200, operating_point=point)
    called = p[:, 1] >= 0.8
    assert found.overall["sensitivity"].value == called[labels == 1].mean()
    assert found.overall["specificity"].value == 1 - called[labels == 0].mean()
    assert found.overall["accuracy"].value == (called == labels).mean()
    usual = metric_intervals(p, labels, resamples=200)
    assert all(found.overall[name] == usual.overall[name] for name in ("macro_auc", "ece", "nll"))
    first = metric_intervals(p, labels, resamples=200, operating_point=dataclasses.replace(point, positive=0))
    assert first.overall["sensitivity"].value == (p[labels == 0, 0] >= 0.8).mean()


def test_an_operating_point_of_many_classes_is_about_that_class_and_the_rest():
    p, labels = predictions(np.random.default_rng(11), classes=3)
    point = OperatingPoint(0.4, 2, "", 1, 1, 1, 1)
    found = metric_intervals(p, labels, resamples=100, operating_point=point, class_names=["a", "b", "c"])
    assert len(found.per_class) == 2
    assert found.overall["sensitivity"].value == (p[labels == 2, 2] >= 0.4).mean()
    plain = metric_intervals(p, labels, resamples=100).per_class[2]
    assert found.overall["macro_auc"].value == pytest.approx(plain["auc"].value)
    none = metric_intervals(p, 0 * labels, resamples=50, operating_point=point, class_names=["a", "b", "c"])
    assert none.overall["sensitivity"].reason == "no image of c"


def test_several_labels_per_image_have_intervals_of_each_and_of_their_mean():
    random = np.random.default_rng(12)
    logits = random.normal(size=(80, 3))
    labels = (random.random((80, 3)) < 1 / (1 + np.exp(-2 * logits))).astype(int)
    p = 1 / (1 + np.exp(-logits))
    found = metric_intervals(p, labels, multi_label=True, resamples=200)
    wanted = classification_metrics(torch.from_numpy(logits), torch.from_numpy(labels), multi_label=True)
    assert {name: found.overall[name].value for name in METRICS} == pytest.approx(wanted)
    assert set(found.overall) == set(OVERALL_METRICS)
    assert found.per_class[1]["sensitivity"].value == (p[labels[:, 1] == 1, 1] > 0.5).mean()
    assert_no_nan_and_every_gap_explained(found)
    labels[:, 2] = 1
    always = metric_intervals(p, labels, multi_label=True, resamples=50, class_names=list("xyz"))
    assert always.overall["macro_auc"].reason == always.per_class[2]["specificity"].reason == "every image is of z"
    with pytest.raises(InputError, match="with multi_label give that label's probabilities"):
        metric_intervals(p, labels, multi_label=True, operating_point=OperatingPoint(0.5, 1, "", 1, 1, 1, 1))


def test_what_cannot_be_measured_is_said_plainly():
    p, labels = predictions(np.random.default_rng(13), 10)
    with pytest.raises(InputError, match="Unknown metrics kappa; valid: accuracy"):
        metric_intervals(p, labels, metrics=["kappa"])
    with pytest.raises(InputError, match="10 images, but 3 patients"):
        metric_intervals(p, labels, ["a", "b", "c"])
    with pytest.raises(InputError, match="level between 0 and 1"):
        metric_intervals(p, labels, level=95)
    with pytest.raises(InputError, match="2 probabilities per image, but 3 class_names"):
        metric_intervals(p, labels, class_names=list("abc"))
    with pytest.raises(InputError, match="There is no class 2"):
        metric_intervals(p, labels, positive=2)
    with pytest.raises(InputError, match="There is no class 2"):
        metric_intervals(p, labels, operating_point=OperatingPoint(0.5, 2, "", 1, 1, 1, 1))
    with pytest.raises(InputError, match="whole numbers from 0 to 1, found 'well'"):
        metric_intervals(p, np.array(["well", "ill"] * 5))
    assert len(ALL_METRICS) == len(set(ALL_METRICS))


@pytest.mark.parametrize(("classes", "largest"), [(2, 1), (3, 2)])
def test_limits_are_within_the_scale_and_contain_the_value(classes, largest):
    """Student's t of two patients is so wide that its limits left the scale, and math.exp its range."""
    random, labels = np.random.default_rng(4), np.array([0, 1, 1, 0, 1, 0])
    p = random.dirichlet(np.full(classes, 0.2), size=6)
    for level in (0.8, 0.95, 0.9999999):
        for patients in (["a", "a", "a", "b", "b", "b"], None):
            found = metric_intervals(p, labels, patients, level=level, resamples=200).overall
            assert found["brier"].high <= largest and found["nll"].high <= 691
            for name in ("brier", "nll", "ece", "ece_equal_mass", "accuracy", "balanced_accuracy", "f1"):
                one = found[name]
                assert one.low is None or 0 <= one.low <= one.value <= one.high, name
            assert found["ece"].high <= 1 and found["f1"].high <= 1


def test_images_that_are_all_off_by_the_same_have_no_interval():
    found = metric_intervals(np.tile([0.7, 0.3], (5, 1)), np.zeros(5, dtype=int), metrics=["nll", "brier"]).overall
    for name, value in (("nll", -np.log(0.7)), ("brier", 0.09)):
        assert found[name].value == pytest.approx(value)
        assert found[name].low is None and found[name].reason == "no interval: the images leave no variance to estimate"
