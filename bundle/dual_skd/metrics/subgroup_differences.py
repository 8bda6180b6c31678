# SPDX-License-Identifier: Apache-2.0
"""How far groups of patients differ in a metric, with an interval of the difference.

The interval is made of the intervals of the two groups (MOVER, "method of variance estimates recovery"): Zou and
Donner, Statistics in Medicine 27 (2008) 1693. For two shares with Wilson's intervals it is method 10 of Newcombe,
Statistics in Medicine 17 (1998) 873; for correlated ones that of Newcombe, Statistics in Medicine 17 (1998) 2635.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.influence import class_influences, overall_influence
from dual_skd.metrics.intervals import BINARY_METRICS
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.score_intervals import mover_interval
from dual_skd.metrics.subgroups import UNKNOWN, Subgroup, group_names
from dual_skd.metrics.validation import checked_predictions
from dual_skd.metrics.weighted import Predictions


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
    related = np.array([[1, correlation], [correlation, 1]])
    low, high = mover_interval((one.value, other.value), (one.low, other.low), (one.high, other.high), (1, -1), related)
    return Estimate(difference, low, high)


def group_differences(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[Any],
    patients: Sequence[Hashable] | None,
    found: Mapping[str, Subgroup],
    *,
    positive: int = 1,
    multi_label: bool = False,
) -> tuple[GroupDifference, ...]:
    """Compares each group with the one that has the most patients, whose numbers are the surest.

    Patients are usually in one group, and the groups are independent. Where patients have images in both, the metrics
    of the two groups are correlated, as the influences of these patients on both say.

    Args:
        probabilities: (N, K), as :func:`~dual_skd.metrics.subgroups.subgroup_metrics` had them.
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        groups: the group of each image (N,).
        patients: patient of each image, "" for an unknown one.
        found: the groups, measured by ``subgroup_metrics`` without an operating point.
        positive: with two classes the positive one.
        multi_label: every label is a yes or no of its own.

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
            measured = [(Predictions(p[side], labels[side], None, None, multi_label), units[side]) for side in sides]
            together = {name: _correlation(name, measured, positive) for name in metrics}
        differences.append(GroupDifference(
            group.name, reference.name, shared, _too_small(group, reference),
            {name: mover_difference(group.metrics.overall[name], reference.metrics.overall[name], together.get(name, 0))
             for name in metrics},
        ))  # fmt: skip
    return tuple(differences)


def _too_small(group: Subgroup, reference: Subgroup) -> str:
    reasons = [f"{one.name}: {one.too_small}" for one in (group, reference) if one.too_small]
    return "; ".join(reasons)


def _correlation(name: str, measured: Sequence[tuple[Predictions, np.ndarray]], positive: int) -> float:
    """Between a metric of two groups; 0 for one whose influence isn't known, or that nothing varies in.

    Args:
        name: of the metric.
        measured: the predictions of each group, and the number of each image's patient.
        positive: the class that a metric of one class is of.
    """
    count = max(int(units.max()) for _, units in measured) + 1
    errors = []
    for predictions, units in measured:
        if name in BINARY_METRICS:
            of_classes = class_influences(predictions, name, units)
            influence = of_classes[positive] if of_classes else None
        else:
            influence = overall_influence(predictions, name, units)
        if influence is None:
            return 0.0
        errors.append(np.bincount(units, weights=influence.of_images, minlength=count))
    lengths = [float(np.linalg.norm(error)) for error in errors]
    return float(np.clip(errors[0] @ errors[1] / np.prod(lengths), -1, 1)) if all(lengths) else 0.0
