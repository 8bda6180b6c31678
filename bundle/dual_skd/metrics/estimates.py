# SPDX-License-Identifier: Apache-2.0
"""A number with its interval, and the rules by which a bootstrap distribution becomes an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
DEFINED_SHARE = 0.9  # an interval needs the metric in this share of the resamples; a class of two patients misses it
NO_VARIANCE = "no interval: the images leave no variance to estimate"
_EQUAL = 1e-12  # differences between resamples below this are rounding


@dataclass(frozen=True)
class Estimate:
    """A value with its confidence interval; ``dataclasses.asdict`` makes plain JSON of it.

    Attributes:
        value: what was measured; None where it isn't defined.
        low: lower limit of the interval; None where there is no interval.
        high: upper limit.
        reason: why value or interval is missing, or what is special about the interval; "" in the ordinary case.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def percentiles(drawn: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Central interval of each column, and the share of rows in which it is a number.

    Args:
        drawn: (R, ...), nan where a resample doesn't define the metric. Sorted in place.
        level: of the interval.

    Returns:
        low, high and share, each of the shape of one row; low and high are nan in a column without any number.
        Between two order statistics the interpolation is linear, as in ``numpy.percentile``.
    """
    drawn.sort(axis=0)  # nan comes last
    count = np.isfinite(drawn).sum(axis=0)
    limits = []
    for q in ((1 - level) / 2, (1 + level) / 2):
        place = q * np.maximum(count - 1, 0)
        below = place.astype(int)
        above = np.minimum(below + 1, np.maximum(count - 1, 0))
        low, high = (np.take_along_axis(drawn, index[None], axis=0)[0] for index in (below, above))
        limits.append(low + (place - below) * (high - low))
    return limits[0], limits[1], count / max(len(drawn), 1)


def from_resamples(value: float, low: float, high: float, share: float) -> Estimate:
    """An estimate from the percentiles of its resamples, or the reason why they make no interval."""
    if share < DEFINED_SHARE:
        return Estimate(
            value, reason=f"no interval: undefined in {1 - share:.0%} of the resamples, which miss a class or outcome"
        )
    if high - low < _EQUAL:
        return Estimate(value, reason="no interval: (almost) all resamples give the same value")
    return Estimate(value, min(low, value), max(high, value))  # percentiles of few patients may be beside the value
