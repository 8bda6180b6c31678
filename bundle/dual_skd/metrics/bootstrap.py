# SPDX-License-Identifier: Apache-2.0
"""Every metric of one set of predictions with a bootstrap interval over patients."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dual_skd.errors import InputError
from dual_skd.metrics.estimates import LEVEL, Estimate, from_resamples, percentiles, proportion_at_its_end
from dual_skd.metrics.operating_point import OperatingPoint, class_index, one_against_rest
from dual_skd.metrics.resampling import drawn_weights, patient_numbers
from dual_skd.metrics.validation import checked_class_names, checked_predictions, some
from dual_skd.metrics.weighted import (
    CALIBRATION_ERRORS,
    CLASS_METRICS,
    OVERALL_METRICS,
    RANK_METRICS,
    Values,
    WeightedMetrics,
    check_names,
)

RESAMPLES = 2000
BINARY_METRICS = ("sensitivity", "specificity", "ppv", "npv", "harmonic_mean")  # overall, when there are two classes
ALL_METRICS = tuple(dict.fromkeys([*OVERALL_METRICS, *CLASS_METRICS]))
RANK_WORK = 1e10  # classes x images x resamples up to which rank metrics are resampled: a minute or two


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


def bootstrap_intervals(
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
    """Measures predictions and says how far the numbers would vary with other patients.

    Patients are drawn with replacement, each with all of his or her images, and the limits are percentiles of the
    metric over the resamples (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3; whole
    patients: Davison and Hinkley 1997, section 3.8). Resamples in which a metric isn't defined are left out, and where
    those are more than a tenth there is no interval. Two exceptions, where percentiles are known to fail: a proportion
    of exactly 0 or 1 gets the exact limit for its number of patients; the calibration errors, which chance can only
    raise, and raises again in every resample, get the basic interval 2 x value - percentile (Davison and Hinkley 1997,
    section 5.2), and from 0 on where the value is no larger than what chance alone makes, the error of the resamples'
    bins around the observed ones.

    With fewer than some 30 patients, or some 10 on one side of a proportion, percentile intervals are too narrow.

    Args:
        probabilities: (N, K), rows that sum to 1; with ``multi_label`` each number by itself.
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        patients: patient of each image, "" for an unknown one, which then stands for itself. None: images are drawn.
        metrics: names of :data:`ALL_METRICS`, defined in :class:`dual_skd.metrics.weighted.WeightedMetrics`.
        level: of the intervals.
        resamples: number of bootstrap resamples.
        seed: of the resampling.
        operating_point: threshold of one class, chosen on other images; instead of the most probable class. With more
            than two classes the result is that of this class against the rest, in this order: rest, class.
        positive: class, as index or name, that the overall sensitivity and so on are of when there are two; that of the
            operating point, if given.
        class_names: names in the reasons, in the order of the probabilities.
        multi_label: every label is a yes or no of its own, decided at one half.

    Returns:
        :class:`Intervals`; what isn't defined is None with the reason.

    Raises:
        InputError: shapes that don't match, no images, labels or probabilities that can't be, an unknown metric, or an
            operating point with ``multi_label``.

    Example:
        >>> labels = np.array([0, 1] * 100)
        >>> found = bootstrap_intervals(np.eye(2)[labels] * 0.6 + 0.2, labels, resamples=200, metrics=["accuracy"])
        >>> found.overall["accuracy"].value, round(found.overall["accuracy"].low, 3)
        (1.0, 0.982)
    """
    p, labels = checked_predictions(probabilities, labels, multi_label)
    check_names(metrics)
    if not 0 < level < 1 or resamples < 1:
        raise InputError(f"Expected a level between 0 and 1 and a resample or more, found {level} and {resamples}.")
    names = checked_class_names(class_names, p.shape[1])
    place = class_index(positive, p.shape[1], class_names) if p.shape[1] == 2 else 1
    predicted = None
    if operating_point is not None:
        if multi_label:
            raise InputError(
                "An operating point is of one class; with multi_label give that label's probabilities, "
                "np.stack([1 - p, p], axis=1), and its zeros and ones."
            )
        class_index(operating_point.positive, p.shape[1], None)
        if p.shape[1] > 2:
            p, labels = one_against_rest(p, labels, operating_point.positive)
            names, place = ["rest", names[operating_point.positive]], 1
            predicted = operating_point.predict(p[:, 1])
        else:
            place = operating_point.positive
            predicted = np.where(operating_point.predict(p[:, place]), place, 1 - place)
    units = patient_numbers(patients, len(p))
    count = int(units.max()) + 1
    measured = _names_within_reach(metrics, p, resamples)
    measure = WeightedMetrics(p, labels, metrics, predicted=predicted, multi_label=multi_label)
    value = measure(np.ones((1, len(p))))
    drawn = _draw(measure.only(measured), units, resamples, seed) if count > 1 else None
    sides = _Sides(labels, measure.predicted, units, names, multi_label)

    def estimate(name: str, k: int | None, observed: float, limits: tuple[float, float, float] | None) -> Estimate:
        if not np.isfinite(observed):
            return Estimate(None, reason=sides.why_undefined(name, k))
        if count < 2:
            return Estimate(observed, reason="no interval: all images are of one patient")
        if limits is None:
            return Estimate(
                observed,
                reason=f"no interval: resampling {p.shape[1]} classes x {len(p)} images x {resamples} times takes too "
                "long; ask for fewer resamples, or for the interval of DeLong",
            )
        if observed in (0, 1) and (independent := sides.denominator(name, k)):
            return proportion_at_its_end(observed, independent, level)
        low, high, share = limits
        if drawn and name in CALIBRATION_ERRORS:
            by_chance = observed <= np.quantile(drawn.noise[name], level)
            low, high = 0.0 if by_chance else max(2 * observed - high, 0.0), max(2 * observed - low, observed)
        return from_resamples(observed, low, high, share)

    overall: dict[str, Estimate] = {}
    per_class: list[dict[str, Estimate]] = [{} for _ in names]
    for name, observed in value.overall.items():
        limits = _scalars(percentiles(drawn.overall.pop(name), level)) if drawn and name in drawn.overall else None
        overall[name] = estimate(name, None, float(observed[0]), limits)
    for name, observed in value.per_class.items():
        found = percentiles(drawn.per_class.pop(name), level) if drawn and name in drawn.per_class else None
        for k, of_class in enumerate(per_class):
            limits = None if found is None else _scalars([limit[k] for limit in found])
            of_class[name] = estimate(name, k, float(observed[0, k]), limits)
    if len(names) == 2 and not multi_label:
        overall |= {name: per_class[place][name] for name in BINARY_METRICS if name in per_class[place]}
    return Intervals(overall, tuple(per_class), len(p), count, level, resamples)


def _names_within_reach(metrics: Sequence[str], p: np.ndarray, resamples: int) -> list[str]:
    within = float(p.size) * resamples <= RANK_WORK
    return [name for name in metrics if within or name not in RANK_METRICS]


def _draw(measure: WeightedMetrics, units: np.ndarray, resamples: int, seed: int) -> Values | None:
    """The metrics of all resamples, filled in block by block."""
    drawn, start = None, 0
    for weights in drawn_weights(np.random.default_rng(seed), units, resamples):
        found = measure(weights)
        if drawn is None:
            drawn = type(found)(
                *({name: np.empty((resamples, *v.shape[1:])) for name, v in side.items()} for side in found)
            )
        for target, side in zip(drawn, found, strict=True):
            for name, values in side.items():
                target[name][start : start + len(values)] = values
        start += len(weights)
    return drawn


def _scalars(limits: Sequence[Any]) -> tuple[float, float, float]:
    low, high, share = map(float, limits)
    return low, high, share


class _Sides:
    """Which images a proportion is of, to say why it isn't defined or how many patients stand behind it."""

    def __init__(
        self, labels: np.ndarray, predicted: np.ndarray, units: np.ndarray, names: Sequence[str], multi_label: bool
    ) -> None:
        self._labels, self._predicted = labels, predicted
        self._units, self._names, self._multi_label = units, names, multi_label

    def _of(self, values: np.ndarray, k: int) -> np.ndarray:
        return values[:, k] > 0 if self._multi_label else values == k

    def denominator(self, name: str, k: int | None) -> int:
        """Number of patients behind a proportion; 0 for a metric that is none."""
        if name == "accuracy":
            return int(self._units.max()) + 1
        if k is None or name not in ("sensitivity", "specificity", "ppv", "npv"):
            return 0
        inside = self._of(self._labels if name in ("sensitivity", "specificity") else self._predicted, k)
        return len(np.unique(self._units[inside if name in ("sensitivity", "ppv") else ~inside]))

    def why_undefined(self, name: str, k: int | None) -> str:
        if k is None:
            classes = range(len(self._names))
            without = [self._names[k] for k in classes if not self._of(self._labels, k).any()]
            only = [self._names[k] for k in classes if self._of(self._labels, k).all()]
            return f"no image of {some(without)}" if without else f"every image is of {some(only)}"
        there = self._of(self._labels, k)
        if name == "ppv":
            return f"no image is predicted as {self._names[k]}"
        if name == "npv":
            return f"every image is predicted as {self._names[k]}"
        return f"no image of {self._names[k]}" if not there.any() else f"every image is of {self._names[k]}"
