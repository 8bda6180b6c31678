# SPDX-License-Identifier: Apache-2.0
"""ROC and precision-recall curves of one class, with pointwise bands from resampled patients."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dual_skd.metrics.estimates import DEFINED_SHARE, LEVEL, percentiles
from dual_skd.metrics.resampling import drawn_weights, patient_numbers

GRID_POINTS = 51  # of a band
CURVE_POINTS = 400  # a plot shows no more
BAND_RESAMPLES = 500
_ROUNDING = 1e-12


class Curve(NamedTuple):
    """A curve and its band; ``_asdict`` makes plain JSON of it.

    Attributes:
        x: false positive rate, or recall, ascending.
        y: sensitivity, or precision.
        grid: places of the band; empty without one.
        low: lower limit at each place.
        high: upper limit.
        reason: why there is no curve or no band; "" where there are both.
    """

    x: list[float]
    y: list[float]
    grid: list[float]
    low: list[float]
    high: list[float]
    reason: str = ""


def roc_curve(
    scores: np.ndarray, positive: np.ndarray, patients: Sequence[Hashable] | None = None, **options: Any
) -> Curve:
    """Sensitivity against the false positive rate at every threshold.

    The band holds, at each false positive rate by itself, the central share of the curves of resampled patients
    (vertical averaging, Fawcett 2006, section 8.1); between thresholds a curve is straight, so that tied scores make
    the diagonal that the area counts.

    Args:
        scores: (N,), larger for positives.
        positive: (N,), true for positives.
        patients: patient of each image, "" for an unknown one; resampled whole.
        options: ``level``, ``resamples`` and ``seed`` of the band, ``name`` of the class for the reasons.

    Example:
        >>> roc_curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])).y
        [0.0, 0.5, 0.5, 1.0, 1.0]
    """

    def at_grid(true: np.ndarray, false: np.ndarray, grid: np.ndarray) -> np.ndarray:
        return np.interp(grid, false / false[-1], true / true[-1])

    def points(true: np.ndarray, false: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return false / false[-1], true / true[-1]

    return _curve(scores, positive, patients, points, at_grid, np.linspace(0, 1, GRID_POINTS), **options)


def precision_recall_curve(
    scores: np.ndarray, positive: np.ndarray, patients: Sequence[Hashable] | None = None, **options: Any
) -> Curve:
    """Precision against recall at every threshold, as steps: recall in between is reached by the next threshold.

    Args: see :func:`roc_curve`.

    Example:
        >>> precision_recall_curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])).x
        [0.5, 0.5, 1.0, 1.0]
    """

    def precision(true: np.ndarray, false: np.ndarray) -> np.ndarray:
        called = true + false
        return np.divide(true, called, out=np.ones_like(called), where=called > 0)

    def at_grid(true: np.ndarray, false: np.ndarray, grid: np.ndarray) -> np.ndarray:
        place = np.searchsorted(true / true[-1], grid - _ROUNDING)
        return precision(true, false)[place]

    def points(true: np.ndarray, false: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return true[1:] / true[-1], precision(true, false)[1:]

    return _curve(scores, positive, patients, points, at_grid, np.linspace(0, 1, GRID_POINTS)[1:], **options)


def _curve(
    scores: np.ndarray,
    positive: np.ndarray,
    patients: Sequence[Hashable] | None,
    points: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    at_grid: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    grid: np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = BAND_RESAMPLES,
    seed: int = 0,
    name: str = "the class",
) -> Curve:
    scores, positive = np.asarray(scores, dtype=float), np.asarray(positive).astype(bool)
    if positive.all() or not positive.any():
        reason = f"every image is of {name}" if positive.all() else f"no image of {name}"
        return Curve([], [], [], [], [], reason)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])  # thresholds lie between different scores
    up = positive[order].astype(float)

    def counts(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        drawn = weights[order]
        true, false = np.cumsum(drawn * up)[ends], np.cumsum(drawn * (1 - up))[ends]
        return np.r_[0, true], np.r_[0, false]

    x, y = points(*counts(np.ones(len(scores))))
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
    curve = Curve(plain(x[chosen]), plain(y[chosen]), [], [], [])
    units = patient_numbers(patients, len(scores))
    if not units.any():
        return curve._replace(reason="no band: all images are of one patient")

    def heights(weights: np.ndarray) -> np.ndarray:
        true, false = counts(weights)
        defined = true[-1] > 0 and false[-1] > 0
        return at_grid(true, false, grid) if defined else np.full(len(grid), np.nan)

    low, high, share = band(heights, units, level=level, resamples=resamples, seed=seed)
    if share.min() < DEFINED_SHARE:
        return curve._replace(reason="no band: too few patients with or without it")
    return curve._replace(grid=plain(grid), low=plain(low), high=plain(high))


def band(
    heights: Callable[[np.ndarray], np.ndarray], units: np.ndarray, *, level: float, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pointwise limits of a curve from resampled patients.

    Args:
        heights: of the curve at G places (G,), from how often each image counts (N,); nan where it isn't defined.
        units: number of each image's patient (N,).
        level: of the limits.
        resamples: how many are drawn.
        seed: of the resampling.

    Returns:
        low, high and the share of resamples that define them, (G,) each.
    """
    blocks = drawn_weights(np.random.default_rng(seed), units, resamples)
    drawn = [heights(row) for weights in blocks for row in weights.astype(float)]
    return percentiles(np.stack(drawn), level)


def plain(values: np.ndarray) -> list[float]:
    """Numbers for JSON, to five decimals."""
    return [round(float(value), 5) for value in values]
