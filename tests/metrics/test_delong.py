# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from dual_skd.errors import InputError
from dual_skd.metrics.delong import delong_test

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


def case(seed, images=60, ties=False):
    random = np.random.default_rng(seed)
    positive = random.random(images) < 0.4
    scores = random.normal(size=(2, images)) + positive
    return np.round(scores) if ties else scores, positive


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_mid_ranks_give_what_all_pairs_give(seed, ties):
    scores, positive = case(seed, ties=ties)
    areas, spread = covariance(scores, positive)
    assert areas == pytest.approx([roc_auc_score(positive, one) for one in scores])
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


def test_patients_of_equal_images_count_once_and_unknown_patients_singly():
    scores, positive = case(6)
    copied = [np.repeat(values, 3) for values in (*scores, positive)]
    patients = np.repeat([f"p{k}" for k in range(60)], 3).tolist()
    test = delong_test(copied[0], copied[1], copied[2], patients=patients)
    assert test.p == pytest.approx(delong_test(*scores, positive).p)
    assert delong_test(*scores, positive, patients=[""] * 60) == delong_test(*scores, positive)


def test_equal_areas_are_rejected_at_the_level_in_simulation():
    random, positive = np.random.default_rng(9), np.arange(100) < 40
    rejected = 0
    for _ in range(1000):
        shared = random.normal(size=100) + positive
        one, other = shared + random.normal(size=(2, 100))
        rejected += delong_test(one, other, positive).p < 0.05
    assert 30 <= rejected <= 72


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


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(InputError, match=r"found scores \(4,\), truth \(3,\)"):
        delong_test(np.zeros(3), np.zeros(4), np.array([0, 1, 1]))
