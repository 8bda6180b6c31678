# SPDX-License-Identifier: Apache-2.0
"""How far groups of patients differ in a metric, with an interval of the difference.

The interval is made of the intervals of the two groups (MOVER, "method of variance estimates recovery"): Zou and
Donner, Statistics in Medicine 27 (2008) 1693. For two shares with Wilson's intervals it is method 10 of Newcombe,
Statistics in Medicine 17 (1998) 873; for correlated ones that of Newcombe, Statistics in Medicine 17 (1998) 2635.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dual_skd.metrics.bootstrap import BINARY_METRICS
from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.resampling import drawn_weights, patient_numbers
from dual_skd.metrics.subgroups import UNKNOWN, Subgroup, group_names
from dual_skd.metrics.validation import checked_predictions
from dual_skd.metrics.weighted import WeightedMetrics

FEWEST_RESAMPLES = 50  # in which both groups define a metric; of fewer no correlation is taken


@dataclass(frozen=True)
class GroupDifference:
    """A group minus the reference, metric by metric; ``dataclasses.asdict`` makes plain JSON of it.

    Attributes:
        name: of the group.
        reference: name of the group with the most patients.
        shared_patients: number of patients with images in both.
        too_small: why the numbers say little, or "" where they may be read.
        metrics: the differences with their intervals.
    """

    name: str
    reference: str
    shared_patients: int
    too_small: str
    metrics: dict[str, Estimate]


def mover_difference(one: Estimate, other: Estimate, correlation: float = 0.0) -> Estimate:
    """The difference ``one`` - ``other`` of two estimates, its interval from those of the two.

    Args:
        one: with any interval.
        other: with any interval of the same level.
        correlation: between the two; 0 for independent groups.

    Returns:
        an estimate; without an interval where one of the two has none, and then with the reason.

    Example:
        >>> found = mover_difference(Estimate(0.8, 0.7, 0.9), Estimate(0.5, 0.4, 0.7))
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
        (0.3, 0.076, 0.441)
    """
    if one.value is None or other.value is None:
        return Estimate(None, reason=one.reason if one.value is None else other.reason)
    difference = one.value - other.value
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return Estimate(difference, reason=one.reason if one.low is None else other.reason)
    below = _joined(one.value - one.low, other.high - other.value, correlation)
    above = _joined(one.high - one.value, other.value - other.low, correlation)
    return Estimate(difference, difference - below, difference + above)


def _joined(one: float, other: float, correlation: float) -> float:
    """Distance of a limit from the difference, from the distances of two limits from their values."""
    return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))


def group_differences(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[Any],
    patients: Sequence[Hashable] | None,
    found: Mapping[str, Subgroup],
    *,
    positive: int = 1,
    multi_label: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[GroupDifference, ...]:
    """Compares each group with the one that has the most patients, whose numbers are the surest.

    Patients are usually in one group, and the groups are independent. Where patients have images in both, the metrics
    of the two groups are correlated; that correlation is measured over resamples of whole patients.

    Args:
        probabilities: (N, K), as :func:`~dual_skd.metrics.subgroups.subgroup_metrics` had them.
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        groups: the group of each image (N,).
        patients: patient of each image, "" for an unknown one.
        found: the groups, measured by ``subgroup_metrics`` without an operating point.
        positive: with two classes the positive one.
        multi_label: every label is a yes or no of its own.
        resamples: number of resamples for a correlation.
        seed: of the resampling.

    Returns:
        a :class:`GroupDifference` for each known group but the reference; none with fewer than two known groups.
    """
    p, labels = checked_predictions(probabilities, labels, multi_label)
    units, names = patient_numbers(patients, len(p)), group_names(groups)
    known = [group for group in found.values() if group.name != UNKNOWN]
    if len(known) < 2:
        return ()
    reference = max(known, key=lambda group: group.patients)
    differences = []
    for group in known:
        if group is reference:
            continue
        sides = [np.flatnonzero(names == side.name) for side in (group, reference)]
        shared = len(np.intersect1d(units[sides[0]], units[sides[1]]))
        metrics = [name for name in group.metrics.overall if name in reference.metrics.overall]
        together: dict[str, float] = {}
        if shared:
            together = _correlations(p, labels, units, sides, metrics, positive, multi_label, resamples, seed)
        differences.append(GroupDifference(
            group.name, reference.name, shared, _too_small(group, reference),
            {name: mover_difference(group.metrics.overall[name], reference.metrics.overall[name], together.get(name, 0))
             for name in metrics},
        ))  # fmt: skip
    return tuple(differences)


def _too_small(group: Subgroup, reference: Subgroup) -> str:
    reasons = [f"{one.name}: {one.too_small}" for one in (group, reference) if one.too_small]
    return "; ".join(reasons)


def _correlations(
    p: np.ndarray, labels: np.ndarray, units: np.ndarray, sides: Sequence[np.ndarray], metrics: Sequence[str],
    positive: int, multi_label: bool, resamples: int, seed: int,
) -> dict[str, float]:  # fmt: skip
    """The correlation of each metric between two groups, over resamples of the patients of both."""
    both = np.concatenate(sides)
    _, own = np.unique(units[both], return_inverse=True)
    measures = [WeightedMetrics(p[side], labels[side], metrics, multi_label=multi_label) for side in sides]
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    for weights in drawn_weights(np.random.default_rng(seed), own, resamples):
        parts = np.split(weights, [len(sides[0])], axis=1)
        values = [measure(part) for measure, part in zip(measures, parts, strict=True)]
        for name in metrics:
            of_class = name in BINARY_METRICS
            pairs = [one.per_class[name][:, positive] if of_class else one.overall[name] for one in values]
            drawn[name].append(np.stack(pairs))
    return {name: _correlation(np.concatenate(pairs, axis=1)) for name, pairs in drawn.items()}


def _correlation(pairs: np.ndarray) -> float:
    """Pearson's correlation of two rows, where both are numbers; 0 where too few are, or one never changes."""
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if pairs.shape[1] < FEWEST_RESAMPLES or (np.ptp(pairs, axis=1) == 0).any():
        return 0.0
    return float(np.corrcoef(pairs)[0, 1])
