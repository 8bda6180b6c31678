# SPDX-License-Identifier: Apache-2.0
"""What each image adds to the error of a metric: variances over patients, their doubt, and correlations, without draws.

The influence of an image is the derivative of the metric by the image's weight (Hampel 1974, J Am Stat Assoc 69:383).
Added up per patient and squared, influences are the variance over patients: for shares and means the sandwich variance
of ratios (Cochran, Sampling Techniques, 1977, section 6.3), for areas under ROC curves that of DeLong et al. 1988
(Biometrics 44:837), of patients as in Obuchowski 1997 (Biometrics 53:567). The influence on a mean or a difference of
metrics is the mean or difference of the influences.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from dual_skd.metrics.definitions import TABLE, Ratio
from dual_skd.metrics.weighted import Predictions

_NOTHING = 1e-12  # standard errors below it are rounding


class Influence(NamedTuple):
    """A metric, and what each image adds to its error.

    Attributes:
        value: the metric; nan where it isn't defined.
        of_images: influence of each image (N,), with the small-sample factor of its side: n / (n - 1) for n patients.
        rests_on: the images (N,) that it is measured on.
    """

    value: float
    of_images: np.ndarray
    rests_on: np.ndarray

    def per_unit(self, units: np.ndarray) -> np.ndarray:
        """What each independent unit, such as a patient, adds (U,)."""
        return np.bincount(units, weights=self.of_images)

    def standard_error(self, units: np.ndarray) -> float:
        """Of the metric, over independent units (N,) from :func:`~dual_skd.metrics.resampling.patient_numbers`."""
        error = float(np.sqrt(np.square(self.per_unit(units)).sum()))
        return error if error > _NOTHING else 0.0

    def correlation(self, other: Influence, units: np.ndarray) -> float:
        """With the error of another metric of the same images.

        Where one has no variance to estimate: 0 if no unit is part of both, else 1, which is on the safe side for a
        mean of them.
        """
        one, two = self.standard_error(units), other.standard_error(units)
        if one and two:
            return float(np.clip(self.per_unit(units) @ other.per_unit(units) / (one * two), -1, 1))
        return float(np.intersect1d(units[self.rests_on], units[other.rests_on]).size > 0)


def ratio_influence(numerator: np.ndarray, denominator: np.ndarray, units: np.ndarray) -> Influence:
    """Influence on a share or a mean: the sum of ``numerator`` over that of ``denominator``.

    Args:
        numerator: of each image (N,).
        denominator: of each image (N,), 0 for those that don't count.
        units: number of each image's patient (N,).
    """
    inside, total = denominator > 0, float(denominator.sum())
    if not total:
        return Influence(np.nan, np.zeros(len(units)), inside)
    value = float(numerator.sum()) / total
    factor = _small_sample(inside, units)
    return Influence(value, (numerator - value * denominator) * factor / total, inside)


def area_influence(scores: np.ndarray, positive: np.ndarray, units: np.ndarray) -> Influence:
    """Influence on the area under the ROC curve, ties counting half.

    A positive's placement is the share of negatives that it beats, a negative's the share of positives that beat it;
    mid-ranks give all of them in O(n log n) (Sun and Xu 2014, IEEE Signal Processing Letters 21:1389).

    Args:
        scores: (N,), larger for positives.
        positive: (N,), true for positives.
        units: number of each image's patient (N,).
    """
    up, down = int(positive.sum()), int((~positive).sum())
    everything = np.ones(len(scores), dtype=bool)
    if not (up and down):
        return Influence(np.nan, np.zeros(len(scores)), everything)
    ranks = rankdata(scores)
    placement = np.empty(len(scores))
    placement[positive] = (ranks[positive] - rankdata(scores[positive])) / down
    placement[~positive] = 1 - (ranks[~positive] - rankdata(scores[~positive])) / up
    area = float(placement[positive].mean())
    influence = placement - area
    for side, size in ((positive, up), (~positive, down)):
        influence[side] *= _small_sample(side, units) / size
    return Influence(area, influence, everything)


def class_influences(predictions: Predictions, name: str, units: np.ndarray) -> list[Influence] | None:
    """Influences on a metric of each class against the rest; None for a metric that has no formula here.

    Args:
        predictions: of N images.
        name: ``auc``, or a metric of :data:`~dual_skd.metrics.definitions.TABLE` whose ``per_class`` is a ratio.
        units: number of each image's patient (N,).
    """
    if name == "auc":
        return [
            area_influence(scores, positive, units)
            for scores, positive in zip(predictions.probabilities.T, predictions.truth.T, strict=True)
        ]
    ratio = TABLE[name].per_class
    if not isinstance(ratio, Ratio):
        return None
    counts = predictions.counts
    numerator, denominator = ratio.numerator(counts), np.broadcast_to(ratio.denominator(counts), counts.both.shape)
    return [_of_ratio(ratio, *columns, units) for columns in zip(numerator.T, denominator.T, strict=True)]


def overall_influence(predictions: Predictions, name: str, units: np.ndarray) -> Influence | None:
    """Influence on a metric over all classes; None for a metric that has no formula here, such as an ECE.

    Args:
        predictions: of N images.
        name: of a metric in :data:`~dual_skd.metrics.definitions.TABLE`.
        units: number of each image's patient (N,).
    """
    metric = TABLE[name]
    if metric.means:
        return mean_influence(parts_of_mean(predictions, name, units), all_needed=name == "macro_auc")
    if isinstance(metric.overall, Ratio):
        counts = predictions.counts
        return _of_ratio(metric.overall, metric.overall.numerator(counts), metric.overall.denominator(counts), units)
    if metric.columns and not metric.raised_by_chance:
        values = metric.columns(predictions)[:, 0]
        return ratio_influence(values, np.ones(len(values)), units)
    return None


def parts_of_mean(predictions: Predictions, name: str, units: np.ndarray) -> list[Influence]:
    """The influences on the metrics of single classes whose mean a metric over all classes is."""
    metric = TABLE[name]
    names = (predictions.multi_label and metric.means_of_labels) or metric.means
    return [part for each in names for part in class_influences(predictions, each, units) or ()]


def mean_influence(parts: Sequence[Influence], *, all_needed: bool = False) -> Influence:
    """Influence on the mean of metrics, of those that are defined.

    Args:
        parts: one or more, of the same images.
        all_needed: whether the mean is undefined where one of them is.
    """
    defined = [part for part in parts if np.isfinite(part.value)]
    rests_on = np.any([part.rests_on for part in parts], axis=0)
    if not defined or (all_needed and len(defined) < len(parts)):
        return Influence(np.nan, np.zeros(len(rests_on)), rests_on)
    values, influences = ([getattr(part, name) for part in defined] for name in ("value", "of_images"))
    return Influence(float(np.mean(values)), np.mean(influences, axis=0), rests_on)


def difference(one: Influence, other: Influence) -> Influence:
    """Influence on how much larger one metric is than another of the same images."""
    return Influence(one.value - other.value, one.of_images - other.of_images, one.rests_on | other.rests_on)


def strata(truth: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Number of the kind of each unit (U,): which classes its images are of.

    Args:
        truth: (N, K), whether an image is of a class.
        units: number of each image's patient (N,).
    """
    has = np.zeros((int(units.max()) + 1, truth.shape[1]), dtype=bool)
    np.logical_or.at(has, units, truth)
    return np.unique(has, axis=0, return_inverse=True)[1].reshape(-1)


def degrees_of_freedom(influence: Influence, units: np.ndarray, kinds: np.ndarray) -> float:
    """Degrees of freedom of a variance that is the sum over kinds of units (Satterthwaite 1946, Biometrics Bulletin 2).

    The kinds are like the two groups of Welch's test: with five ill patients, whose part of the variance is large, and
    400 well ones, it is near 4.

    Args:
        influence: on a metric, or on a difference of two.
        units: number of each image's patient (N,).
        kinds: of each unit (U,), from :func:`strata`.

    Returns:
        a number of at least 1; infinite where there is no variance.
    """
    parts = np.bincount(kinds, weights=np.square(influence.per_unit(units)))
    taking_part = np.zeros(len(kinds), dtype=bool)
    taking_part[units[influence.rests_on]] = True
    sizes = np.bincount(kinds[taking_part], minlength=len(parts))
    spread = float((np.square(parts) / np.maximum(sizes - 1, 1)).sum())
    return max(float(parts.sum()) ** 2 / spread, 1.0) if spread > 0 else np.inf


def _of_ratio(ratio: Ratio, numerator: np.ndarray, denominator: np.ndarray, units: np.ndarray) -> Influence:
    share = ratio_influence(numerator, denominator, units)
    value = np.float64(share.value)
    return Influence(float(ratio.of_share(value)), share.of_images * float(ratio.slope(value)), share.rests_on)


def _small_sample(inside: np.ndarray, units: np.ndarray) -> float:
    """sqrt(n / (n - 1)) for the n units that these images are of."""
    count = int(np.count_nonzero(np.bincount(units[inside])))
    return float(np.sqrt(count / max(count - 1, 1)))
