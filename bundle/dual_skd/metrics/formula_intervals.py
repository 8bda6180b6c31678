# SPDX-License-Identifier: Apache-2.0
"""Intervals that need no resampling: of shares, areas under ROC curves, means, and what is made of these.

Several images of a patient say less than as many patients. The design effect says by how much: it is the variance over
patients divided by that of independent images (Kish, Survey Sampling, 1965; Rao and Scott 1992, Biometrics 48:577). It
never counts below 1. Where nothing varies, as in a perfect result, each patient counts as one image, and no other
result is surer than that one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from dual_skd.metrics.definitions import TABLE, Combination, Mean, Ratio, auc
from dual_skd.metrics.estimates import NO_VARIANCE, Estimate
from dual_skd.metrics.influence import (
    Influence,
    Share,
    area_influence,
    correlations,
    mean_influence,
    of_share,
    overall_influence,
    patients_of,
    shares,
)
from dual_skd.metrics.score_intervals import area_score_interval, mover_interval, wilson_interval
from dual_skd.metrics.weighted import Predictions

_NOTHING = 1e-12  # a mean below it is rounding


class Measured(NamedTuple):
    """A metric: what each image adds to its error, and its value with the interval."""

    influence: Influence
    estimate: Estimate


def has_formula(name: str) -> bool:
    """Whether the intervals of a metric follow from formulas, not from resampling."""
    metric = TABLE[name]
    if metric.columns:
        return not metric.raised_by_chance
    return all(_is_formula(one) for one in (metric.overall, metric.per_class) if one)


def _is_formula(function: object) -> bool:
    if isinstance(function, Mean | Combination):
        return all(_is_formula(TABLE[name].per_class) for name in function.metrics)
    return function is auc or isinstance(function, Ratio)


def share_limits(share: Share, units: np.ndarray, level: float) -> tuple[float, float]:
    """Limits of a share: Wilson's interval for the effective number of trials.

    Args:
        share: one that is defined.
        units: number of each image's patient (N,).
        level: of the interval.
    """
    value, patients = share.influence.value, patients_of(share.influence.rests_on, units)
    surest, least = (wilson_interval(right, patients, level) for right in (patients, 0))
    if value in (0, 1):
        return surest if value else least
    count = share.trials / _design_effect(share, patients, units)
    low, high = wilson_interval(value * count, count, level)
    return min(low, surest[0]), max(high, least[1])


def _design_effect(share: Share, patients: int, units: np.ndarray) -> float:
    """Of a share that is neither 0 nor 1.

    Few patients with successes, or with failures, say little about it. So one more patient counts whose images all
    agree.
    """
    influence, trials = share
    independent = influence.value * (1 - influence.value) / max(trials - 1, 1)
    seen = max(influence.standard_error(units) ** 2 / independent, 1.0)
    informative = min(patients_of(influence.of_images > 0, units), patients_of(influence.of_images < 0, units))
    return (informative * seen + trials / patients) / (informative + 1)


class FormulaIntervals:
    """Intervals of one set of predictions.

    Args:
        predictions: of N images for K classes.
        names: of the classes, for the reasons.
        units: number of each image's patient (N,).
        level: of the intervals.
    """

    def __init__(self, predictions: Predictions, names: Sequence[str], units: np.ndarray, level: float) -> None:
        self._predictions, self._names, self._units, self._level = predictions, names, units, level
        self._measured: dict[str, list[Measured]] = {}

    def of_classes(self, name: str) -> list[Estimate]:
        """A metric of each class against the rest; one that isn't defined has neither value nor interval.

        Args:
            name: of a metric that :func:`has_formula`.
        """
        metric = TABLE[name].per_class
        if isinstance(metric, Combination):
            pairs = zip(*map(self._of_classes, metric.metrics), strict=True)
            return [self._combined(one, other, metric) for one, other in pairs]
        return [one.estimate for one in self._of_classes(name)]

    def over_all(self, name: str) -> Estimate:
        """A metric over all classes.

        Args:
            name: of a metric that :func:`has_formula`.
        """
        metric = TABLE[name].overall
        if TABLE[name].columns:
            return self._positive_mean(name)
        if isinstance(metric, Mean):
            return self._mean([self._of_classes(part) for part in metric.names(self._predictions.multi_label)], metric)
        if isinstance(metric, Ratio):
            return self._share(shares(self._predictions, metric, self._units)[0], metric).estimate
        raise TypeError(f"{name} has no formula over all classes.")

    def _of_classes(self, name: str) -> list[Measured]:
        if name not in self._measured:
            metric = TABLE[name].per_class
            self._measured[name] = (
                [self._share(share, metric) for share in shares(self._predictions, metric, self._units)]
                if isinstance(metric, Ratio)
                else [self._area(k) for k in range(len(self._names))]
            )
        return self._measured[name]

    def _share(self, share: Share, ratio: Ratio) -> Measured:
        """A share, or what follows from one."""
        influence, value = of_share(share.influence, ratio), share.influence.value
        if np.isnan(value):
            return Measured(influence, Estimate(None))
        low, high = (float(ratio.of_share(np.float64(end))) for end in share_limits(share, self._units, self._level))
        return Measured(influence, Estimate(influence.value, low, high))

    def _positive_mean(self, name: str) -> Estimate:
        """A mean of positive numbers over images, such as a log likelihood: Student's t of its logarithm."""
        influence = overall_influence(self._predictions, name, self._units)
        if influence is None:
            raise TypeError(f"{name} has no formula over all classes.")
        value, error = influence.value, influence.standard_error(self._units)
        if not error:
            return Estimate(value, reason=NO_VARIANCE if value > _NOTHING else "no interval: no image is off")
        # of the logarithm, by the delta method
        half = float(stdtrit(patients_of(influence.rests_on, self._units) - 1, (1 + self._level) / 2)) * error / value
        largest = TABLE[name].largest(self._predictions)
        high = min(value * math.exp(min(half, max(math.log(largest / value), 0))), largest)
        return Estimate(value, value * math.exp(-half), high)

    def _area(self, k: int) -> Measured:
        """The area of a class by Newcombe's interval and the design effect."""
        scores, positive = self._predictions.probabilities[:, k], self._predictions.truth[:, k]
        influence = area_influence(scores, positive, self._units)
        value = influence.value
        if np.isnan(value):
            return Measured(influence, Estimate(None))
        sides = (positive, ~positive)
        patients = [patients_of(side, self._units) for side in sides]
        if min(patients) < 2:
            reason = f"no interval: fewer than two patients with or without {self._names[k]}"
            return Measured(influence, Estimate(value, reason=reason))
        error = influence.standard_error(self._units)
        if not error:
            return Measured(influence, Estimate(value, *area_score_interval(value, *patients, level=self._level)))
        images, effect = [int(side.sum()) for side in sides], 1.0
        if images != patients:
            alone = np.arange(len(scores))
            effect = max((error / area_influence(scores, positive, alone).standard_error(alone)) ** 2, 1.0)
        low, high = area_score_interval(value, *images, level=self._level, design_effect=effect)
        surest, least = (area_score_interval(end, *patients, level=self._level) for end in (1, 0))
        return Measured(influence, Estimate(value, min(low, surest[0]), max(high, least[1])))

    def _combined(self, one: Measured, other: Measured, combination: Combination) -> Estimate:
        """A function of two metrics: what each limit changes of it, alone, adds up as in MOVER."""
        first, second = one.estimate, other.estimate
        if first.value is None or second.value is None:
            return Estimate(None)

        def at(x: float | None, y: float | None) -> float:
            return float(combination.of(np.float64(x), np.float64(y)))

        value = at(first.value, second.value)
        lows = at(first.low, second.value), at(first.value, second.low)
        highs = at(first.high, second.value), at(first.value, second.high)
        related = correlations([one.influence, other.influence], self._units)
        low, high = mover_interval([value] * 2, lows, highs, [1, 1], related)
        return Estimate(value, max(low - value, 0.0), min(high - value, 1.0))

    def _mean(self, parts: Sequence[Sequence[Measured]], mean: Mean) -> Estimate:
        """A mean over classes by MOVER, of P metrics of K classes."""
        flat = [part for of_metric in parts for part in of_metric]
        influences = [[part.influence for part in of_metric] for of_metric in parts]
        value = mean_influence(influences, mean).value
        if np.isnan(value):
            return Estimate(None)
        weights = mean.weights(np.array([[one.value for one in of_metric] for of_metric in influences])).ravel()
        inside = [part for part, weight in zip(flat, weights, strict=True) if weight]
        if without := [part.estimate.reason for part in inside if part.estimate.low is None]:
            return Estimate(value, reason=without[0])
        values, lows, highs = zip(
            *((one.estimate.value, one.estimate.low, one.estimate.high) for one in inside), strict=True
        )
        related = correlations([part.influence for part in inside], self._units)
        low, high = mover_interval(values, lows, highs, weights[weights > 0], related)
        return Estimate(value, max(low, 0.0), min(max(high, value), 1.0))
