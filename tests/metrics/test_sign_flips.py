# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from dual_skd.metrics import sign_flips
from dual_skd.metrics.sign_flips import exact_p_value, interval, p_value


def by_all_signs(differences, half=True):
    sums = np.abs(np.array(list(itertools.product([-1, 1], repeat=len(differences)))) @ np.abs(differences))
    found = abs(np.sum(differences))
    return (sums > found + 1e-9).mean() + (np.abs(sums - found) <= 1e-9).mean() / (2 if half else 1)


@pytest.mark.parametrize(
    "differences", [[1], [0, 3], [2, -1, 1], [3, 1, 1, -2, 0, 5], [1] * 7 + [-1] * 3, [4, 4, -4, 1]]
)
def test_whole_numbers_have_the_p_value_of_all_signs(differences):
    assert exact_p_value(np.array(differences)) == pytest.approx(by_all_signs(np.array(differences)))
    assert p_value(np.array(differences, float)) == pytest.approx(by_all_signs(np.array(differences), half=False))


def test_many_patients_and_large_differences_are_exact_too():
    # scipy's permutation test of 13 patients looks at all 2^13 outcomes, and counts equal ones wholly
    random = np.random.default_rng(0)
    differences = random.integers(-3, 5, size=13)
    both = stats.permutation_test(
        (differences,), lambda x: abs(x.sum()), permutation_type="samples", n_resamples=np.inf, alternative="greater"
    )
    sums = np.abs(differences).astype(float)
    equal = np.mean([abs(s @ sums) == abs(differences.sum()) for s in itertools.product([-1, 1], repeat=13)])
    assert exact_p_value(differences) == pytest.approx(both.pvalue - equal / 2)
    # 150,000 patients: the normal distribution of variance sum of squares
    many = random.integers(-4, 5, size=150_000)
    z = abs(many.sum()) / np.sqrt(np.square(many).sum())
    assert exact_p_value(many) == pytest.approx(2 * stats.norm.sf(z), rel=1e-3)


def test_the_saddlepoint_is_near_the_exact_p_value_far_into_the_tail(monkeypatch):
    random = np.random.default_rng(1)
    for shift in (0.1, 0.4, 0.8):
        differences = random.normal(size=15) + shift
        monkeypatch.setattr(sign_flips, "_LISTED", 15)
        exact = p_value(differences)
        monkeypatch.setattr(sign_flips, "_LISTED", 12)
        assert p_value(differences) == pytest.approx(exact, rel=0.35 if exact < 0.01 else 0.1)
    for shift in (0.0, 0.05, 0.2):  # of many patients it is the t test
        differences = random.normal(size=2000) + shift
        assert p_value(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=0.02, abs=1e-18)
    whole = random.integers(-2, 4, size=400)  # and that of whole numbers, whose steps are fine
    assert p_value(whole.astype(float)) == pytest.approx(exact_p_value(whole), rel=0.02)


def test_differences_of_one_sign_leave_two_outcomes():
    assert p_value(np.full(4, 0.3)) == 2 * 0.5**4
    assert p_value(np.random.default_rng(2).random(60) + 0.1) == pytest.approx(2 * 0.5**60)
    assert p_value(np.zeros(5)) == exact_p_value(np.zeros(5)) == exact_p_value(np.array([1, -1])) == 1
    assert p_value(np.array([0.1, 0.2, -0.3])) == 1
    assert p_value(np.r_[np.ones(10), -np.ones(9), -1 + 1e-5]) == 1  # next to 0, where the tail's formula ends


def test_the_interval_holds_what_is_not_rejected():
    random = np.random.default_rng(3)
    for case in range(40):
        patients = int(random.integers(6, 40))
        differences = random.normal(size=patients) * random.choice([1, 4], patients) + random.choice([0, 0.6])
        shares = random.integers(1, 4, size=patients)
        shares = shares / shares.sum()
        low, high = interval(differences * shares, shares, 0.95)
        assert (p_value(differences * shares) < 0.05) == (not low <= 0 <= high), case
        for limit in (low, high):
            assert p_value((differences - limit) * shares) == pytest.approx(0.05, abs=0.035 if patients < 13 else 1e-5)
    normal = random.normal(size=1000)
    expected = stats.ttest_1samp(normal, 0).confidence_interval(0.9)
    assert interval(normal / 1000, np.full(1000, 1e-3), 0.9) == pytest.approx(expected, rel=5e-3)


def test_few_patients_and_equal_differences_have_no_interval():
    shares = np.full(4, 0.25)
    assert interval(np.array([0.2, 0.1, 0.3, 0.1]), shares, 0.95) is None  # p is never below 1 / 8
    assert interval(np.array([0.2, 0.1, 0.3, 0.1]), shares, 0.8) is not None
    assert interval(0.1 * np.full(40, 1 / 40), np.full(40, 1 / 40), 0.95) is None


def test_many_sizes_are_convolved_as_every_outcome_says():
    random = np.random.default_rng(5)
    for count in (1, 5, 12):
        numbers = random.integers(-40, 60, size=count)
        outcomes = np.abs(np.array(list(itertools.product((-1, 1), repeat=count))) @ numbers)
        found = abs(numbers.sum())
        expected = (outcomes > found).mean() + (outcomes == found).mean() / 2 if found else 1
        assert exact_p_value(numbers) == pytest.approx(expected)
