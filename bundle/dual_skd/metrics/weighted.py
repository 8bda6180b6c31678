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

from dual_skd.metrics.definitions import METRICS, TABLE, check_names, divided
from dual_skd.metrics.reliability_diagram import bin_edges, bin_numbers
from dual_skd.metrics.uncertainty import decisions

_STORED = 10_000_000  # orders of images by score are kept for all classes up to this many numbers, else sorted again
_TINY = 1e-300


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
        self._columns = np.hstack(list(columns.values())) if columns else np.empty((len(self.predictions.labels), 0))

    def __call__(self, weights: np.ndarray, *, by_rank: bool = True) -> Values:
        """Metrics under each of R weightings.

        Args:
            weights: (R, N), how often each image counts.
            by_rank: False leaves out those that need the order of the images.
        """
        found = Values({}, {}, {})
        images = WeightedImages(self.predictions, weights, precisions="average_precision" in self.metrics)
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
    """

    def __init__(
        self,
        probabilities: np.ndarray,
        labels: np.ndarray,
        predicted: np.ndarray | None,
        log_likelihood: np.ndarray | None,
        multi_label: bool,
    ) -> None:
        self.probabilities = np.asarray(probabilities, dtype=float)
        self.labels = np.asarray(labels)
        self.multi_label = multi_label
        if predicted is None:
            predicted = self.probabilities > 0.5 if multi_label else self.probabilities.argmax(axis=1)
        self.predicted = predicted
        self._log_likelihood = log_likelihood
        self._rankings: dict[int, Ranking] = {}

    @property
    def log_likelihood(self) -> np.ndarray:
        """Log of the probability of the label (N, 1); with ``multi_label`` of each label (N, K)."""
        if self._log_likelihood is not None:
            return self._log_likelihood
        p = self.probabilities
        likelihood = (
            np.where(self.labels > 0, p, 1 - p) if self.multi_label else np.take_along_axis(p, self.labels[:, None], 1)
        )
        return np.log(np.maximum(likelihood, _TINY))

    def calibration_gaps(self, *, equal_mass: bool) -> np.ndarray:
        """(N, bins): right minus confidence in the bin of each prediction, of several of an image their mean."""
        confidence, right = decisions(self.probabilities, self.labels, self.multi_label)
        edges = bin_edges(confidence.ravel(), equal_mass=equal_mass)
        images, bins = len(confidence), len(edges) - 1
        cells = np.arange(images)[:, None] * bins + bin_numbers(confidence, edges)
        gaps = (right - confidence) / confidence.shape[1]
        return np.bincount(cells.ravel(), weights=gaps.ravel(), minlength=images * bins).reshape(images, bins)

    @cached_property
    def confusion(self) -> Confusion:
        """The cells of the confusion matrix."""
        return Confusion(self.labels, self.predicted, self.probabilities.shape[1])

    @cached_property
    def marks(self) -> np.ndarray:
        """With ``multi_label`` ones (N, 3 K) where a label is there and predicted, is there, is predicted."""
        truth, called = (np.asarray(side, dtype=float) for side in (self.labels, self.predicted))
        return np.hstack([truth * called, truth, called])

    @cached_property
    def mirrored(self) -> bool:
        """Whether the second of two classes' scores are the first one's in the opposite order, with the same ties."""
        if self.multi_label or self.probabilities.shape[1] != 2:
            return False
        first, second = (np.unique(scores, return_inverse=True)[1] for scores in self.probabilities.T)
        return bool((first.max(initial=0) - first == second).all())

    def ranking(self, k: int) -> Ranking:
        """The order of the images by the score of a class."""
        if k in self._rankings:
            return self._rankings[k]
        ranking = Ranking(self.probabilities[:, k], self.labels[:, k] > 0 if self.multi_label else self.labels == k)
        if self.probabilities.size <= _STORED:
            self._rankings[k] = ranking
        return ranking


class Counts(NamedTuple):
    """Weights (R, K) of a class's images that are called it, of all its images, of all called it, and of everything."""

    both: np.ndarray
    there: np.ndarray
    called: np.ndarray
    total: np.ndarray


class WeightedImages:
    """The predictions under R weightings: what metrics are functions of.

    Args:
        predictions: what is weighted.
        weights: (R, N), how often each image counts.
        precisions: whether average precisions are wanted: they are computed together with the areas.

    Attributes:
        total: sum of the weights (R, 1).
    """

    def __init__(self, predictions: Predictions, weights: np.ndarray, *, precisions: bool) -> None:
        self.predictions = predictions
        self.weights = weights
        self.total = weights.sum(axis=1, dtype=float)[:, None]
        self._with_precisions = precisions

    @cached_property
    def counts(self) -> Counts:
        """The weights in the confusion matrix of each class against the rest."""
        if not self.predictions.multi_label:
            return Counts(*self.predictions.confusion(self.weights), self.total)
        return Counts(*np.split(self.weights @ self.predictions.marks, 3, axis=1), self.total)

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
        classes, mirrored = self.predictions.probabilities.shape[1], self.predictions.mirrored
        areas, precisions = np.empty((2, len(self.weights), classes))
        for k in range(1 if mirrored else 0, classes):
            area, precision, opposite = self.predictions.ranking(k)(self.weights, self._with_precisions, mirrored)
            areas[:, k], precisions[:, k] = area, precision
            if mirrored:
                areas[:, 0], precisions[:, 0] = area, opposite
        return areas, precisions


class Confusion:
    """Images in the cells of the confusion matrix that are not empty: one reordering serves every class's counts."""

    def __init__(self, labels: np.ndarray, predicted: np.ndarray, classes: int) -> None:
        self._classes = classes
        code = labels.astype(np.int64) * classes + predicted
        code = code.astype(np.min_scalar_type(classes**2))  # small integers are sorted in one pass
        self._order = np.argsort(code, kind="stable")
        cells, self._starts = np.unique(code[self._order], return_index=True)
        self._label, called = cells // classes, cells % classes
        self._labels, self._label_starts = np.unique(self._label, return_index=True)
        self._diagonal = np.flatnonzero(self._label == called)
        self._by_call = np.argsort(called, kind="stable")
        self._calls, self._call_starts = np.unique(called[self._by_call], return_index=True)

    def __call__(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights (R, K) of the images of a class that are called it, of all of it, and of all called it."""
        cells = np.add.reduceat(weights.take(self._order, axis=1), self._starts, axis=1)
        both, there, called = np.zeros((3, len(weights), self._classes))
        both[:, self._label[self._diagonal]] = cells[:, self._diagonal]
        there[:, self._labels] = np.add.reduceat(cells, self._label_starts, axis=1)
        called[:, self._calls] = np.add.reduceat(cells[:, self._by_call], self._call_starts, axis=1)
        return both, there, called


class Ranking:
    """Order of one class's scores, from which ROC and precision-recall areas of any weighting follow."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
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
        self, weights: np.ndarray, precision: bool = False, mirrored: bool = False
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
        if not mirrored:
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
