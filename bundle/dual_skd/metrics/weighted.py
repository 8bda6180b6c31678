# SPDX-License-Identifier: Apache-2.0
"""Predictions under many weightings of their images, and what the metrics of :mod:`.definitions` need of them.

A bootstrap resample is a vector of counts, so that thousands of resamples are a few matrix products, one sorting per
class, and cumulative sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from dual_skd.metrics.definitions import METRICS, TABLE, TINY, check_names, divided
from dual_skd.metrics.reliability_diagram import bin_edges, bin_numbers
from dual_skd.metrics.uncertainty import decisions
from dual_skd.utils.former_names import renamed

__getattr__ = renamed(
    __name__,
    CALIBRATION_ERRORS="dual_skd.metrics.definitions.CALIBRATION_ERRORS",
    CLASS_METRICS="dual_skd.metrics.definitions.CLASS_METRICS",
    OVERALL_METRICS="dual_skd.metrics.definitions.OVERALL_METRICS",
)


class Values(NamedTuple):
    """Metrics under R weightings; nan where a metric isn't defined.

    Attributes:
        overall: name of a metric -> values (R,).
        per_class: name of a metric -> values (R, K), each class against the rest.
        noise: name of a calibration error -> values (R,): that of a classifier whose bins are off by what this
            weighting moves them, the error of mere chance.
    """

    overall: dict[str, np.ndarray]
    per_class: dict[str, np.ndarray]
    noise: dict[str, np.ndarray]


class WeightedMetrics:
    """Measures one set of predictions under weights of its images.

    Args:
        probabilities: (N, K), rows that sum to 1 (not with ``multi_label``).
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        metrics: names in :data:`~dual_skd.metrics.definitions.TABLE`.
        predicted: predicted classes (N,), or with ``multi_label`` (N, K); by default the most probable class, or the
            labels above 0.5. Calibration doesn't depend on it.
        log_likelihood: log of the probability of the label (N, 1), or of each label (N, K), where it is known better
            than by the logarithm of the probabilities.
        multi_label: every label is a yes or no of its own.

    Raises:
        InputError: a metric isn't known.
    """

    def __init__(
        self,
        probabilities: np.ndarray,
        labels: np.ndarray,
        metrics: Sequence[str] = METRICS,
        *,
        predicted: np.ndarray | None = None,
        log_likelihood: np.ndarray | None = None,
        multi_label: bool = False,
    ) -> None:
        check_names(metrics)
        self.predictions = Predictions(probabilities, labels, predicted, log_likelihood, multi_label)
        self.metrics = {name: metric for name, metric in TABLE.items() if name in metrics}
        columns = {name: metric.columns(self.predictions) for name, metric in self.metrics.items() if metric.columns}
        ends = np.cumsum([values.shape[1] for values in columns.values()])
        self._places = {
            name: slice(end - values.shape[1], end) for (name, values), end in zip(columns.items(), ends, strict=True)
        }
        self._columns = np.hstack(list(columns.values())) if columns else np.empty((len(labels), 0))

    def __call__(self, weights: np.ndarray, *, by_rank: bool = True) -> Values:
        """Metrics under each of R weightings.

        Args:
            weights: (R, N), how often each image counts.
            by_rank: False leaves out those that need the order of the images.
        """
        found = Values({}, {}, {})
        images = WeightedImages(self.predictions, weights, with_precisions="average_precision" in self.metrics)
        with np.errstate(divide="ignore", invalid="ignore"):
            means = weights @ self._columns / images.total
            for name, metric in self.metrics.items():
                if metric.columns:
                    columns = self._places[name]
                    found.overall[name] = np.abs(means[:, columns]).sum(axis=1)
                    if metric.raised_by_chance:
                        moved = means[:, columns] - self._columns[:, columns].mean(axis=0)
                        found.noise[name] = np.abs(moved).sum(axis=1)
                elif by_rank or not metric.by_rank:
                    if metric.overall:
                        found.overall[name] = metric.overall(images)
                    if metric.per_class:
                        found.per_class[name] = metric.per_class(images)
        return found


class Predictions:
    """A set of predictions, and what is computed of it once, whatever the weights of its images are.

    Args: see :class:`WeightedMetrics`.

    Attributes:
        truth: (N, K), whether an image is of a class.
        decided: (N, K), whether it is predicted as it.
        log_likelihood: log of the probability of the label (N, 1), or of each label (N, K).
    """

    def __init__(
        self,
        probabilities: np.ndarray,
        labels: np.ndarray,
        predicted: np.ndarray | None,
        log_likelihood: np.ndarray | None,
        multi_label: bool,
    ) -> None:
        self.probabilities = p = np.asarray(probabilities, dtype=float)
        self.labels = np.asarray(labels)
        self.multi_label = multi_label
        if predicted is None:
            predicted = p > 0.5 if multi_label else p.argmax(axis=1)
        classes = np.arange(p.shape[1])
        self.truth, self.decided = (
            np.asarray(side) > 0 if multi_label else np.asarray(side)[:, None] == classes
            for side in (labels, predicted)
        )
        if log_likelihood is None:
            likelihood = np.where(self.truth, p, 1 - p) if multi_label else p[self.truth][:, None]
            log_likelihood = np.log(np.maximum(likelihood, TINY))
        self.log_likelihood = log_likelihood

    def calibration_gaps(self, *, equal_mass: bool) -> np.ndarray:
        """(N, bins): right minus confidence in the bin of each prediction, of several of an image their mean."""
        confidence, right = decisions(self.probabilities, self.labels, self.multi_label)
        edges = bin_edges(confidence.ravel(), equal_mass=equal_mass)
        images, bins = len(confidence), len(edges) - 1
        cells = np.arange(images)[:, None] * bins + bin_numbers(confidence, edges)
        gaps = (right - confidence) / confidence.shape[1]
        return np.bincount(cells.ravel(), weights=gaps.ravel(), minlength=images * bins).reshape(images, bins)

    @cached_property
    def marks(self) -> np.ndarray:
        """(N, 3 K), 1 where an image is of a class and predicted as it, of it, predicted as it."""
        return np.hstack([self.truth & self.decided, self.truth, self.decided]).astype(np.float32)  # counts stay exact

    @property
    def counts(self) -> Counts:
        """Those of each image by itself (N, K)."""
        both, there, called = np.split(self.marks.astype(float), 3, axis=1)
        return Counts(both, there, called, np.ones((len(both), 1)), self.multi_label)

    @cached_property
    def complementary(self) -> bool:
        """Whether the second of two classes' scores are the first one's in the opposite order, with the same ties."""
        if self.multi_label or self.probabilities.shape[1] != 2:
            return False
        first, second = (np.unique(scores, return_inverse=True)[1] for scores in self.probabilities.T)
        return bool((first.max(initial=0) - first == second).all())

    @cached_property
    def rankings(self) -> list[Ranking]:
        """The order of the images by the score of each class; of complementary ones by that of the second."""
        columns = zip(self.probabilities.T[self.complementary :], self.truth.T[self.complementary :], strict=True)
        return [Ranking(scores, positive) for scores, positive in columns]


class Counts(NamedTuple):
    """Weights (R, K) of a class's images that are called it, of all its images, of all called it, and of everything."""

    both: np.ndarray
    there: np.ndarray
    called: np.ndarray
    total: np.ndarray
    multi_label: bool


class WeightedImages:
    """The predictions under R weightings: what metrics are functions of.

    Args:
        predictions: what is weighted.
        weights: (R, N), how often each image counts.
        with_precisions: whether average precisions are wanted too; they are computed together with the areas.

    Attributes:
        total: sum of the weights (R, 1).
    """

    def __init__(self, predictions: Predictions, weights: np.ndarray, *, with_precisions: bool) -> None:
        self.predictions = predictions
        self.weights = weights
        self.total = weights.sum(axis=1, dtype=float)[:, None]
        self._with_precisions = with_precisions

    @cached_property
    def counts(self) -> Counts:
        """The weights in the confusion matrix of each class against the rest."""
        both, there, called = np.split((self.weights @ self.predictions.marks).astype(float), 3, axis=1)
        return Counts(both, there, called, self.total, self.predictions.multi_label)

    @property
    def areas(self) -> np.ndarray:
        """Area under each class's ROC curve (R, K)."""
        return self._ranked[0]

    @property
    def precisions(self) -> np.ndarray:
        """Average precision of each class (R, K)."""
        return self._ranked[1]

    @cached_property
    def _ranked(self) -> tuple[np.ndarray, np.ndarray]:
        complementary = self.predictions.complementary
        areas, precisions = np.empty((2, len(self.weights), self.predictions.truth.shape[1]))
        for k, ranking in enumerate(self.predictions.rankings, start=complementary):
            areas[:, k], precisions[:, k], opposite = ranking(self.weights, self._with_precisions, complementary)
            if complementary:
                areas[:, 0], precisions[:, 0] = areas[:, k], opposite
        return areas, precisions


class Ranking:
    """Order of one class's scores, from which ROC and precision-recall areas of any weighting follow."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        order = np.argsort(scores)
        if not np.diff(scores[order]).all():  # equal scores stay in the order of the images, which takes longer
            order = np.argsort(scores, kind="stable")
        side = positive[order]
        self._up, self._down = order[side], order[~side]
        self._scores = scores[self._up], scores[self._down]
        up, down = self._scores
        # for each positive: how many negatives score lower, how many not higher
        self._lower, self._not_higher = (np.searchsorted(down, up, side=side) for side in ("left", "right"))
        self._tied = not np.array_equal(self._lower, self._not_higher)

    @cached_property
    def _for_precision(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each positive: how many positives score lower; for each negative: how many of each don't score higher."""
        up, down = self._scores
        not_higher = (np.searchsorted(side, down, side="right") for side in (up, down))
        return np.searchsorted(up, up, side="left"), *not_higher

    def __call__(
        self, weights: np.ndarray, precision: bool = False, complementary: bool = False
    ) -> tuple[np.ndarray, np.ndarray | float, np.ndarray | float]:
        """Area under the ROC curve (R,), ties counting half; average precision of the class; and of the rest."""
        up, down = weights.take(self._up, axis=1), weights.take(self._down, axis=1)
        below = _accumulated(down)
        lower = below.take(self._lower, axis=1)
        beaten = (lower + below.take(self._not_higher, axis=1)) / 2 if self._tied else lower
        both = np.stack([up.sum(axis=1, dtype=float), down.sum(axis=1, dtype=float)])
        area = divided(_dot(up, beaten), both[0] * both[1])
        if not precision:
            return area, np.nan, np.nan
        defined = np.where(both.min(axis=0) > 0, 1.0, np.nan)
        up_lower, up_not_higher, down_not_higher = self._for_precision
        up_below = _accumulated(up)
        right = up_below[:, -1:] - up_below.take(up_lower, axis=1)
        found = _dot(up, _share(right, below[:, -1:] - lower)) / both[0] * defined
        if not complementary:
            return area, found, np.nan
        right = below.take(down_not_higher, axis=1)
        wrong = up_below.take(up_not_higher, axis=1)
        return area, found, _dot(down, _share(right, wrong)) / both[1] * defined


def _share(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Precision, computed in place of ``wrong``; 0 where nothing counts."""
    wrong += right
    wrong[wrong == 0] = 1  # there right is 0 as well
    return np.divide(right, wrong, out=wrong)


def _dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Products of each row, added up in float64."""
    return (one * other).sum(axis=1, dtype=float)


def _accumulated(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ..., n values of each row."""
    sums = np.zeros((len(values), values.shape[1] + 1), values.dtype)
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums
