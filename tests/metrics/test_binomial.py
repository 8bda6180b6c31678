# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import math

import pytest
from scipy import stats

from dual_skd.metrics import binomial
from dual_skd.metrics.binomial import allowed_misses, exact_lower_limit, fewest_trials


def test_the_examples_are_true():
    assert doctest.testmod(binomial).failed == 0


@pytest.mark.parametrize(("successes", "count"), [(1, 1), (3, 20), (36, 38), (19, 38), (95, 100), (4990, 5000)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_lower_limit_is_the_quantile_of_the_beta_distribution(successes, count, confidence):
    expected = stats.beta.ppf(1 - confidence, successes, count - successes + 1)
    assert exact_lower_limit(successes, count, confidence) == pytest.approx(expected, abs=1e-10)


def test_without_a_success_there_is_no_lower_limit():
    assert exact_lower_limit(0, 10) == 0


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_as_many_may_fail_as_the_lower_limit_allows(share, confidence):
    for count in (1, 10, 28, 29, 93, 400):
        failing = [j for j in range(count + 1) if stats.binom.cdf(j, count, 1 - share) <= 1 - confidence]
        assert allowed_misses(count, share, confidence) == max(failing, default=-1)
    fewest = fewest_trials(share, confidence)
    assert allowed_misses(fewest, share, confidence) == 0 and allowed_misses(fewest - 1, share, confidence) == -1


def test_nothing_shows_a_share_of_1_and_no_trial_shows_any():
    assert fewest_trials(1) == math.inf and allowed_misses(1000, 1.0) == -1 and allowed_misses(0, 0.5) == -1
    assert [fewest_trials(0.9), fewest_trials(0.95)] == [29, 59]  # the table of Wilks 1941, one-sided, 95 %
