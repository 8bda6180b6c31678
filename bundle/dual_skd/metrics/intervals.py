# SPDX-License-Identifier: Apache-2.0
"""Every metric of one set of predictions with its interval over patients: by a formula, or by a bootstrap.

Percentiles: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3. Whole patients and the basic
interval, 2 x value - percentile: Davison and Hinkley, Bootstrap Methods and their Application, 1997, sections 3.8, 5.2.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from dual_skd.errors import InputError
from dual_skd.metrics.definitions import TABLE, check_names
from dual_skd.metrics.estimates import LEVEL, Estimate, from_resamples, percentiles
from dual_skd.metrics.formula_intervals import FormulaIntervals, has_formula, share_limits
from dual_skd.metrics.influence import Share, ratio_influence
from dual_skd.metrics.operating_point import OperatingPoint, class_index, one_against_rest
from dual_skd.metrics.resampling import drawn_weights, patient_numbers
from dual_skd.metrics.validation import checked_class_names, checked_columns, checked_labels, checked_predictions
from dual_skd.metrics.weighted import Predictions, Values, WeightedMetrics
from dual_skd.utils.former_names import renamed
from dual_skd.utils.wording import first_few

__getattr__ = renamed(__name__, bootstrap_intervals="metric_intervals")

RESAMPLES = 2000
BINARY_METRICS = ("sensitivity", "specificity", "ppv", "npv", "harmonic_mean")  # overall, when there are two classes
ALL_METRICS = tuple(TABLE)
ONE_PATIENT = "no interval: all images are of one patient"
RANK_WORK = 1e10  # classes x images x resamples up to which metrics by rank are resampled: a minute or two


@dataclass(frozen=True)
class Intervals:
    """Metrics with their intervals; ``dataclasses.asdict`` makes plain JSON of it.

    Attributes:
        overall: per metric the estimate over all classes; with two classes also :data:`BINARY_METRICS` of the
            positive one.
        per_class: for each class, in order, the estimates of that class against the rest.
        images: number of images.
        patients: number of independent patients; images without a known one count as one each.
        level: of the intervals.
        resamples: number of bootstrap resamples.
    """

    overall: dict[str, Estimate]
    per_class: tuple[dict[str, Estimate], ...]
    images: int
    patients: int
    level: float
    resamples: int


def metric_intervals(
    probabilities: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[Hashable] | None = None,
    *,
    metrics: Sequence[str] = ALL_METRICS,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    operating_point: OperatingPoint | None = None,
    positive: int | str = 1,
    class_names: Sequence[str] | None = None,
    multi_label: bool = False,
) -> Intervals:
    """Metrics with intervals that say how far they would vary with other patients (docs/statistics.md).

    Shares have Wilson's interval, areas under ROC curves Newcombe's, both widened by the design effect where patients
    have several images; means over classes follow from those of the classes (MOVER). The log likelihood and the Brier
    score have Student's t of their logarithm, over patients. For the other metrics, patients are drawn with
    replacement, each with all images. Limits are percentiles over the resamples that define the metric; none where over
    a tenth don't. A calibration error gets the basic interval, with the lower limit 0 if chance alone makes an error as
    large.

    Args:
        probabilities: (N, K), rows that sum to 1; with ``multi_label`` each number by itself.
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        patients: patient of each image, "" for an unknown one, which then stands for itself. None: images are drawn.
        metrics: names in :data:`dual_skd.metrics.definitions.TABLE`.
        level: of the intervals.
        resamples: number of bootstrap resamples.
        seed: of the resampling.
        operating_point: threshold of one class, chosen on other images. With more than two classes the task becomes
            [rest, class].
        positive: with two classes the positive one, as index or name, of the overall sensitivity and so on; an
            operating point's class takes precedence.
        class_names: names in the reasons, in the order of the probabilities.
        multi_label: every label is a yes or no of its own, decided at one half.

    Raises:
        InputError: predictions, metrics, level, resamples or an operating point that can't be.

    Example:
        >>> labels = np.array([0, 1] * 100)
        >>> found = metric_intervals(np.eye(2)[labels] * 0.6 + 0.2, labels, resamples=200, metrics=["accuracy"])
        >>> found.overall["accuracy"].value, round(found.overall["accuracy"].low, 3)
        (1.0, 0.981)
    """
    p, labels = checked_predictions(probabilities, labels, multi_label)
    check_names(metrics)
    if not 0 < level < 1 or resamples < 1:
        raise InputError(f"Expected a level between 0 and 1 and a resample or more, found {level} and {resamples}.")
    task = _decided(p, labels, operating_point, positive, class_names, multi_label)
    return _intervals(task, metrics, patient_numbers(patients, len(p)), level, resamples, seed)


def auc_interval(
    scores: np.ndarray, positive: np.ndarray, *, patients: Sequence[Hashable] | None = None, level: float = LEVEL
) -> Estimate:
    """Area under the ROC curve of any scores, ties counting half, with its interval.

    Args:
        scores: (N,), larger for positives.
        positive: (N,), true or 1 for positives.
        patients: patient of each image, "" for an unknown one; images of one patient aren't independent.
        level: of the interval.

    Returns:
        an :class:`~dual_skd.metrics.estimates.Estimate`: without value if there are no positives or no negatives,
        without interval with fewer than two patients on a side.

    Raises:
        InputError: shapes don't match, or scores aren't finite.

    Example:
        >>> found = auc_interval(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        >>> found.value, round(found.low, 3), round(found.high, 3)
        (0.75, 0.227, 0.967)
    """
    scores, positive = checked_columns(scores=np.asarray(scores, dtype=float), truth=positive)
    labels = checked_labels(positive, (len(positive), 2))
    # ranks have the ties of the scores, and lie from 0 to 1
    ranks = np.unique(scores, return_inverse=True)[1] / max(len(scores), 1)
    task = _Task(np.stack([1 - ranks, ranks], axis=1), labels, None, ["the rest", "the positive class"], 1, False)
    units = patient_numbers(patients, len(scores))
    return _intervals(task, ["auc"], units, level, 1, 0).per_class[1]["auc"]


def share_interval(right: np.ndarray, patients: Sequence[Hashable] | None = None, *, level: float = LEVEL) -> Estimate:
    """A share of images with Wilson's interval, widened by the design effect where patients have several images.

    Args:
        right: (N,), whether each image counts as a success.
        patients: patient of each image, "" for an unknown one.
        level: of the interval.

    Raises:
        InputError: no image, or not one patient per image.
    """
    (right,) = checked_columns(successes=right)
    units = patient_numbers(patients, len(right))
    share = Share(ratio_influence(right.astype(float), np.ones(len(right)), units), len(right))
    if not units.any():
        return Estimate(share.influence.value, reason=ONE_PATIENT)
    return Estimate(share.influence.value, *share_limits(share, units, level))


class _Task(NamedTuple):
    """What is measured: predictions, the decisions about them, and the names of the classes."""

    p: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray | None
    names: list[str]
    positive: int
    multi_label: bool


def _decided(
    p: np.ndarray,
    labels: np.ndarray,
    operating_point: OperatingPoint | None,
    positive: int | str,
    class_names: Sequence[str] | None,
    multi_label: bool,
) -> _Task:
    """The predictions, decided by the operating point if there is one."""
    classes = p.shape[1]
    names = checked_class_names(class_names, classes)
    place = class_index(positive, classes, class_names) if classes == 2 else 1
    if operating_point is None:
        return _Task(p, labels, None, names, place, multi_label)
    if multi_label:
        raise InputError(
            "An operating point is of one class; with multi_label give that label's probabilities, "
            "np.stack([1 - p, p], axis=1), and its zeros and ones."
        )
    place = class_index(operating_point.positive, classes, None)
    if classes > 2:
        p, labels = one_against_rest(p, labels, place)
        names, place = ["rest", names[place]], 1
    predicted = np.where(operating_point.predict(p[:, place]), place, 1 - place)
    return _Task(p, labels, predicted, names, place, multi_label)


def _intervals(
    task: _Task, metrics: Sequence[str], units: np.ndarray, level: float, resamples: int, seed: int
) -> Intervals:
    given: dict[str, Any] = {"predicted": task.predicted, "multi_label": task.multi_label}
    measure = WeightedMetrics(task.p, task.labels, metrics, **given)
    images, count = len(task.p), int(units.max()) + 1
    observed = measure(np.ones((1, images)))
    drawn = Values({}, {}, {})
    resampled = [name for name in metrics if not has_formula(name)]
    if count > 1 and resampled:
        within_reach = float(task.p.size) * resamples <= RANK_WORK
        drawn = _draw(
            WeightedMetrics(task.p, task.labels, resampled, **given), units, resamples, seed, by_rank=within_reach
        )
    limits_of = _Limits(measure.predictions, task.names, units, level, resamples)
    overall: dict[str, Estimate] = {}
    per_class: list[dict[str, Estimate]] = [{} for _ in task.names]
    for name, values in observed.overall.items():
        found = percentiles(drawn.overall[name], level) if name in drawn.overall else None
        overall[name] = limits_of.estimate(name, None, values[0], found, drawn.noise.get(name))
    for name, values in observed.per_class.items():
        of_classes = np.stack(percentiles(drawn.per_class[name], level), axis=1) if name in drawn.per_class else None
        for k, of_class in enumerate(per_class):
            of_class[name] = limits_of.estimate(name, k, values[0, k], None if of_classes is None else of_classes[k])
    if len(task.names) == 2 and not task.multi_label:
        overall |= {name: per_class[task.positive][name] for name in BINARY_METRICS if name in per_class[0]}
    return Intervals(overall, tuple(per_class), images, count, level, resamples)


def _draw(measure: WeightedMetrics, units: np.ndarray, resamples: int, seed: int, *, by_rank: bool) -> Values:
    """The metrics of all resamples."""
    random = np.random.default_rng(seed)
    blocks = [measure(weights, by_rank=by_rank) for weights in drawn_weights(random, units, resamples)]
    overall, per_class, noise = (
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*blocks, strict=True)
    )
    return Values(overall, per_class, noise)


class _Limits:
    """Interval of a metric, or the reason why there is none."""

    def __init__(
        self, predictions: Predictions, names: list[str], units: np.ndarray, level: float, resamples: int
    ) -> None:
        self._truth, self._names = predictions.truth, names
        self._units, self._level, self._resamples = units, level, resamples
        self._formulas = FormulaIntervals(predictions, names, units, level)
        self._of_classes = cache(self._formulas.of_classes)

    def estimate(
        self,
        name: str,
        k: int | None,
        observed: float,
        limits: Sequence[np.ndarray] | np.ndarray | None,
        noise: np.ndarray | None = None,
    ) -> Estimate:
        """The estimate of a metric, of class ``k`` or of all (None).

        Args:
            name: of the metric.
            k: the class.
            observed: the value on the images as they are.
            limits: low, high and the share of resamples that define it; None where it wasn't resampled.
            noise: of a calibration error, its values by chance in the resamples.
        """
        observed = float(observed)
        if not np.isfinite(observed):
            return Estimate(None, reason=self._why_undefined(name, k))
        if not self._units.any():
            return Estimate(observed, reason=ONE_PATIENT)
        if has_formula(name):
            found = self._formulas.over_all(name) if k is None else self._of_classes(name)[k]
            return replace(found, value=observed)
        if limits is None:
            images, classes = self._truth.shape
            return Estimate(
                observed,
                reason=f"no interval: resampling {classes} classes x {images} images x {self._resamples} times takes "
                "too long; ask for fewer resamples",
            )
        low, high, share = map(float, limits)
        if noise is not None:
            by_chance = observed <= np.quantile(noise, self._level)
            low, high = 0.0 if by_chance else max(2 * observed - high, 0.0), min(2 * observed - low, 1.0)
        return from_resamples(observed, low, high, share)

    def _why_undefined(self, name: str, k: int | None) -> str:
        if k is not None and name in ("ppv", "npv"):
            return f"{'no' if name == 'ppv' else 'every'} image is predicted as {self._names[k]}"
        classes = range(len(self._names)) if k is None else [k]
        without = [self._names[k] for k in classes if not self._truth[:, k].any()]
        only = [self._names[k] for k in classes if self._truth[:, k].all()]
        return f"no image of {first_few(without)}" if without else f"every image is of {first_few(only)}"
