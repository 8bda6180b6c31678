# SPDX-License-Identifier: Apache-2.0
"""The metrics of every group of patients by itself: site, sex, scanner, view, any column of the data list."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dual_skd.errors import InputError
from dual_skd.metrics.intervals import Intervals, metric_intervals
from dual_skd.metrics.operating_point import OperatingPoint
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.validation import checked_class_names, checked_predictions
from dual_skd.utils.spelling import known_group
from dual_skd.utils.wording import counted, first_few

UNKNOWN = "unknown"
MINIMUM = 10


@dataclass(frozen=True)
class Subgroup:
    """One group of images and its metrics; ``dataclasses.asdict`` makes plain JSON of it.

    Attributes:
        name: value of the column; :data:`UNKNOWN` for those without one.
        images: number of images.
        patients: number of patients; images without a known one count as one each.
        class_images: number of images of each class.
        class_patients: number of patients with an image of each class, counted in the same way.
        too_small: why the numbers say little, or "" where they may be read.
        metrics: all metrics with their intervals.
    """

    name: str
    images: int
    patients: int
    class_images: tuple[int, ...]
    class_patients: tuple[int, ...]
    too_small: str
    metrics: Intervals


def subgroup_metrics(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[Any],
    patients: Sequence[Hashable] | None = None,
    *,
    minimum: int = MINIMUM,
    class_names: Sequence[str] | None = None,
    operating_point: OperatingPoint | None = None,
    multi_label: bool = False,
    unit: str = "image",
    **options: Any,
) -> dict[str, Subgroup]:
    """Measures each group of images by itself, with bootstrap intervals over its patients.

    Args:
        probabilities: (N, K), rows that sum to 1; with ``multi_label`` each number by itself.
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        groups: the group of each image (N,); None, nan, "" and "unknown" make up a group of their own.
        patients: patient of each image, "" for an unknown one.
        minimum: groups with fewer images or patients are marked as too small.
        class_names: names in the reasons, in the order of the probabilities.
        operating_point: see :func:`~dual_skd.metrics.intervals.metric_intervals`.
        multi_label: every label is a yes or no of its own.
        unit: what a row is, in the reasons: "image" or "patient".
        options: further options of :func:`~dual_skd.metrics.intervals.metric_intervals`.

    Returns:
        per name of a group a :class:`Subgroup`, in alphabetical order, the unknown last.

    Raises:
        InputError: not one group per image, or what ``metric_intervals`` refuses.
    """
    p, labels = checked_predictions(probabilities, labels, multi_label)
    if len(groups) != len(p):
        raise InputError(f"There are {len(p)} images, but {len(groups)} groups; give one value per image.")
    class_names = checked_class_names(class_names, p.shape[1])
    units = patient_numbers(patients, len(p))
    names = group_names(groups)
    found = {}
    for name in sorted(set(names), key=lambda name: (name == UNKNOWN, name)):
        inside = np.flatnonzero(names == name)
        metrics = metric_intervals(
            p[inside],
            labels[inside],
            units[inside].tolist(),
            class_names=class_names,
            operating_point=operating_point,
            multi_label=multi_label,
            **options,
        )
        of_class = [_of_class(labels[inside], k) for k in range(p.shape[1])]
        images = tuple(int(there.sum()) for there in of_class)
        of_patients = tuple(len(np.unique(units[inside][there])) for there in of_class)
        reason = _too_small(metrics, images, minimum, class_names, multi_label, unit)
        found[name] = Subgroup(name, metrics.images, metrics.patients, images, of_patients, reason, metrics)
    return found


def _of_class(labels: np.ndarray, k: int) -> np.ndarray:
    """Which images (N,) are of a class."""
    return labels[:, k] > 0 if labels.ndim == 2 else labels == k


def group_names(groups: Sequence[Any]) -> np.ndarray:
    """The group of each image (N,) as it is called; :data:`UNKNOWN` for those without one."""
    return np.array([_name(group) for group in groups], dtype=object)


def _name(group: Any) -> str:
    if group is None or (isinstance(group, float | np.floating) and np.isnan(group)):
        return UNKNOWN
    return known_group(str(group)) or UNKNOWN


def _too_small(
    metrics: Intervals, of_class: Sequence[int], minimum: int, class_names: Sequence[str], multi_label: bool, unit: str
) -> str:
    reasons = []
    if metrics.images < minimum:
        reasons.append(f"{counted(metrics.images, unit)}, fewer than {minimum}")
    elif metrics.patients < minimum:
        reasons.append(f"{counted(metrics.patients, 'patient')}, fewer than {minimum}")
    absent = [name for name, count in zip(class_names, of_class, strict=True) if not count]
    if absent:
        reasons.append(f"no {unit} of {first_few(absent)}")
    if multi_label and metrics.images in of_class:
        reasons.append(f"a label that every {unit} has")
    return "; ".join(reasons)
