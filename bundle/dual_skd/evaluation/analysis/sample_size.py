# SPDX-License-Identifier: Apache-2.0
"""How many patients a next study needs, if it finds the values that these images have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dual_skd.evaluation.analysis.predictions import Predictions
from dual_skd.metrics.design_effect import design_effect
from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.influence import area_influence
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.sample_size import images_for_auc, images_for_share


@dataclass(frozen=True)
class Needed:
    """Patients that a metric of one class against the rest needs for an interval of the half width.

    Attributes:
        class_name: of the class.
        metric: sensitivity, specificity or auc.
        value: of these images, and expected of the next ones.
        design_effect: how many images of these patients say as much as one independent image.
        with_class: patients with the class; None where they don't matter.
        without_class: patients without it.
        careful_with: patients with the class, if the true value is the limit of the interval here that needs most.
        careful_without: patients without it, in that case.
        reason: why there is no number.
    """

    class_name: str
    metric: str
    value: float | None = None
    design_effect: float | None = None
    with_class: int | None = None
    without_class: int | None = None
    careful_with: int | None = None
    careful_without: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class SampleSize:
    """The patients that a next study needs, see :class:`Needed`."""

    half_width: float
    patients_known: bool  # whether patients are counted, or images
    needed: tuple[Needed, ...]  # three of each class


def sample_size_of(predictions: Predictions, half_width: float) -> SampleSize:
    """Patients of each class that a next study needs for intervals of sensitivity, specificity and AUC.

    It is planned for as many images per patient as here, and for images that are as alike: the number of independent
    images times the design effect (Kish 1965), divided by the images of a patient.

    Args:
        predictions: of the images that the values are of.
        half_width: of the intervals, half of the distance between the limits.
    """
    measured = predictions.intervals(metrics=("sensitivity", "specificity", "auc")).per_class
    needed = [one for k in predictions.frequent_classes() for one in _of_class(predictions, k, half_width, measured[k])]
    return SampleSize(half_width, any(predictions.patients), tuple(needed))


def _of_class(predictions: Predictions, k: int, half_width: float, measured: Mapping[str, Estimate]) -> list[Needed]:
    name, positive, level = predictions.class_names[k], predictions.positives(k), predictions.settings.level
    units = patient_numbers(predictions.patients, len(positive))
    if positive.all() or not positive.any():
        reason = f"{'every' if positive.all() else 'no'} image is of {name}"
        return [Needed(name, metric, reason=reason) for metric in ("sensitivity", "specificity", "auc")]
    p = predictions.probabilities
    called = p[:, k] > 0.5 if predictions.multi_label else p.argmax(axis=1) == k
    rows = []
    for metric, side, right in (("sensitivity", positive, called), ("specificity", ~positive, ~called)):
        share = float(right[side].mean())
        effect = design_effect(right[side] - share, units[side])
        patients, careful = (
            _patients(images_for_share(one, half_width, level), effect, units[side])
            for one in (share, _hardest(measured[metric], share))
        )
        if side is positive:
            rows.append(Needed(name, metric, share, effect, with_class=patients, careful_with=careful))
        else:
            rows.append(Needed(name, metric, share, effect, without_class=patients, careful_without=careful))
    influence = area_influence(p[:, k], positive, np.arange(len(positive)))
    area, effect = influence.value, design_effect(influence.of_images, units)
    both = [
        _patients(one, effect, units[side])
        for value in (area, _hardest(measured["auc"], area))
        for one, side in zip(
            images_for_auc(value, half_width, float(positive.mean()), level), (positive, ~positive), strict=True
        )
    ]
    return [*rows, Needed(name, "auc", area, effect, both[0], both[1], both[2], both[3])]


def _hardest(measured: Estimate, value: float) -> float:
    """The value within an interval that needs most images: the nearest to one half."""
    low, high = (value if limit is None else limit for limit in (measured.low, measured.high))
    return min(max(0.5, low), high)


def _patients(images: int, effect: float, units: np.ndarray) -> int:
    """Patients with as many images each as these (n,), for so many independent images."""
    return math.ceil(images * effect * len(np.unique(units)) / len(units) - 1e-9)
