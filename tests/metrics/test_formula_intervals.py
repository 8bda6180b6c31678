# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest
from scipy import stats

from dual_skd.errors import InputError
from dual_skd.metrics.definitions import TABLE
from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.formula_intervals import FormulaIntervals, has_formula
from dual_skd.metrics.intervals import auc_interval, metric_intervals, share_interval
from dual_skd.metrics.score_intervals import area_score_interval, mover_interval, wilson_interval


def limits(estimate):
    return estimate.low, estimate.high


def wilson(successes, count):
    found = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    return found.low, found.high


def called(cells):
    """Predictions and labels of two classes: true and false positives and negatives."""
    tp, fn, fp, tn = cells
    labels = np.repeat([1, 1, 0, 0], cells)
    second = np.repeat([0.9, 0.2, 0.7, 0.1], (tp, fn, fp, tn))
    return np.stack([1 - second, second], axis=1), labels


def test_every_share_of_independent_images_has_wilsons_interval():
    tp, fn, fp, tn = cells = (18, 4, 7, 31)
    found = metric_intervals(*called(cells), resamples=10)
    of_ill, overall = found.per_class[1], found.overall
    assert limits(of_ill["sensitivity"]) == pytest.approx(wilson(tp, tp + fn))
    assert limits(of_ill["specificity"]) == pytest.approx(wilson(tn, tn + fp))
    assert limits(of_ill["ppv"]) == pytest.approx(wilson(tp, tp + fp))
    assert limits(of_ill["npv"]) == pytest.approx(wilson(tn, tn + fn))
    assert limits(overall["accuracy"]) == pytest.approx(wilson(tp + tn, sum(cells)))
    jaccard = wilson(tp, tp + fn + fp)
    assert limits(of_ill["f1"]) == pytest.approx([2 * one / (1 + one) for one in jaccard])
    assert limits(share_interval(np.arange(60) < 49)) == pytest.approx(wilson(49, 60))


def test_balanced_accuracy_adds_up_the_independent_classes_and_the_harmonic_mean_what_each_limit_changes():
    tp, fn, fp, tn = cells = (18, 4, 7, 31)
    found = metric_intervals(*called(cells), resamples=10).overall
    one, other = tp / (tp + fn), tn / (tn + fp)
    (a, b), (c, d) = wilson(tp, tp + fn), wilson(tn, tn + fp)
    middle = (one + other) / 2
    assert found["balanced_accuracy"].low == pytest.approx(middle - np.hypot(one - a, other - c) / 2)
    assert found["balanced_accuracy"].high == pytest.approx(middle + np.hypot(b - one, d - other) / 2)
    value = stats.hmean([one, other])
    assert found["harmonic_mean"].low == pytest.approx(
        value - np.hypot(value - stats.hmean([a, other]), value - stats.hmean([one, c]))
    )
    assert found["harmonic_mean"].high == pytest.approx(
        value + np.hypot(value - stats.hmean([b, other]), value - stats.hmean([one, d]))
    )


def test_patients_of_equal_images_count_once_and_unknown_patients_singly():
    p, labels = called((10, 6, 9, 21))
    p = np.clip(p + np.random.default_rng(0).normal(0, 0.05, size=(46, 1)) * [1, -1], 0, 1)
    alone = metric_intervals(p, labels, resamples=10)
    copied = metric_intervals(np.repeat(p, 3, axis=0), np.repeat(labels, 3), np.repeat(np.arange(46), 3), resamples=10)
    for name in ("accuracy", "sensitivity", "balanced_accuracy", "f1"):
        # the effective number is that of patients but for what n and n - 1 differ by
        assert limits(copied.overall[name]) == pytest.approx(limits(alone.overall[name]), abs=0.012)
        assert copied.overall[name].high - copied.overall[name].low > 1.5 * (
            metric_intervals(np.repeat(p, 3, axis=0), np.repeat(labels, 3), resamples=10).overall[name].high
            - metric_intervals(np.repeat(p, 3, axis=0), np.repeat(labels, 3), resamples=10).overall[name].low
        )
    unknown = metric_intervals(p, labels, [""] * 46, resamples=10)
    assert unknown == alone


def test_a_perfect_result_counts_patients_and_no_other_result_is_surer():
    patients = np.repeat(np.arange(20), 4)
    right = np.ones(80, dtype=bool)
    perfect = share_interval(right, patients)
    assert limits(perfect) == pytest.approx(wilson(20, 20)) and perfect.reason == ""
    lows = [perfect.low]
    for wrong in range(80):
        right[wrong] = False
        found = share_interval(right, patients)
        lows.append(found.low)
    assert lows == sorted(lows, reverse=True)
    none = share_interval(right, patients)
    assert none.low == 0 and none.high == pytest.approx(1 - perfect.low)
    scores, ill = np.r_[np.zeros(40), np.ones(40)], np.arange(80) >= 40
    best = auc_interval(scores + np.arange(80) / 100, ill, patients=patients)
    assert limits(best) == pytest.approx(area_score_interval(1, 10, 10))
    scores[40] = -0.5
    assert auc_interval(scores + np.arange(80) / 100, ill, patients=patients).low <= best.low


def test_a_perfect_mean_over_many_classes_is_surer_than_one_with_errors():
    labels = np.repeat(np.arange(10), 4)
    p = np.eye(10)[labels] * 0.5 + 0.05
    perfect = metric_intervals(p, labels, resamples=10).overall
    p[[0, 5]] = np.roll(p[[0, 5]], 1, axis=1)
    wrong = metric_intervals(p, labels, resamples=10).overall
    for name in ("macro_auc", "f1", "balanced_accuracy"):
        assert perfect[name].value == 1 and 0.8 < perfect[name].low and wrong[name].low < perfect[name].low


def test_an_area_has_newcombes_interval_and_the_mean_of_two_classes_is_that_area():
    random = np.random.default_rng(1)
    labels = (random.random(70) < 0.3).astype(int)
    second = 1 / (1 + np.exp(-random.normal(size=70) - labels))
    found = metric_intervals(np.stack([1 - second, second], axis=1), labels, resamples=10)
    value = stats.mannwhitneyu(second[labels == 1], second[labels == 0]).statistic / (labels.sum() * (1 - labels).sum())
    wanted = area_score_interval(value, labels.sum(), (1 - labels).sum())
    for one in (found.per_class[0]["auc"], found.per_class[1]["auc"], found.overall["macro_auc"]):
        assert one.value == pytest.approx(value) and limits(one) == pytest.approx(wanted)
    alone = auc_interval(np.log(second), labels)
    assert alone.value == pytest.approx(value) and limits(alone) == pytest.approx(wanted)


def test_the_design_effect_of_an_area_is_obuchowskis_variance_over_that_of_images():
    random = np.random.default_rng(2)
    unit = np.repeat(np.arange(40), 3)
    positive = (random.random(40) < 0.5)[unit]
    scores = random.normal(size=120) + positive + 2 * random.normal(size=40)[unit]
    wins = (scores[positive][:, None] > scores[~positive]).astype(float)
    v10, v01, area = wins.mean(axis=1), wins.mean(axis=0), wins.mean()
    m, n = len(v10), len(v01)
    images = v10.var(ddof=1) / m + v01.var(ddof=1) / n
    up = np.bincount(unit[positive], weights=v10 - area)
    down = np.bincount(unit[~positive], weights=v01 - area)
    with_up, with_down = (len(set(unit[side])) for side in (positive, ~positive))
    patients = with_up / (with_up - 1) * (up**2).sum() / m**2 + with_down / (with_down - 1) * (down**2).sum() / n**2
    found = auc_interval(scores, positive, patients=unit.tolist())
    assert patients > 2 * images
    assert limits(found) == pytest.approx(area_score_interval(area, m, n, design_effect=patients / images))


def test_three_classes_that_are_the_same_area_mean_have_its_interval_and_others_a_shorter_one():
    random = np.random.default_rng(3)
    labels = np.arange(90) % 3
    p = np.exp(random.normal(size=(90, 3)) + 1.2 * np.eye(3)[labels])
    p /= p.sum(axis=1, keepdims=True)
    found = metric_intervals(p, labels, resamples=10)
    each = [one["auc"] for one in found.per_class]
    mean = found.overall["macro_auc"]
    assert mean.value == pytest.approx(np.mean([one.value for one in each]))
    widest = mover_interval(
        *zip(*((one.value, *limits(one)) for one in each), strict=True), [1 / 3] * 3, np.ones((3, 3))
    )
    shortest = mover_interval(*zip(*((one.value, *limits(one)) for one in each), strict=True), [1 / 3] * 3)
    assert widest[0] < mean.low and mean.high < widest[1]
    assert mean.high - mean.low == pytest.approx(shortest[1] - shortest[0], rel=0.4)


@pytest.mark.parametrize(
    ("scores", "positive", "value", "reason"),
    [
        ([0.2, 0.4], [1, 1], None, "every image is of the positive class"),
        ([0.2, 0.4], [0, 0], None, "no image of the positive class"),
        ([0.2], [1], None, "every image is of the positive class"),
        ([0.1, 0.2, 0.3, 0.2], [0, 0, 0, 1], 0.5, "fewer than two patients with or without the positive class"),
    ],
)
def test_degenerate_images_have_a_value_or_a_reason_and_never_nan(scores, positive, value, reason):
    found = auc_interval(np.array(scores), np.array(positive))
    assert (found.value, *limits(found)) == (value, None, None) and reason in found.reason
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_what_has_no_value_has_no_interval_and_means_are_of_the_rest():
    labels = np.array([0, 1, 1, 0, 1, 0])
    p = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.6, 0.4, 0], [0.7, 0.3, 0], [0.1, 0.9, 0], [0.4, 0.6, 0]])
    found = metric_intervals(p, labels, resamples=10, class_names=list("abc"))
    assert found.per_class[2]["sensitivity"] == found.per_class[2]["f1"] == Estimate(None, reason="no image of c")
    assert found.per_class[2]["harmonic_mean"].reason == "no image of c"
    two = metric_intervals(p[:, :2], labels, resamples=10)
    assert found.overall["balanced_accuracy"] == two.overall["balanced_accuracy"]
    assert found.overall["macro_auc"] == Estimate(None, reason="no image of c")
    few = metric_intervals(p[:4, :2], np.array([0, 1, 0, 0]), resamples=10, class_names=list("ab"))
    assert few.overall["macro_auc"].value is not None
    assert few.overall["macro_auc"].reason == "no interval: fewer than two patients with or without a"
    constant = auc_interval(np.full(30, 0.5), np.arange(30) < 10)
    assert limits(constant) == pytest.approx(area_score_interval(0.5, 10, 20))
    assert share_interval(np.ones(3), ["p"] * 3) == Estimate(1.0, reason="no interval: all images are of one patient")


def test_the_log_likelihood_has_students_t_of_its_logarithm_over_patients():
    random, patients = np.random.default_rng(6), np.arange(60) // 2
    second, labels = random.uniform(0.05, 0.95, size=60), random.integers(2, size=60)
    p = np.stack([1 - second, second], axis=1)
    found = metric_intervals(p, labels, patients, resamples=10).overall["nll"]
    of_patients = -np.log(p[np.arange(60), labels]).reshape(30, 2).mean(axis=1)
    half = stats.t.ppf(0.975, 29) * of_patients.std(ddof=1) / np.sqrt(30) / of_patients.mean()
    assert found.value == pytest.approx(of_patients.mean())
    assert limits(found) == pytest.approx((found.value * np.exp(-half), found.value * np.exp(half)))
    sure = metric_intervals(np.eye(2)[labels], labels, patients, resamples=10).overall["nll"]
    assert sure == Estimate(0.0, reason="no interval: no image is off")


def test_metrics_without_a_formula_are_resampled():
    without = {name for name in TABLE if not has_formula(name)}
    assert without == {"ece", "ece_equal_mass", "average_precision"}
    with pytest.raises(TypeError, match="no formula over all classes"):
        FormulaIntervals(None, ["a"], np.arange(2), 0.95).over_all("sensitivity")


def test_intervals_cover_at_their_level_with_five_ill_patients():
    random, true = np.random.default_rng(4), stats.norm.cdf(1.5 / np.sqrt(2))
    positive = np.arange(200) < 5
    found = [auc_interval(random.normal(size=200) + 1.5 * positive, positive) for _ in range(300)]
    held = np.mean([one.low <= true <= one.high for one in found])
    assert 0.93 <= held <= 0.985  # DeLong's intervals: 0.81 to 0.91


def test_shares_of_clustered_images_cover_at_their_level():
    random, patients = np.random.default_rng(5), np.repeat(np.arange(50), 4)
    held = []
    for _ in range(600):
        share = random.beta(4, 1, size=50)  # of a patient's images; ICC 1/6, mean 0.8
        found = share_interval(random.random(200) < share[patients], patients)
        held.append(found.low <= 0.8 <= found.high)
    assert 0.92 <= np.mean(held) <= 0.975
    assert wilson_interval(160, 200)[0] > found.low


def test_eight_hundred_classes_take_seconds():
    random = np.random.default_rng(13)
    labels = np.r_[np.arange(800), np.arange(800)]
    p = random.random((1600, 800)) + 0.5 * (labels[:, None] == np.arange(800))
    p /= p.sum(axis=1, keepdims=True)
    began = time.process_time()
    found = metric_intervals(p, labels, metrics=["macro_auc"]).overall["macro_auc"]
    assert time.process_time() - began < 60
    assert found.low < found.value < found.high


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(InputError, match=r"found scores \(3,\), truth \(2,\)"):
        auc_interval(np.zeros(3), np.zeros(2))
    with pytest.raises(InputError, match="scores that are finite numbers, found 1 of 2 not"):
        auc_interval(np.array([np.nan, 0]), np.array([0, 1]))
    with pytest.raises(InputError, match="from 0 to 1, found 2"):
        auc_interval(np.zeros(2), np.array([0, 2]))
    with pytest.raises(InputError, match="3 images, but 1 patients"):
        auc_interval(np.arange(3), np.array([0, 1, 1]), patients=["a"])
    with pytest.raises(InputError, match="3 images, but 1 patients"):
        share_interval(np.arange(3) > 1, ["a"])


def test_two_patients_do_not_make_a_mean_over_classes_sure():
    """Their correlation is always 1 or -1; at -1 an F1 of 12 images had an interval of 0.818 to 0.847."""
    labels = np.repeat([0, 1], [7, 5])
    predicted = np.array([0] * 6 + [1] + [1] * 4 + [0])
    p = np.eye(2)[predicted] * 0.8 + 0.1
    patients = [f"patient {label}" for label in labels]
    limits = []
    for level in (0.8, 0.95, 0.99):
        found = metric_intervals(p, labels, patients, metrics=["f1"], level=level)
        one, classes = found.overall["f1"], [of_class["f1"] for of_class in found.per_class]
        # at r = 0 or above the half widths of the classes add up as in a mean of independent ones, or more
        assert one.high - one.low > 0.55 * min(each.high - each.low for each in classes)
        limits.append((one.low, one.high))
    lows, highs = zip(*limits, strict=True)
    assert sorted(lows, reverse=True) == list(lows) and sorted(highs) == list(highs)
