# SPDX-License-Identifier: Apache-2.0
"""Likelihood ratios of a yes and of a no, with score intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import bisect

from dual_skd.metrics.design_effect import design_effect
from dual_skd.metrics.estimates import LEVEL, Estimate
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.score_intervals import normal_quantile
from dual_skd.metrics.validation import checked_columns

_WIDEST = 60.0  # of the logarithm of a ratio
_NOTHING = 1e-15  # a difference of shares below it is rounding


@dataclass(frozen=True)
class LikelihoodRatios:
    """How a yes and a no change the odds that an image is of the class.

    Attributes:
        positive: sensitivity / (1 - specificity); the odds after a yes are those before it times this.
        negative: (1 - sensitivity) / specificity; the same after a no.
    """

    positive: Estimate
    negative: Estimate


def likelihood_ratios(
    called: np.ndarray, truth: np.ndarray, patients: Sequence[Hashable] | None = None, *, level: float = LEVEL
) -> LikelihoodRatios:
    """Likelihood ratios at a threshold (Deeks and Altman 2004, BMJ 329:168).

    The interval is the score interval of a ratio of two shares (Koopman 1984, Biometrics 40:513), which needs no
    correction where a cell is 0 as the logarithm of Simel et al. 1991 does. Where patients have several images, the
    counts of either side are divided by its design effect first (Rao and Scott 1992).

    Args:
        called: (N,), true where the answer is yes.
        truth: (N,), true for the images of the class.
        patients: patient of each image, "" for an unknown one; images of one patient aren't independent.
        level: of the intervals.

    Returns:
        :class:`LikelihoodRatios`. A ratio to 0 has no value, but its lower limit. 0 to 0 says nothing, and neither do
        images all of one side or of one patient.

    Raises:
        InputError: not one yes or no for each image.

    Example:
        >>> found = likelihood_ratios(np.repeat([1, 0, 1, 0], [90, 10, 20, 80]), np.repeat([1, 0], 100))
        >>> round(found.positive.value, 2), round(found.negative.value, 3)  # 0.9 / 0.2 and 0.1 / 0.8
        (4.5, 0.125)
    """
    called, truth = (np.asarray(one, dtype=bool) for one in checked_columns(called=called, truth=truth))
    if truth.all() or not truth.any():
        nothing = Estimate(None, reason=f"{'every' if truth.all() else 'no'} image is of the class")
        return LikelihoodRatios(nothing, nothing)
    units = patient_numbers(patients, len(called))
    return LikelihoodRatios(
        _ratio(called, truth, units, level, "no image is called so"),
        _ratio(~called, truth, units, level, "every image is called so"),
    )


def _ratio(answer: np.ndarray, truth: np.ndarray, units: np.ndarray, level: float, never: str) -> Estimate:
    """How much more often an answer is given with the class than without it."""
    if not answer.any():
        return Estimate(None, reason=never)
    shares = [float(answer[side].mean()) for side in (truth, ~truth)]
    value = shares[0] / shares[1] if shares[1] else None
    if not units.any():
        return Estimate(value, reason="no interval: all images are of one patient")
    counts = [
        int(side.sum()) / design_effect(answer[side] - answer[side].mean(), units[side]) for side in (truth, ~truth)
    ]
    low, high = ratio_interval(shares[0] * counts[0], counts[0], shares[1] * counts[1], counts[1], level)
    if value is None:
        return Estimate(None, low, None, "divided by 0: no image of the rest has this answer, so no upper limit")
    return Estimate(value, low, high)


def ratio_interval(
    successes: float, count: float, other_successes: float, other_count: float, level: float = LEVEL
) -> tuple[float, float]:
    """Score interval of the ratio of two independent shares (Koopman 1984, Biometrics 40:513).

    Args:
        successes: of the upper share; needn't be whole numbers, which effective numbers aren't.
        count: of its trials.
        other_successes: of the lower share.
        other_count: of its trials.
        level: of the interval.

    Returns:
        low and high; high is infinite where the lower share is 0.
    """
    bound = normal_quantile(level)
    scores = (successes, count, other_successes, other_count)
    low = 0.0 if successes <= 0 else math.exp(_crossing(scores, bound))
    high = math.inf if other_successes <= 0 else math.exp(_crossing(scores, -bound))
    return low, high


def _crossing(scores: tuple[float, float, float, float], bound: float) -> float:
    """Logarithm of the ratio at which the score statistic, which falls, has this value."""
    return float(bisect(lambda logarithm: _score(*scores, math.exp(logarithm)) - bound, -_WIDEST, _WIDEST))


def _score(x: float, n: float, y: float, m: float, ratio: float) -> float:
    """How far two shares are from a ratio, in standard errors of the likeliest shares that have it (Koopman 1984)."""
    linear = ratio * (n + y) + m + x
    square = linear**2 - 4 * (n + m) * ratio * (x + y)
    lower = 2 * (x + y) / (linear + math.sqrt(max(square, 0.0)))  # the smaller root, without cancellation
    upper = ratio * lower
    variance = upper * (1 - upper) / n + ratio**2 * lower * (1 - lower) / m
    apart = x / n - ratio * y / m
    if abs(apart) < _NOTHING:  # no error, and where every answer is the same no variance either
        return 0.0
    return apart / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, apart)
