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

from dual_skd.metrics.definitions import TABLE, Mean, Ratio, auc
from dual_skd.metrics.weighted import Predictions

_NOTHING = 1e-12  # standard errors below it are rounding


class Influence(NamedTuple):
    """A metric, and what each image adds to its error.

    Attributes:
        value: the metric; nan where it isn't defined.
        of_images: influence of each image (N,), with the small-sample factor of its side: n / (n - 1) for n patients.
        reach: how large the influence of each image (N,) can become, whatever is predicted; 0 for an image that the
            metric isn't measured on.
    """

    value: float
    of_images: np.ndarray
    reach: np.ndarray

    @property
    def rests_on(self) -> np.ndarray:
        """The images (N,) that the metric is measured on."""
        return self.reach > 0

    def per_unit(self, units: np.ndarray) -> np.ndarray:
        """What each independent unit, such as a patient, adds (U,)."""
        return np.bincount(units, weights=self.of_images)

    def standard_error(self, units: np.ndarray) -> float:
        """Of the metric, over independent units (N,) from :func:`~dual_skd.metrics.resampling.patient_numbers`."""
        error = float(np.sqrt(np.square(self.per_unit(units)).sum()))
        return error if error > _NOTHING else 0.0


def correlations(influences: Sequence[Influence], units: np.ndarray) -> np.ndarray:
    """Correlations between the errors of P metrics of the same images (P, P).

    Where one has no variance to estimate, it is that of the largest influences that the units can have: 0 for metrics
    that share no unit, 1 for the same metric, and for most pairs on the safe side. Few units say little of a
    correlation, two of them always 1 or -1. So one more unit counts that says 1.

    Args:
        influences: of the metrics.
        units: number of each image's patient (N,).
    """
    errors = np.stack([one.per_unit(units) for one in influences])
    largest = np.stack([np.bincount(units, weights=one.reach) for one in influences])
    known = np.linalg.norm(errors, axis=1) > _NOTHING
    fewer = np.minimum.outer(*[(largest > 0).sum(axis=1)] * 2)
    seen = (fewer * _cosines(errors) + 1) / (fewer + 1)
    possible = _cosines(largest)
    found = np.where(known[:, None] & known, np.where(possible > 0, seen, 0), possible)
    np.fill_diagonal(found, 1)
    return found


def _cosines(rows: np.ndarray) -> np.ndarray:
    """Of the angles between rows; 0 with a row of zeros."""
    lengths = np.linalg.norm(rows, axis=1)[:, None]
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > _NOTHING)
    return np.clip(unit @ unit.T, -1, 1)


def ratio_influence(numerator: np.ndarray, denominator: np.ndarray, units: np.ndarray) -> Influence:
    """Influence on a share or a mean: the sum of ``numerator`` over that of ``denominator``.

    Args:
        numerator: of each image (N,).
        denominator: of each image (N,), 0 for those that don't count.
        units: number of each image's patient (N,).
    """
    inside, total = denominator > 0, float(denominator.sum())
    if not total:
        return Influence(np.nan, np.zeros(len(units)), denominator)
    value = float(numerator.sum()) / total
    factor = _small_sample(inside, units)
    return Influence(
        value, (numerator - value * denominator) * factor / total, (denominator / total).astype(np.float32)
    )


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
    reach = (1 / np.where(positive, max(up, 1), max(down, 1))).astype(np.float32)
    if not (up and down):
        return Influence(np.nan, np.zeros(len(scores)), reach)
    ranks = rankdata(scores)
    placement = np.empty(len(scores))
    placement[positive] = (ranks[positive] - rankdata(scores[positive])) / down
    placement[~positive] = 1 - (ranks[~positive] - rankdata(scores[~positive])) / up
    area = float(placement[positive].mean())
    influence = placement - area
    for side, size in ((positive, up), (~positive, down)):
        influence[side] *= _small_sample(side, units) / size
    return Influence(area, influence, reach)


class Share(NamedTuple):
    """A share of trials: the influence on it, and the number of trials."""

    influence: Influence
    trials: float


def shares(predictions: Predictions, ratio: Ratio, units: np.ndarray) -> list[Share]:
    """The share of each class, or the only one of a metric over all classes.

    Args:
        predictions: of N images.
        ratio: what a success and what a trial is.
        units: number of each image's patient (N,).
    """
    counts = predictions.counts
    right, asked = np.broadcast_arrays(
        *(
            np.asarray(side(counts), dtype=float).reshape(len(units), -1)
            for side in (ratio.numerator, ratio.denominator)
        )
    )
    return [
        Share(ratio_influence(successes, trials, units), float(trials.sum()))
        for successes, trials in zip(right.T, asked.T, strict=True)
    ]


def class_influences(predictions: Predictions, name: str, units: np.ndarray) -> list[Influence] | None:
    """Influences on a metric of each class against the rest; None for a metric that has no formula here.

    Args:
        predictions: of N images.
        name: of a metric in :data:`~dual_skd.metrics.definitions.TABLE`.
        units: number of each image's patient (N,).
    """
    metric = TABLE[name].per_class
    if metric is auc:
        return [
            area_influence(scores, positive, units)
            for scores, positive in zip(predictions.probabilities.T, predictions.truth.T, strict=True)
        ]
    if isinstance(metric, Ratio):
        return [of_share(share.influence, metric) for share in shares(predictions, metric, units)]
    return None


def overall_influence(predictions: Predictions, name: str, units: np.ndarray) -> Influence | None:
    """Influence on a metric over all classes; None for a metric that has no formula here, such as an ECE.

    Args:
        predictions: of N images.
        name: of a metric in :data:`~dual_skd.metrics.definitions.TABLE`.
        units: number of each image's patient (N,).
    """
    metric = TABLE[name]
    if isinstance(metric.overall, Mean):
        parts = [class_influences(predictions, part, units) for part in metric.overall.names(predictions.multi_label)]
        return None if None in parts else mean_influence([part or [] for part in parts], metric.overall)
    if isinstance(metric.overall, Ratio):
        return of_share(shares(predictions, metric.overall, units)[0].influence, metric.overall)
    if metric.columns and not metric.raised_by_chance:
        values = metric.columns(predictions)[:, 0]
        return ratio_influence(values, np.ones(len(values)), units)
    return None


def of_share(share: Influence, ratio: Ratio) -> Influence:
    """Influence on the metric that follows from a share."""
    value = np.float64(share.value)
    return share._replace(value=float(ratio.of_share(value)), of_images=share.of_images * float(ratio.slope(value)))


def mean_influence(parts: Sequence[Sequence[Influence]], mean: Mean) -> Influence:
    """Influence on the mean over the K classes of P metrics.

    Args:
        parts: P lists of K influences.
        mean: which classes it is over.
    """
    flat = [part for of_metric in parts for part in of_metric]
    values = np.array([[part.value for part in of_metric] for of_metric in parts])
    weights = mean.weights(values)
    if np.isnan(weights).any():
        return Influence(np.nan, np.zeros_like(flat[0].reach), np.zeros_like(flat[0].reach))
    total, reach = (
        np.einsum("p,pn->n", weights.ravel(), np.stack([getattr(part, name) for part in flat]))
        for name in ("of_images", "reach")
    )
    return Influence(float((weights * np.nan_to_num(values)).sum()), total, reach)


def difference(one: Influence, other: Influence) -> Influence:
    """Influence on how much larger one metric is than another of the same images."""
    return Influence(one.value - other.value, one.of_images - other.of_images, one.reach + other.reach)


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


def patients_of(inside: np.ndarray, units: np.ndarray) -> int:
    """Number of patients that some of the images are of.

    Args:
        inside: which images (N,).
        units: number of each image's patient (N,).
    """
    return int(np.count_nonzero(np.bincount(units[inside])))


def _small_sample(inside: np.ndarray, units: np.ndarray) -> float:
    """sqrt(n / (n - 1)) for the n units that these images are of."""
    count = patients_of(inside, units)
    return float(np.sqrt(count / max(count - 1, 1)))
