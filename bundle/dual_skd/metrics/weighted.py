# SPDX-License-Identifier: Apache-2.0
"""Classification metrics of one set of predictions under many weightings of its images.

The metrics are those of :mod:`.classification`, and those of each class beside them, written for weighted
images: a bootstrap resample is a vector of counts, so that thousands of resamples are a few matrix products, one
sorting per class, and cumulative sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dual_skd.errors import InputError
from dual_skd.metrics.calibration import reliability
from dual_skd.metrics.classification import ECE_BINS, METRICS
from dual_skd.metrics.uncertainty import decisions

OVERALL_METRICS = (*METRICS, "ece_equal_mass", "average_precision")
CLASS_METRICS = ("sensitivity", "specificity", "ppv", "npv", "f1", "harmonic_mean", "auc", "average_precision")
CALIBRATION_ERRORS = ("ece", "ece_equal_mass")
RANK_METRICS = ("macro_auc", "auc", "average_precision")
_STORED = 10_000_000  # orders of images by score are kept for all classes up to this many numbers, else sorted again
_TINY = 1e-300


class Values(NamedTuple):
    """Metrics under R weightings; nan where a metric isn't defined.

    Attributes:
        overall: per name of :data:`OVERALL_METRICS` an array (R,).
        per_class: per name of :data:`CLASS_METRICS` an array (R, K), each class against the rest.
        noise: per calibration error an array (R,): that of a classifier whose bins are off by what this weighting moves
            them, the error of mere chance.
    """

    overall: dict[str, np.ndarray]
    per_class: dict[str, np.ndarray]
    noise: dict[str, np.ndarray]


class WeightedMetrics:
    """What the metrics need of a set of predictions whatever its images' weights are; call it with weights.

    ``average_precision`` is the step-wise area under the precision-recall curve, without interpolation, overall the
    mean over classes; ``harmonic_mean`` is 2 / (1/sensitivity + 1/specificity), 0 where one of them is 0; ``f1`` is
    the mean of the classes there or predicted. The bins of ``ece_equal_mass`` are those of the images as they are.

    Args:
        probabilities: (N, K), rows that sum to 1 (not with ``multi_label``).
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        metrics: names of :data:`OVERALL_METRICS` and :data:`CLASS_METRICS`; what is in both is measured in both ways.
        predicted: predicted classes (N,), or with ``multi_label`` (N, K); by default the most probable class, or the
            labels above 0.5. Calibration doesn't depend on it.
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
        multi_label: bool = False,
    ) -> None:
        check_names(metrics)
        self.metrics = tuple(metrics)
        self.multi_label = multi_label
        self._p = np.asarray(probabilities, dtype=float)
        self._labels = np.asarray(labels)
        self._images, self._classes = self._p.shape
        if predicted is None:
            predicted = self._p > 0.5 if multi_label else self._p.argmax(axis=1)
        self.predicted = predicted
        if multi_label:
            truth, called = (np.asarray(side, dtype=float) for side in (labels, predicted))
            self._marks = np.hstack([truth * called, truth, called])
        else:
            self._cells = _Cells(self._labels, predicted, self._classes)
        features = self._linear_features()
        ends = np.cumsum([columns.shape[1] for columns in features.values()])
        self._linear = {
            name: slice(end - columns.shape[1], end)
            for (name, columns), end in zip(features.items(), ends, strict=True)
        }
        self._features = np.hstack(list(features.values())) if features else np.empty((0, 0))
        self._orders: dict[int, _Ranking] = {}
        self._mirrored = self._classes == 2 and not multi_label and _mirrored(self._p)

    def __call__(self, weights: np.ndarray) -> Values:
        """Metrics under each of R weightings.

        Args:
            weights: (R, N), how often each image counts.
        """
        overall: dict[str, np.ndarray] = {}
        per_class: dict[str, np.ndarray] = {}
        noise: dict[str, np.ndarray] = {}
        total = weights.sum(axis=1, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            counts = self._counts(weights, total)
            per_class |= {name: _of_counts(name, counts) for name in self.metrics if name in _COUNTED}
            overall |= {name: self._overall_counts(name, counts) for name in self.metrics if name in _COUNTED_OVERALL}
            if self._linear:
                means = weights @ self._features / total[:, None]
                for name, columns in self._linear.items():
                    overall[name] = np.abs(means[:, columns]).sum(axis=1)  # of one column, not negative, the column
                    if name in CALIBRATION_ERRORS:
                        moved = means[:, columns] - self._features[:, columns].mean(axis=0)
                        noise[name] = np.abs(moved).sum(axis=1)
            if any(name in RANK_METRICS for name in self.metrics):
                areas, precisions = self._rank_metrics(weights)
                if "auc" in self.metrics:
                    per_class["auc"] = areas
                if "macro_auc" in self.metrics:
                    overall["macro_auc"] = areas.mean(axis=1)
                if precisions is not None:
                    per_class["average_precision"] = precisions
                    overall["average_precision"] = precisions.mean(axis=1)
        return Values(overall, per_class, noise)

    def only(self, metrics: Sequence[str]) -> WeightedMetrics:
        """The same predictions, measured by fewer metrics."""
        if set(metrics) == set(self.metrics):
            return self
        return WeightedMetrics(self._p, self._labels, metrics, predicted=self.predicted, multi_label=self.multi_label)

    def _counts(self, weights: np.ndarray, total: np.ndarray) -> _Counts:
        if not self.multi_label:
            return _Counts(*self._cells(weights), total[:, None])
        both, there, called = np.split(weights @ self._marks, 3, axis=1)
        return _Counts(both, there, called, total[:, None])

    def _overall_counts(self, name: str, counts: _Counts) -> np.ndarray:
        if name == "f1":
            return _mean_of_defined(_of_counts("f1", counts))
        sensitivity = _of_counts("sensitivity", counts)
        if name == "balanced_accuracy" and not self.multi_label:
            return _mean_of_defined(sensitivity)  # a class that was not drawn doesn't count
        if name == "balanced_accuracy":
            sides = np.stack([sensitivity, _of_counts("specificity", counts)])
            return _mean_of_defined(sides, axis=0).mean(axis=1)
        if self.multi_label:
            return ((2 * counts.both - counts.there - counts.called) / counts.total + 1).mean(axis=1)
        return counts.both.sum(axis=1) / counts.total[:, 0]

    def _linear_features(self) -> dict[str, np.ndarray]:
        """Columns (N, F) whose weighted means, in absolute value and added up, are the metric."""
        p, features = self._p, {}
        confidence, hits = decisions(p, self._labels, self.multi_label)
        if self.multi_label:
            truth = self._labels.astype(float)
            likelihood = np.where(truth > 0, p, 1 - p)
            error = np.square(p - truth).mean(axis=1)
        else:
            truth = p[np.arange(len(p)), self._labels]
            likelihood = truth[:, None]
            error = np.square(p).sum(axis=1) - np.square(truth) + np.square(1 - truth)
        for name in self.metrics:
            if name == "nll":
                features[name] = -np.log(np.maximum(likelihood, _TINY)).mean(axis=1, keepdims=True)
            elif name == "brier":
                features[name] = error[:, None]
            elif name in CALIBRATION_ERRORS:
                features[name] = _gaps(confidence, hits.astype(float), equal_mass=name == "ece_equal_mass")
        return features

    def _rank_metrics(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        areas = np.empty((len(weights), self._classes))
        precisions = np.empty_like(areas) if "average_precision" in self.metrics else None
        for k in range(1 if self._mirrored else 0, self._classes):
            ranking = self._orders.get(k) or _Ranking(self._p[:, k], self._truth_of(k))
            if self._images * self._classes <= _STORED:
                self._orders[k] = ranking
            area, precision, opposite = ranking(weights, precisions is not None, self._mirrored)
            areas[:, k] = area
            if precisions is not None:
                precisions[:, k] = precision
            if self._mirrored:
                areas[:, 0] = area
                if precisions is not None:
                    precisions[:, 0] = opposite
        return areas, precisions

    def _truth_of(self, k: int) -> np.ndarray:
        return self._labels[:, k] > 0 if self.multi_label else self._labels == k


def check_names(metrics: Sequence[str]) -> None:
    """Raises an ``InputError`` that lists the valid names if one of ``metrics`` isn't known."""
    valid = tuple(dict.fromkeys([*OVERALL_METRICS, *CLASS_METRICS]))
    unknown = [name for name in metrics if name not in valid]
    if unknown:
        raise InputError(f"Unknown metrics {', '.join(unknown)}; valid: {', '.join(valid)}.")


class _Counts(NamedTuple):
    """Weights (R, K) of a class's images that are called it, of all its images, of all called it, and of everything."""

    both: np.ndarray
    there: np.ndarray
    called: np.ndarray
    total: np.ndarray


_COUNTED = ("sensitivity", "specificity", "ppv", "npv", "f1", "harmonic_mean")
_COUNTED_OVERALL = ("accuracy", "balanced_accuracy", "f1")


def _of_counts(name: str, counts: _Counts) -> np.ndarray:
    both, there, called, total = counts
    if name == "sensitivity":
        return _divided(both, there)
    if name == "specificity":
        return _divided(total - there - called + both, total - there)
    if name == "ppv":
        return _divided(both, called)
    if name == "npv":
        return _divided(total - there - called + both, total - called)
    if name == "f1":
        return _divided(2 * both, there + called)
    sides = _of_counts("sensitivity", counts), _of_counts("specificity", counts)
    return 2 * sides[0] * sides[1] / np.maximum(sides[0] + sides[1], _TINY)


class _Cells:
    """Images in the cells of the confusion matrix that are not empty: one reordering serves every class's counts."""

    def __init__(self, labels: np.ndarray, predicted: np.ndarray, classes: int) -> None:
        self._classes = classes
        code = labels.astype(np.int64) * classes + predicted
        self._order = np.argsort(code, kind="stable")
        cells, self._starts = np.unique(code[self._order], return_index=True)
        self._label, called = cells // classes, cells % classes
        self._labels, self._label_starts = np.unique(self._label, return_index=True)
        self._diagonal = np.flatnonzero(self._label == called)
        self._by_call = np.argsort(called, kind="stable")
        self._calls, self._call_starts = np.unique(called[self._by_call], return_index=True)

    def __call__(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cells = np.add.reduceat(weights.take(self._order, axis=1), self._starts, axis=1)
        both, there, called = (np.zeros((len(weights), self._classes)) for _ in range(3))
        both[:, self._label[self._diagonal]] = cells[:, self._diagonal]
        there[:, self._labels] = np.add.reduceat(cells, self._label_starts, axis=1)
        called[:, self._calls] = np.add.reduceat(cells[:, self._by_call], self._call_starts, axis=1)
        return both, there, called


class _Ranking:
    """Order of one class's scores, from which ROC and precision-recall areas of any weighting follow."""

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        order = np.argsort(scores, kind="stable")
        side = positive[order]
        self._up, self._down = order[side], order[~side]
        up, down = scores[self._up], scores[self._down]
        # for each positive: how many negatives score lower, how many not higher; how many positives score lower
        self._lower, self._not_higher = (np.searchsorted(down, up, side=side) for side in ("left", "right"))
        self._tied = not np.array_equal(self._lower, self._not_higher)
        self._up_lower = np.searchsorted(up, up, side="left")
        # for each negative: how many positives, how many negatives do not score higher
        self._up_not_higher = np.searchsorted(up, down, side="right")
        self._down_not_higher = np.searchsorted(down, down, side="right")

    def __call__(
        self, weights: np.ndarray, precision: bool, mirrored: bool
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Area under the ROC curve (R,), ties counting half; average precision of the class; and of the rest."""
        up, down = weights.take(self._up, axis=1), weights.take(self._down, axis=1)
        below = _accumulated(down)
        lower = below.take(self._lower, axis=1)
        beaten = (lower + below.take(self._not_higher, axis=1)) / 2 if self._tied else lower
        both = np.stack([up.sum(axis=1, dtype=float), down.sum(axis=1, dtype=float)])
        area = _divided(_dot(up, beaten), both[0] * both[1])
        if not precision:
            return area, None, None
        defined = np.where(both.min(axis=0) > 0, 1.0, np.nan)
        up_below = _accumulated(up)
        right = up_below[:, -1:] - up_below.take(self._up_lower, axis=1)
        found = _dot(up, _share(right, below[:, -1:] - lower)) / both[0] * defined
        if not mirrored:
            return area, found, None
        right = below.take(self._down_not_higher, axis=1)
        wrong = up_below.take(self._up_not_higher, axis=1)
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


def _mirrored(p: np.ndarray) -> bool:
    """Whether the second class's scores are the first one's in the opposite order, with the same ties."""
    first, second = (np.unique(p[:, k], return_inverse=True)[1] for k in (0, 1))
    return bool((first.max(initial=0) - first == second).all())


def _gaps(confidence: np.ndarray, hits: np.ndarray, *, equal_mass: bool) -> np.ndarray:
    """(N, bins): right minus sure in the bin of each prediction, of several predictions of an image their mean."""
    if equal_mass:
        bins = reliability(confidence.ravel(), hits.ravel(), bins=ECE_BINS, equal_mass=True)
        edges = np.array([one.low for one in bins])
    else:
        edges = np.linspace(0, 1, ECE_BINS + 1)[:-1]
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, len(edges) - 1)
    gaps = np.zeros((len(confidence), len(edges)))
    np.add.at(gaps, (np.arange(len(confidence))[:, None], place), (hits - confidence) / confidence.shape[1])
    return gaps


def _mean_of_defined(values: np.ndarray, axis: int = 1) -> np.ndarray:
    known = np.isfinite(values)
    return _divided(np.where(known, values, 0).sum(axis=axis), known.sum(axis=axis))


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
