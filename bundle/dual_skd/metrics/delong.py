# SPDX-License-Identifier: Apache-2.0
"""The paired test of two areas under ROC curves, without resampling.

DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44:837) write the variance of an area by the placements of its
images: for a positive the share of negatives that it beats, for a negative the share of positives that beat it.
Mid-ranks give all placements in O(n log n) (Sun and Xu 2014, IEEE Signal Processing Letters 21:1389). What an image's
placement differs from the area, divided by the size of its side, is that image's influence on the area; the variance
is the sum of the squared influences, of patients instead of images when the influences are added up per patient first
(Obuchowski 1997, Biometrics 53:567). The influence on a difference or a mean of areas is the difference or mean of the
influences, which covers the paired test and the macro mean.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dual_skd.metrics.estimates import LEVEL, normal_p_value
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.score_intervals import normal_quantile
from dual_skd.metrics.validation import checked_columns, checked_labels


@dataclass(frozen=True)
class AreaDifference:
    """How two areas under the ROC curve on the same images differ; ``dataclasses.asdict`` makes plain JSON of it.

    Attributes:
        one: area of the first scores; None where it isn't defined.
        other: area of the second.
        difference: first minus second.
        low: lower limit of the interval of the difference; None where there is none.
        high: upper limit.
        p: two-sided p value of equal areas.
        reason: why something is None; "" in the ordinary case.
    """

    one: float | None
    other: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    reason: str = ""


def delong_test(
    one: np.ndarray,
    other: np.ndarray,
    positive: np.ndarray,
    *,
    patients: Sequence[Hashable] | None = None,
    level: float = LEVEL,
) -> AreaDifference:
    """Whether two scores of the same images have the same area under the ROC curve (DeLong et al. 1988).

    Args:
        one: scores (N,) of the first method, larger for positives.
        other: those of the second, in the same order of images.
        positive: (N,), true or 1 for positives.
        patients: patient of each image, "" for an unknown one.
        level: of the interval.

    Returns:
        an :class:`AreaDifference`; normal interval, within -1 and 1, and p value. Equal rankings differ by 0 with p 1,
        but two areas of 1 (or 0) leave no variance to estimate, as one does, and have no interval.

    Raises:
        InputError: shapes don't match, or scores aren't finite.
    """
    one, positive = _checked_scores(one, positive)
    other, _ = _checked_scores(other, positive)
    units = patient_numbers(patients, len(one))
    if positive.all() or not positive.any():
        return AreaDifference(None, None, reason=_missing(positive, "the positive class"))
    first, of_first = _influence(one, positive, units)
    second, of_second = _influence(other, positive, units)
    areas: dict[str, Any] = {"one": first, "other": second, "difference": first - second}
    if _fewest(positive, units) < 2:
        return AreaDifference(**areas, reason="no interval: fewer than two patients on one side")
    error = _standard_error(of_first - of_second, units)
    if not error:
        if first == second and 0 < first < 1:
            return AreaDifference(**areas, low=0.0, high=0.0, p=1.0)
        return AreaDifference(**areas, reason="no interval: the images leave no variance to estimate")
    half = normal_quantile(level) * error
    low, high = max(first - second - half, -1.0), min(first - second + half, 1.0)
    return AreaDifference(**areas, low=low, high=high, p=normal_p_value((first - second) / error))


def _influence(scores: np.ndarray, positive: np.ndarray, units: np.ndarray) -> tuple[float, np.ndarray]:
    """The area, and what each image (N,) adds to its error; squared and added up per unit they are the variance."""
    up, down = int(positive.sum()), int((~positive).sum())
    ranks = _mid_ranks(scores)
    placement = np.empty(len(scores))
    placement[positive] = (ranks[positive] - _mid_ranks(scores[positive])) / down
    placement[~positive] = 1 - (ranks[~positive] - _mid_ranks(scores[~positive])) / up
    area = float(placement[positive].mean())
    influence = placement - area
    for side, size in ((positive, up), (~positive, down)):
        independent = _patients(side, units)
        influence[side] *= math.sqrt(independent / max(independent - 1, 1)) / size
    return area, influence


def _standard_error(influence: np.ndarray, units: np.ndarray) -> float:
    error = math.sqrt(float(np.square(np.bincount(units, weights=influence)).sum()))
    return error if error > 1e-12 else 0.0


def _mid_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    order = np.argsort(values, kind="stable")
    first = np.r_[True, values[order][1:] != values[order][:-1]]
    counts = np.diff(np.r_[np.flatnonzero(first), len(values)])
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(np.cumsum(counts) - (counts - 1) / 2, counts)
    return ranks


def _fewest(positive: np.ndarray, units: np.ndarray) -> int:
    """Number of patients on the smaller side."""
    return min(_patients(side, units) for side in (positive, ~positive))


def _patients(side: np.ndarray, units: np.ndarray) -> int:
    return int(np.count_nonzero(np.bincount(units[side])))


def _missing(positive: np.ndarray, name: str) -> str:
    return f"every image is of {name}" if positive.all() else f"no image of {name}"


def _checked_scores(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, positive = checked_columns(scores=np.asarray(scores, dtype=float), truth=positive)
    return scores, checked_labels(positive, (len(positive), 2)) > 0
