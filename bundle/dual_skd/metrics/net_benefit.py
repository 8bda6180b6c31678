# SPDX-License-Identifier: Apache-2.0
"""Decision curves: what acting on a probability is worth, against acting for all and for none."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from dual_skd.errors import InputError
from dual_skd.metrics.curves import BAND_RESAMPLES, band, plain
from dual_skd.metrics.estimates import LEVEL
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.validation import checked_columns

THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))  # those of R's dcurves, without 0


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of a class at each risk threshold; ``dataclasses.asdict`` makes plain JSON of it.

    Attributes:
        thresholds: probabilities from which one acts, ascending; empty where there is no curve.
        net_benefit: true positives less weighted false positives, per image.
        low: lower limit at each threshold by itself; empty without a band.
        high: upper limit.
        treat_all: net benefit of acting for every image; of acting for none it is 0.
        prevalence: share of the images that are of the class, the largest net benefit that there can be.
        reason: why there is no curve or no band; "" where there are both.
    """

    thresholds: list[float]
    net_benefit: list[float]
    low: list[float]
    high: list[float]
    treat_all: list[float]
    prevalence: float
    reason: str = ""


def decision_curve(
    scores: np.ndarray,
    positive: np.ndarray,
    patients: Sequence[Hashable] | None = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    level: float = LEVEL,
    resamples: int = BAND_RESAMPLES,
    seed: int = 0,
    name: str = "the class",
) -> DecisionCurve:
    """Net benefit over risk thresholds (Vickers and Elkin 2006, Medical Decision Making 26:565).

    With n images, net benefit at the threshold t is TP / n - FP / n * t / (1 - t): whoever acts from a risk of t on
    holds 1 / t - 1 false alarms for as bad as one miss. The band is of percentiles at each threshold, over resampled
    patients. It means something only where probabilities are calibrated, and where the images have the prevalence of
    those that it is used for.

    Args:
        scores: (N,), probabilities of the class.
        positive: (N,), true for its images.
        patients: patient of each image, "" for an unknown one; resampled whole.
        thresholds: between 0 and 1, ascending.
        level: of the band.
        resamples: for the band.
        seed: of the resampling.
        name: of the class, for the reasons.

    Raises:
        InputError: scores or thresholds that are no probabilities, or not one truth for each score.

    Example:
        >>> curve = decision_curve(np.array([0.9, 0.6, 0.3, 0.1]), np.array([1, 0, 1, 0]), thresholds=[0.2, 0.5])
        >>> curve.net_benefit, curve.treat_all  # 2/4 - 1/4 * 1/4 and 1/4 - 1/4; 1/2 - 1/2 * 1/4 and 1/2 - 1/2
        ([0.4375, 0.0], [0.375, 0.0])
    """
    scores, positive = checked_columns(scores=np.asarray(scores, dtype=float), truth=positive)
    positive, grid = positive.astype(bool), np.asarray(thresholds, dtype=float)
    inside = ((grid > 0) & (grid < 1)).all() and (np.diff(grid) > 0).all() and len(grid)
    if not inside or not ((scores >= 0) & (scores <= 1)).all():
        raise InputError(
            "Expected probabilities from 0 to 1 and thresholds that ascend between 0 and 1; found "
            f"{scores.min():g} to {scores.max():g}, and thresholds {grid.tolist()[:5]}."
        )
    if not positive.any():
        return DecisionCurve([], [], [], [], [], 0.0, f"no image of {name}")
    odds, reached = grid / (1 - grid), np.searchsorted(grid, scores, side="right")  # how many thresholds each reaches

    def called(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted images at or above each threshold."""
        counts = np.bincount(reached[images], weights=weights[images], minlength=len(grid) + 1)
        return np.cumsum(counts[::-1])[-2::-1]

    def heights(weights: np.ndarray) -> np.ndarray:
        return (called(positive, weights) - odds * called(~positive, weights)) / weights.sum()

    prevalence = float(positive.mean())
    treat_all = prevalence - (1 - prevalence) * odds
    observed = plain(heights(np.ones(len(scores))))
    units = patient_numbers(patients, len(scores))
    low, high, reason = [], [], "no band: all images are of one patient"
    if units.any():
        limits = band(heights, units, level=level, resamples=resamples, seed=seed)
        low, high, reason = plain(limits[0]), plain(limits[1]), ""
    return DecisionCurve(plain(grid), observed, low, high, plain(treat_all), prevalence, reason)
