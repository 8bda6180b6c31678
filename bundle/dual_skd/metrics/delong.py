# SPDX-License-Identifier: Apache-2.0
"""Intervals of areas under ROC curves, and the paired test of two of them, without resampling.

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
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from dual_skd.metrics.differences import MetricDifference, influence_test
from dual_skd.metrics.estimates import LEVEL, Estimate, lower_limit_of_all, normal_quantile
from dual_skd.metrics.influence import area_influence, strata
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.validation import checked_class_names, checked_columns, checked_labels, checked_predictions
from dual_skd.utils.former_names import renamed
from dual_skd.utils.wording import first_few

__getattr__ = renamed(__name__, AreaDifference="dual_skd.metrics.differences.MetricDifference")


def auc_interval(
    scores: np.ndarray, positive: np.ndarray, *, patients: Sequence[Hashable] | None = None, level: float = LEVEL
) -> Estimate:
    """Area under the ROC curve, ties counting half, with the interval of DeLong et al. 1988.

    The interval is that of the logit, log(area / (1 - area)): its limits stay within 0 and 1 (Pepe 2003, The
    Statistical Evaluation of Medical Tests). An area of exactly 0 or 1 leaves no variance to estimate; its limit is the
    exact binomial one for as many disjoint pairs of a positive and a negative as there are. With fewer than some 30
    patients on one side and an area above 0.95 intervals are too narrow (measured in docs/statistics.md).

    Args:
        scores: (N,), larger for positives.
        positive: (N,), true or 1 for positives.
        patients: patient of each image, "" for an unknown one; images of one patient aren't independent.
        level: of the interval.

    Returns:
        an :class:`~dual_skd.metrics.estimates.Estimate`: without value if there are no positives or no negatives,
        without interval with fewer than two patients on a side.

    Raises:
        InputError: shapes don't match, or scores aren't finite.

    Example:
        >>> found = auc_interval(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        >>> found.value, round(found.low, 3), round(found.high, 3)
        (0.75, 0.069, 0.992)
    """
    scores, positive = _checked_scores(scores, positive)
    return _areas_interval([(scores, positive)], ["the positive class"], patient_numbers(patients, len(scores)), level)


def class_auc_intervals(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    patients: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    class_names: Sequence[str] | None = None,
    multi_label: bool = False,
) -> list[Estimate]:
    """Areas of the K classes, each against the rest, see :func:`auc_interval`.

    Args:
        probabilities: (N, K).
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        patients: patient of each image.
        level: of the intervals.
        class_names: for the reasons.
        multi_label: every label is a yes or no of its own.
    """
    problems, names = _one_against_rest_each(probabilities, labels, class_names, multi_label)
    units = patient_numbers(patients, len(labels))
    return [_areas_interval([p], [name], units, level) for p, name in zip(problems, names, strict=True)]


def macro_auc_interval(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    patients: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    class_names: Sequence[str] | None = None,
    multi_label: bool = False,
) -> Estimate:
    """Mean area over the classes, see :func:`class_auc_intervals`; undefined if one has no image or counter-example."""
    problems, names = _one_against_rest_each(probabilities, labels, class_names, multi_label)
    return _areas_interval(problems, names, patient_numbers(patients, len(labels)), level)


def delong_test(
    one: np.ndarray,
    other: np.ndarray,
    positive: np.ndarray,
    *,
    patients: Sequence[Hashable] | None = None,
    level: float = LEVEL,
) -> MetricDifference:
    """Whether two scores of the same images have the same area under the ROC curve (DeLong et al. 1988).

    The difference over its standard error is compared with Student's t, whose degrees of freedom are few where few
    patients are on one side (:func:`~dual_skd.metrics.differences.influence_test`).

    Args:
        one: scores (N,) of the first method, larger for positives.
        other: those of the second, in the same order of images.
        positive: (N,), true or 1 for positives.
        patients: patient of each image, "" for an unknown one.
        level: of the interval.

    Returns:
        a :class:`~dual_skd.metrics.differences.MetricDifference`; the interval is within -1 and 1. Equal rankings
        differ by 0 with p 1, but two areas of 1 (or 0) leave no variance to estimate, as one does, and have no
        interval.

    Raises:
        InputError: shapes don't match, or scores aren't finite.
    """
    one, positive = _checked_scores(one, positive)
    other, _ = _checked_scores(other, positive)
    units = patient_numbers(patients, len(one))
    if positive.all() or not positive.any():
        return MetricDifference(None, None, reason=_missing(positive, "the positive class"))
    first, second = (area_influence(scores, positive, units) for scores in (one, other))
    found = influence_test(first, second, units, strata(np.stack([positive, ~positive], axis=1), units), level=level)
    if _fewest(positive, units) < 2:
        return replace(found, low=None, high=None, p=None, reason="no interval: fewer than two patients on one side")
    if found.low is None and first.value == second.value:
        if 0 < first.value < 1:
            return replace(found, low=0.0, high=0.0, p=1.0, reason="")
        return replace(found, p=None)
    return found


def _areas_interval(
    problems: Iterable[tuple[np.ndarray, np.ndarray]], names: Sequence[str], units: np.ndarray, level: float
) -> Estimate:
    """Mean area of one or more (scores, positive) of the same images."""
    total, limit, count = 0.0, 0.0, len(names)
    influence = np.zeros(len(units))
    few, undefined = [], []
    for (scores, positive), name in zip(problems, names, strict=True):
        if positive.all() or not positive.any():
            undefined.append((positive, name))
            continue
        area, part = _influence(scores, positive, units)
        total, influence = total + area / count, influence + part / count
        fewest = _fewest(positive, units)
        if fewest < 2:
            few.append(name)
        pairs = min(fewest, max((int(units.max()) + 1) // 2, 1))  # disjoint, each patient in one
        limit += lower_limit_of_all(pairs, 1 - (1 - level) / count) / count
    if undefined:
        more = f", and {len(undefined) - 1} more classes can't be compared" if len(undefined) > 1 else ""
        return Estimate(None, reason=_missing(*undefined[0]) + more)
    if abs(total - 1) < 1e-12:
        return Estimate(1.0, limit, 1.0, "every positive is above all negatives: exact limit for disjoint pairs")
    if abs(total) < 1e-12:
        return Estimate(0.0, 0.0, 1 - limit, "every positive is below all negatives: exact limit for disjoint pairs")
    if few:
        return Estimate(total, reason=f"no interval: fewer than two patients with or without {first_few(few)}")
    error = _standard_error(influence, units)
    if not error:
        return Estimate(total, reason="no interval: the scores leave no variance, as those of a constant do")
    middle, half = math.log(total / (1 - total)), normal_quantile(level) * error / (total * (1 - total))
    low, high = (1 / (1 + math.exp(-min(max(x, -700), 700))) for x in (middle - half, middle + half))
    return Estimate(total, low, high)


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


def _one_against_rest_each(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str] | None, multi_label: bool
) -> tuple[Iterator[tuple[np.ndarray, np.ndarray]], list[str]]:
    """Scores and truth of each class against all others, and the names."""
    p, labels = checked_predictions(probabilities, labels, multi_label)
    names = checked_class_names(class_names, p.shape[1])
    return ((p[:, k], labels[:, k] > 0 if multi_label else labels == k) for k in range(p.shape[1])), names


def _checked_scores(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, positive = checked_columns(scores=np.asarray(scores, dtype=float), truth=positive)
    return scores, checked_labels(positive, (len(positive), 2)) > 0
