# SPDX-License-Identifier: Apache-2.0
"""The classification metrics: each is one function, and one line of :data:`TABLE`.

A metric is measured under R weightings of the images at once. A bootstrap resample is such a weighting: how often each
image was drawn. The metric of the images as they are has weights of one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from dual_skd.errors import InputError
from dual_skd.options.choices import Metric as MetricName

if TYPE_CHECKING:
    from dual_skd.metrics.weighted import Counts, Predictions, WeightedImages

METRICS = get_args(MetricName)  # those of every evaluation, any of which may choose the epoch
TINY = 1e-300  # stands for a probability or a sum of 0 where one divides by it or takes its logarithm


def _itself(share: np.ndarray) -> np.ndarray:
    return share


@dataclass(frozen=True)
class Ratio:
    """A share of images, or what follows from one: a metric whose intervals need no resampling.

    Attributes:
        numerator: what of the counts is a success.
        denominator: what is a trial.
        of_share: the metric from the share, growing with it and 0 to 1 as it is.
        slope: derivative of ``of_share``.
    """

    numerator: Callable[[Counts], np.ndarray]
    denominator: Callable[[Counts], np.ndarray]
    of_share: Callable[[np.ndarray], np.ndarray] = _itself
    slope: Callable[[np.ndarray], np.ndarray] = np.ones_like

    def __call__(self, images: WeightedImages) -> np.ndarray:
        """The metric (R, ...) of weighted images, nan without any trial."""
        return self.of_share(divided(self.numerator(images.counts), self.denominator(images.counts)))


@dataclass(frozen=True)
class Mean:
    """The mean over the classes of one or more metrics of each class.

    Attributes:
        metrics: names of the metrics of each class.
        of_labels: those with several labels per image, where they are others.
        all_needed: whether it is undefined where a class has no value; else the mean is over those that have one.
    """

    metrics: tuple[str, ...]
    of_labels: tuple[str, ...] = ()
    all_needed: bool = False

    def names(self, multi_label: bool) -> tuple[str, ...]:
        """Of the metrics of each class."""
        return (multi_label and self.of_labels) or self.metrics

    def weights(self, values: np.ndarray) -> np.ndarray:
        """Weights of P metrics of K classes in the mean, of the shape of the values (P, ..., K); nan where undefined.

        A class's metrics count alike, and so do the classes.
        """
        known = np.isfinite(values)
        of_class = divided(known.astype(float), known.sum(axis=0))
        weights = np.nan_to_num(of_class) / np.maximum(known.any(axis=0).sum(axis=-1), 1)[..., None]
        undefined = ~(known.all(axis=(0, -1)) if self.all_needed else known.any(axis=(0, -1)))
        return np.where(undefined[..., None], np.nan, weights)

    def __call__(self, images: WeightedImages) -> np.ndarray:
        """The mean (R,) of weighted images."""
        values = np.stack([_of_classes(name, images) for name in self.names(images.predictions.multi_label)])
        return (self.weights(values) * np.nan_to_num(values)).sum(axis=(0, -1))


@dataclass(frozen=True)
class Combination:
    """A function of two metrics of the same class that grows with both.

    Attributes:
        metrics: names of the two.
        of: the function.
    """

    metrics: tuple[str, str]
    of: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def __call__(self, images: WeightedImages) -> np.ndarray:
        """The function (R, K) of weighted images."""
        return self.of(*(_of_classes(name, images) for name in self.metrics))


def _one(predictions: Predictions) -> float:
    return 1.0


class Metric(NamedTuple):
    """How a metric is measured: as a mean over images, by ``columns``, or by functions of the weighted images.

    The intervals of a :class:`Ratio`, of areas under ROC curves, and of a :class:`Mean` or :class:`Combination` of them
    follow from formulas; those of any other function need resampling.

    Attributes:
        overall: the value (R,) over all classes.
        per_class: the values (R, K) of each class against the rest.
        columns: numbers (N, F) whose weighted means, in absolute value and added up, are the value over all classes.
        largest: the largest value that it can have for some predictions.
        lower_is_better: what its name says.
        by_rank: it needs the order of the images by score, which makes resampling slow.
        raised_by_chance: chance can only raise it, and raises it again in every resample.
    """

    overall: Callable[[WeightedImages], np.ndarray] | None = None
    per_class: Callable[[WeightedImages], np.ndarray] | None = None
    columns: Callable[[Predictions], np.ndarray] | None = None
    largest: Callable[[Predictions], float] = _one
    lower_is_better: bool = False
    by_rank: bool = False
    raised_by_chance: bool = False


def _of_classes(name: str, images: WeightedImages) -> np.ndarray:
    of_classes = TABLE[name].per_class
    if of_classes is None:
        raise InputError(f"{name} has no values of single classes.")
    return of_classes(images)


def _right(counts: Counts) -> np.ndarray:
    """Images whose class is predicted; with several labels the labels, there or not, that are."""
    if counts.multi_label:
        return (counts.total + 2 * counts.both - counts.there - counts.called).sum(axis=1)
    return counts.both.sum(axis=1)


def _asked(counts: Counts) -> np.ndarray:
    """Images; with several labels the labels of all images."""
    return counts.total[:, 0] * (counts.both.shape[1] if counts.multi_label else 1)


def _neither(counts: Counts) -> np.ndarray:
    """The other images that are not predicted as the class."""
    return counts.total - counts.there - counts.called + counts.both


accuracy = Ratio(_right, _asked)  # share of the images, or labels, that are right
sensitivity = Ratio(lambda counts: counts.both, lambda counts: counts.there)  # recall
specificity = Ratio(_neither, lambda counts: counts.total - counts.there)
ppv = Ratio(lambda counts: counts.both, lambda counts: counts.called)  # precision
npv = Ratio(_neither, lambda counts: counts.total - counts.called)
class_f1 = (
    Ratio(  # 2 J / (1 + J), J being the share of images that are both among those that are one or the other (Jaccard)
        lambda counts: counts.both,
        lambda counts: counts.there + counts.called - counts.both,
        lambda share: 2 * share / (1 + share),
        lambda share: 2 / np.square(1 + share),
    )
)


balanced_accuracy = Mean(("sensitivity",), ("sensitivity", "specificity"))  # over the classes present
f1 = Mean(("f1",))  # over the classes that are present or predicted


def _harmonic(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """2 / (1 / one + 1 / other), 0 where one of them is 0."""
    return 2 * one * other / np.maximum(one + other, TINY)


harmonic_mean = Combination(("sensitivity", "specificity"), _harmonic)
macro_auc = Mean(("auc",), all_needed=True)  # undefined where a class has no image or no counter-example
macro_average_precision = Mean(("average_precision",), all_needed=True)


def auc(images: WeightedImages) -> np.ndarray:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half (Hanley 1982)."""
    return images.areas


def average_precision(images: WeightedImages) -> np.ndarray:
    """Step-wise area under the precision-recall curve, without interpolation."""
    return images.precisions


def nll(predictions: Predictions) -> np.ndarray:
    """Negative log likelihood in nats; with several labels the mean over them."""
    return -predictions.log_likelihood.mean(axis=1, keepdims=True)


def brier(predictions: Predictions) -> np.ndarray:
    """Squared error: of two classes that of the risk of one of them, 0 to 1, as clinical readers know it.

    Of more classes the sum over them, 0 to 2 (Brier 1950); of several labels the mean over them, 0 to 1.
    """
    p = predictions.probabilities
    if predictions.multi_label:
        return np.square(p - predictions.truth).mean(axis=1, keepdims=True)
    truth = p[predictions.truth]
    summed = np.square(p).sum(axis=1) - np.square(truth) + np.square(1 - truth)
    return (summed / 2 if p.shape[1] == 2 else summed)[:, None]  # both classes are off by the same


def _largest_nll(predictions: Predictions) -> float:
    return -math.log(TINY)


def _largest_brier(predictions: Predictions) -> float:
    return 2.0 if predictions.probabilities.shape[1] > 2 and not predictions.multi_label else 1.0


def ece(predictions: Predictions) -> np.ndarray:
    """Expected calibration error in 15 bins of equal width (Guo 2017)."""
    return predictions.calibration_gaps(equal_mass=False)


def ece_equal_mass(predictions: Predictions) -> np.ndarray:
    """The same in bins of equal numbers of images (Nguyen and O'Connor 2015): those of the images as they are."""
    return predictions.calibration_gaps(equal_mass=True)


TABLE = {
    "accuracy": Metric(accuracy),
    "balanced_accuracy": Metric(balanced_accuracy),
    "f1": Metric(f1, class_f1),
    "sensitivity": Metric(per_class=sensitivity),
    "specificity": Metric(per_class=specificity),
    "ppv": Metric(per_class=ppv),
    "npv": Metric(per_class=npv),
    "harmonic_mean": Metric(per_class=harmonic_mean),
    "ece": Metric(columns=ece, lower_is_better=True, raised_by_chance=True),
    "nll": Metric(columns=nll, largest=_largest_nll, lower_is_better=True),
    "brier": Metric(columns=brier, largest=_largest_brier, lower_is_better=True),
    "ece_equal_mass": Metric(columns=ece_equal_mass, lower_is_better=True, raised_by_chance=True),
    "macro_auc": Metric(macro_auc, by_rank=True),
    "auc": Metric(per_class=auc, by_rank=True),
    "average_precision": Metric(macro_average_precision, average_precision, by_rank=True),
}
OVERALL_METRICS = tuple(name for name, metric in TABLE.items() if metric.overall or metric.columns)
CLASS_METRICS = tuple(name for name, metric in TABLE.items() if metric.per_class)
CALIBRATION_ERRORS = tuple(name for name, metric in TABLE.items() if metric.raised_by_chance)
LOWER_IS_BETTER = tuple(name for name, metric in TABLE.items() if metric.lower_is_better)


def check_names(metrics: Sequence[str], valid: Sequence[str] = ()) -> None:
    """Raises an ``InputError`` with the valid names, by default all, if one of ``metrics`` isn't among them."""
    valid = valid or tuple(TABLE)
    if unknown := [name for name in metrics if name not in valid]:
        raise InputError(f"Unknown metrics {', '.join(unknown)}; valid: {', '.join(valid)}.")


def divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, nan where the denominator isn't positive."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
