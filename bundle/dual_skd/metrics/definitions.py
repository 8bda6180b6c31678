# SPDX-License-Identifier: Apache-2.0
"""The classification metrics: each is one function, and one line of :data:`TABLE`.

A metric is measured under R weightings of the images at once. A bootstrap resample is such a weighting: how often each
image was drawn. The metric of the images as they are has weights of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from dual_skd.errors import InputError
from dual_skd.options.choices import Metric as MetricName

if TYPE_CHECKING:
    from dual_skd.metrics.weighted import Predictions, WeightedImages

METRICS = get_args(MetricName)  # those of every evaluation, any of which may choose the epoch
TINY = 1e-300  # stands for a probability or a sum of 0 where one divides by it or takes its logarithm


class Metric(NamedTuple):
    """How a metric is measured: as a mean over images, by ``columns``, or by functions of the weighted images.

    Attributes:
        overall: the value (R,) over all classes.
        per_class: the values (R, K) of each class against the rest.
        columns: numbers (N, F) whose weighted means, in absolute value and added up, are the value over all classes.
        lower_is_better: what its name says.
        by_rank: it needs the order of the images by score, which makes resampling slow.
        raised_by_chance: chance can only raise it, and raises it again in every resample.
    """

    overall: Callable[[WeightedImages], np.ndarray] | None = None
    per_class: Callable[[WeightedImages], np.ndarray] | None = None
    columns: Callable[[Predictions], np.ndarray] | None = None
    lower_is_better: bool = False
    by_rank: bool = False
    raised_by_chance: bool = False


def accuracy(images: WeightedImages) -> np.ndarray:
    """Share of the images whose class is predicted; with several labels the share of labels."""
    both, there, called, total = images.counts
    if images.predictions.multi_label:
        labels = total[:, 0] * both.shape[1]
        return (labels + (2 * both - there - called).sum(axis=1)) / labels
    return both.sum(axis=1) / total[:, 0]


def balanced_accuracy(images: WeightedImages) -> np.ndarray:
    """Mean sensitivity of the classes present; with several labels the mean of sensitivity and specificity."""
    if not images.predictions.multi_label:
        return mean_of_defined(sensitivity(images))  # a class that was not drawn doesn't count
    return mean_of_defined(np.stack([sensitivity(images), specificity(images)]), axis=0).mean(axis=1)


def f1(images: WeightedImages) -> np.ndarray:
    """Mean F1 of the classes that are present or predicted."""
    return mean_of_defined(class_f1(images))


def class_f1(images: WeightedImages) -> np.ndarray:
    """Harmonic mean of sensitivity and positive predictive value."""
    both, there, called, _ = images.counts
    return divided(2 * both, there + called)


def sensitivity(images: WeightedImages) -> np.ndarray:
    """Share of a class's images that are predicted as it: recall."""
    both, there, _, _ = images.counts
    return divided(both, there)


def specificity(images: WeightedImages) -> np.ndarray:
    """Share of the other images that are not predicted as the class."""
    both, there, called, total = images.counts
    return divided(total - there - called + both, total - there)


def ppv(images: WeightedImages) -> np.ndarray:
    """Positive predictive value, the share of right ones among the images predicted as the class: precision."""
    both, _, called, _ = images.counts
    return divided(both, called)


def npv(images: WeightedImages) -> np.ndarray:
    """Negative predictive value, the share of right ones among the images predicted as another class."""
    both, there, called, total = images.counts
    return divided(total - there - called + both, total - called)


def harmonic_mean(images: WeightedImages) -> np.ndarray:
    """2 / (1/sensitivity + 1/specificity), 0 where one of them is 0."""
    one, other = sensitivity(images), specificity(images)
    return 2 * one * other / np.maximum(one + other, TINY)


def auc(images: WeightedImages) -> np.ndarray:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half (Hanley 1982)."""
    return images.areas


def macro_auc(images: WeightedImages) -> np.ndarray:
    """Mean area over the classes, undefined where a class has no image or no counter-example."""
    return auc(images).mean(axis=1)


def average_precision(images: WeightedImages) -> np.ndarray:
    """Step-wise area under the precision-recall curve, without interpolation."""
    return images.precisions


def macro_average_precision(images: WeightedImages) -> np.ndarray:
    """Mean average precision over the classes."""
    return average_precision(images).mean(axis=1)


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
    "nll": Metric(columns=nll, lower_is_better=True),
    "brier": Metric(columns=brier, lower_is_better=True),
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


def mean_of_defined(values: np.ndarray, axis: int = 1) -> np.ndarray:
    """Mean of the values that are numbers, nan without any."""
    known = np.isfinite(values)
    return divided(np.where(known, values, 0).sum(axis=axis), known.sum(axis=axis))


def divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, nan where the denominator isn't positive."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
