# SPDX-License-Identifier: Apache-2.0
"""The data of reliability diagrams: how often predictions of about the same confidence are right."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dual_skd.errors import InputError
from dual_skd.metrics.score_intervals import wilson_interval
from dual_skd.metrics.validation import checked_columns

ECE_BINS = 15


class ReliabilityBin(NamedTuple):
    """One bin of a reliability diagram; the four numbers after ``count`` are None in an empty bin.

    Attributes:
        low: smallest confidence of the bin.
        high: confidence at which the next bin begins; the last bin includes it.
        count: number of predictions.
        confidence: their mean confidence.
        accuracy: share of them that are right.
        accuracy_low: lower limit of the 95 % interval of the accuracy (Wilson 1927).
        accuracy_high: upper limit.
    """

    low: float
    high: float
    count: int  # type: ignore[assignment] # of tuple's method, which nobody needs here
    confidence: float | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None


def reliability(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = ECE_BINS, equal_mass: bool = False
) -> list[ReliabilityBin]:
    """Data of a reliability diagram: accuracy against confidence (DeGroot and Fienberg 1983; Guo et al. 2017).

    Args:
        confidence: (N,), probability of the predicted class, or with several labels per image of each yes or no.
        correct: (N,), 1 where the prediction is right, else 0.
        bins: number of bins.
        equal_mass: bins with equal numbers of predictions (Nguyen and O'Connor 2015) instead of equal widths of [0, 1].
            Equal confidences stay in one bin, so there may be fewer bins than asked for.

    Returns:
        the bins in order of confidence. The gaps of equal-width bins, weighted by their counts, add up to the ``ece``
        of :func:`dual_skd.metrics.classification.classification_metrics`.

    Raises:
        InputError: the two differ in length, are empty or not within 0 to 1, or fewer than one bin is asked for.
    """
    confidence, correct = checked_columns(
        confidence=np.asarray(confidence, dtype=float), correct=np.asarray(correct, dtype=float)
    )
    if bins < 1 or not ((confidence >= 0) & (confidence <= 1) & (correct >= 0) & (correct <= 1)).all():
        raise InputError(
            "Expected confidences and right-or-wrong marks from 0 to 1, and at least one bin; found "
            f"{confidence.min()} to {confidence.max()}, {correct.min()} to {correct.max()} and {bins} bins."
        )
    edges = bin_edges(confidence, bins, equal_mass=equal_mass)
    number = bin_numbers(confidence, edges)
    found = []
    for place, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        inside = number == place
        count = int(inside.sum())
        numbers: tuple[float | None, ...] = (None,) * 4
        if count:
            accuracy = float(correct[inside].mean())
            numbers = (float(confidence[inside].mean()), accuracy, *wilson_interval(accuracy * count, count))
        found.append(ReliabilityBin(low, high, count, *numbers))
    return found


def bin_edges(confidence: np.ndarray, bins: int = ECE_BINS, *, equal_mass: bool = False) -> np.ndarray:
    """The B + 1 edges of the bins of confidences (N,)."""
    if equal_mass:
        edges = np.unique(np.quantile(confidence, np.arange(bins) / bins, method="higher"))
        return np.append(edges, confidence.max())
    return np.linspace(0, 1, bins + 1)


def bin_numbers(confidence: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each confidence, from 0; a bin begins with its lower edge, and the last has its upper one too."""
    return np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, len(edges) - 2)
