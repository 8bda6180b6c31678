# SPDX-License-Identifier: Apache-2.0
"""Exact limits of a share of independent trials, from the binomial distribution itself."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import bdtr, betaincinv

CONFIDENCE = 0.95  # of a one-sided limit


def exact_lower_limit(successes: int, count: int, confidence: float = CONFIDENCE) -> float:
    """One-sided lower limit of a share (Clopper and Pearson 1934).

    It is the 1 - ``confidence`` quantile of the beta distribution with ``successes`` and ``count - successes + 1``.

    Args:
        successes: number of successes.
        count: number of independent trials, at least 1.
        confidence: that the share is at least the limit.

    Example:
        >>> round(exact_lower_limit(29, 29), 4)  # 29 of 29: 0.05 ** (1 / 29)
        0.9019
    """
    return float(betaincinv(successes, count - successes + 1, 1 - confidence)) if successes > 0 else 0.0


def allowed_misses(count: int, share: float, confidence: float = CONFIDENCE) -> int:
    """How many of ``count`` trials may fail so that the share of successes is still at least ``share``.

    It is the largest number whose lower limit, see :func:`exact_lower_limit`, isn't below ``share``: the order
    statistic of a tolerance limit (Wilks 1941, Annals of Mathematical Statistics 12:91). -1: even none is too many.

    Example:
        >>> allowed_misses(28, 0.9), allowed_misses(29, 0.9), allowed_misses(100, 0.9)
        (-1, 0, 4)
    """
    if count < 1:
        return -1
    up_to = bdtr(np.arange(count), count, 1 - share)
    return int(np.count_nonzero(up_to <= 1 - confidence + 1e-12)) - 1


def fewest_trials(share: float, confidence: float = CONFIDENCE) -> float:
    """Trials that it takes to show a share, none of them failing: 29 for 0.9; infinite for a share of 1."""
    return math.ceil(math.log(1 - confidence) / math.log(share) - 1e-9) if share < 1 else math.inf
