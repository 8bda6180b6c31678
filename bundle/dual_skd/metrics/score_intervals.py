# SPDX-License-Identifier: Apache-2.0
"""Intervals that stay honest for few and for extreme counts: shares, areas under ROC curves, and sums of such numbers.

A score interval holds every value that the data don't contradict: its limits follow from the variance at the limit, not
at the estimate, which is 0 for a perfect result. So they are continuous up to a perfect result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

from dual_skd.metrics.estimates import LEVEL


def normal_quantile(level: float = LEVEL) -> float:
    """Half width of the central interval of a standard normal variable: 1.96 for 0.95."""
    return float(ndtri((1 + level) / 2))


def wilson_interval(successes: float, count: float, level: float = LEVEL) -> tuple[float, float]:
    """Score interval of a share (Wilson 1927; Newcombe 1998, Stat Med 17:857, method 3).

    Args:
        successes: number of successes.
        count: number of trials, above 0; with trials that depend on each other the effective number, which needn't be
            a whole one.
        level: of the interval.
    """
    share, z2 = successes / count, normal_quantile(level) ** 2 / count
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return (0.0 if share == 0 else max(middle - half, 0.0)), (1.0 if share == 1 else min(middle + half, 1.0))


def area_score_interval(
    area: float, positives: float, negatives: float, *, level: float = LEVEL, design_effect: float = 1.0
) -> tuple[float, float]:
    """Score interval of an area under the ROC curve (Newcombe 2006, Stat Med 25:559, method 5).

    The variance is that of Hanley and McNeil 1982 (Radiology 143:29) for exponential scores, with the mean of the two
    numbers of images in place of each.

    Args:
        area: 0 to 1.
        positives: number of them, above 0.
        negatives: number of them, above 0.
        level: of the interval.
        design_effect: by which several images of a patient raise the variance.
    """
    z2, between = normal_quantile(level) ** 2 * design_effect, (positives + negatives) / 2 - 1

    def beyond(true: float) -> float:
        spread = 1 + between * ((1 - true) / (2 - true) + true / (1 + true))
        return (area - true) ** 2 - z2 * true * (1 - true) * spread / (positives * negatives)

    return _limit(beyond, 0.0, area), _limit(beyond, 1.0, area)


def _limit(beyond: Callable[[float], float], end: float, estimate: float) -> float:
    """Where the data begin to contradict a true value, between the end of the scale and the estimate."""
    if estimate == end:
        return end
    # at a perfect result the estimate itself is a root: the wanted one lies before it
    near = estimate + (end - estimate) * 1e-9
    return float(brentq(beyond, end, near)) if beyond(end) > 0 > beyond(near) else end


def mover_interval(
    values: Sequence[float], lows: Sequence[float], highs: Sequence[float], weights: Sequence[float] | np.ndarray,
    correlations: np.ndarray | None = None,
) -> tuple[float, float]:  # fmt: skip
    """Interval of a weighted sum from the intervals of its parts: MOVER (Zou and Donner 2008, Stat Med 27:1693).

    The distance of each limit from its estimate is the part's spread in that direction. Of a difference of two shares
    with Wilson's intervals this is method 10 of Newcombe 1998 (Stat Med 17:873), of a paired one with its correlation
    method 10 of Newcombe 1998 (Stat Med 17:2635).

    Args:
        values: of the P parts.
        lows: lower limits of the parts.
        highs: upper limits of the parts.
        weights: of the parts in the sum; 1 and -1 for a difference.
        correlations: between the estimates of the parts (P, P); None for independent ones.
    """
    value, low, high, weight = (np.asarray(one, dtype=float) for one in (values, lows, highs, weights))
    related = np.eye(len(value)) if correlations is None else correlations
    middle = float(weight @ value)
    down = weight * np.where(weight > 0, value - low, high - value)
    up = weight * np.where(weight > 0, high - value, value - low)
    below, above = (math.sqrt(max(float(side @ related @ side), 0.0)) for side in (down, up))
    return middle - below, middle + above
