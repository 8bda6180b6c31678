# SPDX-License-Identifier: Apache-2.0
"""The paired test of two areas under ROC curves, without resampling.

DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44:837) write the variance of an area by the placements of its
images: for a positive the share of negatives that it beats, for a negative the share of positives that beat it. These
are the influences of :func:`~dual_skd.metrics.influence.area_influence`; those on a difference are their differences,
and added up per patient they give the variance over patients (Obuchowski 1997, Biometrics 53:567).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from dual_skd.metrics.differences import MetricDifference, influence_test
from dual_skd.metrics.estimates import LEVEL
from dual_skd.metrics.influence import area_influence, strata
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.validation import checked_columns, checked_labels
from dual_skd.utils.former_names import renamed

__getattr__ = renamed(__name__, AreaDifference="dual_skd.metrics.differences.MetricDifference")


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
    sides = np.stack([positive, ~positive], axis=1)
    if positive.all() or not positive.any():
        which = "every image is" if positive.all() else "no image"
        return MetricDifference(None, None, reason=f"{which} of the positive class")
    first, second = (area_influence(scores, positive, units) for scores in (one, other))
    found = influence_test(first, second, units, strata(sides, units), level=level)
    if min(len(np.unique(units[side])) for side in sides.T) < 2:
        return replace(found, low=None, high=None, p=None, reason="no interval: fewer than two patients on one side")
    if found.low is None and first.value == second.value:
        if 0 < first.value < 1:
            return replace(found, low=0.0, high=0.0, p=1.0, reason="")
        return replace(found, p=None)
    return found


def _checked_scores(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, positive = checked_columns(scores=np.asarray(scores, dtype=float), truth=positive)
    return scores, checked_labels(positive, (len(positive), 2)) > 0
