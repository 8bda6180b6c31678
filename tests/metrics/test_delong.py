# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from dual_skd.errors import InputError
from dual_skd.metrics.delong import auc_interval, class_auc_intervals, delong_test, macro_auc_interval

Z = stats.norm.ppf(0.975)


def placements(scores, positive):
    """All pairs, as DeLong et al. 1988 write them: V10 of the positives, V01 of the negatives."""
    up, down = scores[positive][:, None], scores[~positive][None]
    psi = (up > down) + 0.5 * (up == down)
    return psi.mean(axis=1), psi.mean(axis=0)


def covariance(several, positive):
    """Areas and their covariance matrix by equations 4 to 6 of the paper: S10 / m + S01 / n."""
    v10, v01 = zip(*(placements(scores, positive) for scores in several), strict=True)
    m, n = positive.sum(), (~positive).sum()
    spread = np.atleast_2d(np.cov(np.stack(v10))) / m + np.atleast_2d(np.cov(np.stack(v01))) / n
    return np.array([v.mean() for v in v10]), spread


def logit_interval(area, error):
    middle, half = np.log(area / (1 - area)), Z * error / (area * (1 - area))
    return 1 / (1 + np.exp(-(middle - half))), 1 / (1 + np.exp(-(middle + half)))


def case(seed, images=60, ties=False):
    random = np.random.default_rng(seed)
    positive = random.random(images) < 0.4
    scores = random.normal(size=(2, images)) + positive
    return np.round(scores) if ties else scores, positive


def test_the_interval_is_the_one_computed_by_hand():
    # placements of the positives 1/2, 1, of the negatives 1, 1/2: variances 1/8, so 1/8/2 + 1/8/2 = 1/8;
    # the logit's standard error is sqrt(1/8) / (3/4 * 1/4)
    found = auc_interval(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    assert found.value == 0.75
    assert (found.low, found.high) == pytest.approx(logit_interval(0.75, np.sqrt(1 / 8)))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_mid_ranks_give_what_all_pairs_give(seed, ties):
    scores, positive = case(seed, ties=ties)
    areas, spread = covariance(scores, positive)
    assert areas == pytest.approx([roc_auc_score(positive, one) for one in scores])
    for one, area, variance in zip(scores, areas, np.diag(spread), strict=True):
        found = auc_interval(one, positive)
        assert (found.value, found.low, found.high) == pytest.approx((area, *logit_interval(area, np.sqrt(variance))))
    test = delong_test(*scores, positive)
    error = np.sqrt(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1])
    assert (test.one, test.other, test.difference) == pytest.approx((*areas, areas[0] - areas[1]))
    # degrees of freedom as in Welch's test: the two sides' parts of the variance
    parts = [
        np.var(np.subtract(*(placements(one, positive)[side] for one in scores)), ddof=1) / count
        for side, count in ((0, positive.sum()), (1, (~positive).sum()))
    ]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (positive.sum() - 1) + parts[1] ** 2 / ((~positive).sum() - 1))
    t = stats.t(freedom)
    assert (test.low, test.high) == pytest.approx(areas[0] - areas[1] + np.array([-1, 1]) * t.ppf(0.975) * error)
    assert test.p == pytest.approx(2 * t.sf(abs(areas[0] - areas[1]) / error))


def test_only_the_order_of_the_scores_and_images_matters():
    scores, positive = case(5)
    found = delong_test(*scores, positive)
    turned = np.random.default_rng(0).permutation(len(positive))
    again = delong_test(np.exp(scores[0][turned]), scores[1][turned] * 3 - 7, positive[turned])
    assert dataclasses.astuple(again)[:-1] == pytest.approx(dataclasses.astuple(found)[:-1])
    mirrored = auc_interval(-scores[0], positive)
    plain = auc_interval(scores[0], positive)
    assert (mirrored.value, mirrored.low, mirrored.high) == pytest.approx(
        (1 - plain.value, 1 - plain.high, 1 - plain.low)
    )


def test_patients_of_equal_images_count_once_and_unknown_patients_singly():
    scores, positive = case(6)
    copied = [np.repeat(values, 3) for values in (*scores, positive)]
    patients = np.repeat([f"p{k}" for k in range(60)], 3).tolist()
    alone, whole = auc_interval(scores[0], positive), auc_interval(copied[0], copied[2], patients=patients)
    assert (whole.value, whole.low, whole.high) == pytest.approx((alone.value, alone.low, alone.high))
    test = delong_test(copied[0], copied[1], copied[2], patients=patients)
    assert test.p == pytest.approx(delong_test(*scores, positive).p)
    assert auc_interval(scores[0], positive, patients=[""] * 60) == alone


def test_the_variance_over_patients_is_obuchowskis():
    # positives and negatives of the same patients: the cross term 2 S11 / (m n) counts
    random = np.random.default_rng(7)
    unit = np.repeat(np.arange(40), 3)
    positive = random.random(120) < 0.5
    scores = random.normal(size=120) + positive + 2 * random.normal(size=40)[unit]
    v10, v01 = placements(scores, positive)
    m, n, area = positive.sum(), (~positive).sum(), v10.mean()
    up = np.bincount(unit[positive], weights=v10 - area, minlength=40)
    down = np.bincount(unit[~positive], weights=v01 - area, minlength=40)
    with_up, with_down = len(set(unit[positive])), len(set(unit[~positive]))
    s10 = with_up / ((with_up - 1) * m) * (up**2).sum()
    s01 = with_down / ((with_down - 1) * n) * (down**2).sum()
    s11 = 40 / 39 * (up * down).sum()
    error = np.sqrt(s10 / m + s01 / n + 2 * s11 / (m * n))
    found = auc_interval(scores, positive, patients=unit.tolist())
    # the paper's factors of the three terms differ by less than a hundredth from ours
    assert (found.low, found.high) == pytest.approx(logit_interval(area, error), abs=1e-3)
    assert found.low != pytest.approx(auc_interval(scores, positive).low, abs=0.01)


def test_intervals_cover_at_their_level_in_simulation():
    true = stats.norm.cdf(1.5 / np.sqrt(2))
    positive = np.arange(100) < 30
    random = np.random.default_rng(8)
    found = [auc_interval(random.normal(size=100) + 1.5 * positive, positive) for _ in range(1000)]
    assert 0.93 <= np.mean([one.low <= true <= one.high for one in found]) <= 0.97  # +-0.02 is three deviations


def test_equal_areas_are_rejected_at_the_level_in_simulation():
    random, positive = np.random.default_rng(9), np.arange(100) < 40
    rejected = 0
    for _ in range(1000):
        shared = random.normal(size=100) + positive
        one, other = shared + random.normal(size=(2, 100))
        rejected += delong_test(one, other, positive).p < 0.05
    assert 30 <= rejected <= 72


def test_the_macro_mean_of_two_classes_is_the_one_area_and_covers_with_three():
    scores, positive = case(10)
    p = 1 / (1 + np.exp(-scores[0]))
    two = macro_auc_interval(np.stack([1 - p, p], axis=1), positive.astype(int))
    assert dataclasses.astuple(two)[:3] == pytest.approx(dataclasses.astuple(auc_interval(p, positive))[:3])

    def drawn(random, images):
        labels = random.choice(3, size=images, p=[0.5, 0.3, 0.2])
        p = np.exp(random.normal(size=(images, 3)) + 1.2 * np.eye(3)[labels])
        return p / p.sum(axis=1, keepdims=True), labels

    random = np.random.default_rng(11)
    large, labels = drawn(random, 200_000)
    true = np.mean([roc_auc_score(labels == k, large[:, k]) for k in range(3)])
    found = [macro_auc_interval(*drawn(random, 120)) for _ in range(600)]
    assert 0.925 <= np.mean([one.low <= true <= one.high for one in found]) <= 0.975
    each = class_auc_intervals(large[:500], labels[:500])
    assert np.mean([one.value for one in each]) == pytest.approx(macro_auc_interval(large[:500], labels[:500]).value)


def test_a_perfect_area_has_the_exact_limit_of_its_disjoint_pairs():
    scores, positive = np.array([1.0, 2, 3, 4, 5, 6]), np.array([0, 0, 0, 0, 1, 1])
    found = auc_interval(scores, positive)
    exact = stats.binomtest(2, 2).proportion_ci(0.95).low
    assert (
        (found.value, found.high) == (1, 1) and found.low == pytest.approx(exact) and "disjoint pairs" in found.reason
    )
    worst = auc_interval(-scores, positive)
    assert (worst.value, worst.low) == (0, 0) and worst.high == pytest.approx(1 - exact)
    one_patient_on_both_sides = auc_interval(scores, positive, patients=[1, 1, 2, 2, 1, 2])
    assert one_patient_on_both_sides.low == pytest.approx(0.025)
    perfect = macro_auc_interval(np.eye(3)[[0, 0, 1, 1, 2, 2]], np.array([0, 0, 1, 1, 2, 2]))
    assert perfect.value == 1 and perfect.low == pytest.approx((0.05 / 3 / 2) ** (1 / 2))


def test_the_limit_of_a_perfect_area_holds_where_it_is_often_perfect():
    random, positive = np.random.default_rng(12), np.arange(20) < 10
    true = stats.norm.cdf(3 / np.sqrt(2))  # 0.983; a third of the samples separate perfectly
    found = [auc_interval(random.normal(size=20) + 3 * positive, positive) for _ in range(1000)]
    assert np.mean([one.value == 1 for one in found]) > 0.2
    assert np.mean([one.low <= true <= one.high for one in found]) >= 0.93


def test_an_area_near_one_has_an_interval_within_one():
    scores = np.r_[np.arange(50.0), np.arange(49.5, 99.5)]
    scores[50] = 48.5  # a single pair out of order
    found = auc_interval(scores, np.arange(100) >= 50)
    assert found.value == 1 - 1 / 2500 and 0.99 < found.low < found.value < found.high < 1


@pytest.mark.parametrize(
    ("scores", "positive", "value", "reason"),
    [
        ([0.2, 0.4], [1, 1], None, "every image is of the positive class"),
        ([0.2, 0.4], [0, 0], None, "no image of the positive class"),
        ([0.2], [1], None, "every image is of the positive class"),
        ([0.5] * 6, [0, 0, 0, 1, 1, 1], 0.5, "no interval: the scores leave no variance"),
        ([0.1, 0.2, 0.3, 0.2], [0, 0, 0, 1], 0.5, "fewer than two patients"),
    ],
)
def test_degenerate_images_have_a_value_or_a_reason_and_never_nan(scores, positive, value, reason):
    found = auc_interval(np.array(scores), np.array(positive))
    assert (found.value, found.low, found.high) == (value, None, None) and reason in found.reason
    json.dumps(dataclasses.asdict(found), allow_nan=False)
    test = delong_test(np.array(scores), -np.array(scores), np.array(positive))
    assert test.one == value
    json.dumps(dataclasses.asdict(test), allow_nan=False)


def test_the_paired_test_has_an_answer_where_there_is_no_variance():
    perfect, positive = np.array([0.0, 1, 2, 3]), np.array([0, 0, 1, 1])
    some = np.array([0.0, 2, 1, 3])
    equal = delong_test(some, some**3, positive)
    assert (equal.one, equal.difference, equal.low, equal.high, equal.p) == (0.75, 0, 0, 0, 1)
    for one, other in ((perfect, np.array([1.0, 0, 5, 4])), (perfect, perfect), (-perfect, -(perfect**3))):
        both = delong_test(one, other, positive)
        assert both.one == both.other and both.difference == 0 and both.low is both.high is both.p is None
        assert both.reason == "no interval: the images leave no variance to estimate"
    apart = delong_test(perfect, np.zeros(4), positive)
    assert (apart.difference, apart.p) == (0.5, None) and "no variance" in apart.reason
    assert "fewer than two" in delong_test(perfect, -perfect, np.array([0, 0, 0, 1])).reason
    assert delong_test(perfect, -perfect, np.ones(4)).reason == "every image is of the positive class"


def test_absent_classes_are_named():
    found = class_auc_intervals(np.full((6, 4), 0.25), np.array([0, 0, 0, 1, 1, 1]), class_names=list("abcd"))
    assert [one.reason[:16] for one in found[2:]] == ["no image of c", "no image of d"]
    assert macro_auc_interval(np.full((6, 4), 0.25), np.array([0, 0, 0, 1, 1, 1]), class_names=list("abcd")).reason == (
        "no image of c, and 1 more classes can't be compared"
    )
    labels = np.array([[1, 0], [1, 1], [1, 0], [1, 1]])
    several = class_auc_intervals(np.random.default_rng(0).random((4, 2)), labels, multi_label=True)
    assert several[0].reason == "every image is of 0" and several[1].value is not None


def test_two_thousand_classes_take_seconds_and_little_memory():
    random = np.random.default_rng(13)
    labels = np.r_[np.arange(2000), np.arange(2000)]
    p = random.random((4000, 2000)) + 0.5 * (labels[:, None] == np.arange(2000))
    p /= p.sum(axis=1, keepdims=True)
    began = time.perf_counter()
    found = macro_auc_interval(p, labels)
    assert time.perf_counter() - began < 60  # 3 to 5 s on an ordinary core
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
    with pytest.raises(InputError, match=r"found scores \(4,\), truth \(3,\)"):
        delong_test(np.zeros(3), np.zeros(4), np.array([0, 1, 1]))
