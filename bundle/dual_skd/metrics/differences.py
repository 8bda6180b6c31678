# SPDX-License-Identifier: Apache-2.0
"""Paired tests of two methods on the same images, over patients and without resampling: difference, interval, p value.

A mean over the images (accuracy, NLL, Brier score) is compared by flips of the patients' signs
(:mod:`dual_skd.metrics.sign_flips`). An area under the ROC curve, and a mean over classes, aren't such means: they are
compared by Student's t, the difference over its standard error over patients (:mod:`dual_skd.metrics.influence`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

from dual_skd.metrics import sign_flips
from dual_skd.metrics.definitions import METRICS, TABLE, check_names
from dual_skd.metrics.estimates import LEVEL, NO_VARIANCE
from dual_skd.metrics.influence import Influence, degrees_of_freedom, difference, overall_influence, strata
from dual_skd.metrics.mcnemar import mcnemar_test
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.validation import checked_predictions
from dual_skd.metrics.weighted import Predictions
from dual_skd.utils.wording import first_few

TESTED = tuple(name for name in METRICS if not TABLE[name].raised_by_chance)
_FEW = "no interval: fewer than six patients, whose differences can all have one sign by chance"


@dataclass(frozen=True)
class MetricDifference:
    """How a metric of two methods differs on the same images; ``dataclasses.asdict`` makes plain JSON of it.

    Attributes:
        one: the metric of the first method; None where it isn't defined.
        other: that of the second.
        difference: first minus second.
        low: lower limit of the interval of the difference; None where there is none.
        high: upper limit.
        p: two-sided p value of no difference.
        reason: why something is None; "" in the ordinary case.
    """

    one: float | None
    other: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    reason: str = ""


def paired_tests(
    one: np.ndarray,
    other: np.ndarray,
    labels: np.ndarray,
    *,
    metrics: Sequence[str] = TESTED,
    patients: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    class_names: Sequence[str] = (),
) -> dict[str, MetricDifference]:
    """Compares two methods by their metrics on the same images.

    Args:
        one: probabilities (N, K) of the first method.
        other: those of the second, in the same order of images.
        labels: class indices (N,).
        metrics: names in :data:`TESTED`. Calibration errors aren't among them: chance raises them, that of the sharper
            method more, so that their difference isn't 0 where both are calibrated equally well.
        patients: patient of each image, "" for an unknown one; images of one patient aren't independent.
        level: of the intervals.
        class_names: for the reasons.

    Returns:
        per metric a :class:`MetricDifference`.

    Raises:
        InputError: shapes don't match, probabilities or labels that can't be, or a metric isn't known.
    """
    check_names(metrics, TESTED)
    one, labels = checked_predictions(one, labels)
    other, labels = checked_predictions(other, labels)
    pair = [Predictions(p, labels, None, None, False) for p in (one, other)]
    units = patient_numbers(patients, len(labels))
    found = {}
    for name in metrics:
        if columns := TABLE[name].columns:
            first_values, other_values = (columns(side)[:, 0] for side in pair)
            found[name] = mean_test(first_values, other_values, units, level=level)
            continue
        first, second = (_influence(side, name, units) for side in pair)
        if name == "accuracy":
            found[name] = _with_mcnemar(first, second, pair, units, level)
        else:
            found[name] = influence_test(first, second, units, strata(pair[0].truth, units), level=level)
        if name in ("balanced_accuracy", "macro_auc"):
            found[name] = _without_lonely_classes(found[name], pair[0].truth, units, class_names)
    return found


def mean_test(one: np.ndarray, other: np.ndarray, units: np.ndarray, *, level: float = LEVEL) -> MetricDifference:
    """Compares the means of two values per image by flips of the patients' signs.

    Args:
        one: values (N,) of the first method, such as the negative log likelihoods.
        other: those of the second.
        units: number of each image's patient (N,), from :func:`~dual_skd.metrics.resampling.patient_numbers`.
        level: of the interval, which is of the differences that the test doesn't reject.
    """
    apart, shares = (np.bincount(units, weights=each) / len(units) for each in (one - other, np.ones(len(units))))
    p = sign_flips.p_value(apart)
    found = MetricDifference(float(one.mean()), float(other.mean()), float(apart.sum()), p=p)
    limits = sign_flips.interval(apart, shares, level) if apart.any() else (0.0, 0.0)
    if limits is None:
        few = 2 * 0.5 ** len(apart) >= 1 - level
        return replace(found, reason=_FEW if few else NO_VARIANCE)
    return replace(found, low=limits[0], high=limits[1])


def influence_test(
    one: Influence, other: Influence, units: np.ndarray, kinds: np.ndarray, *, level: float = LEVEL
) -> MetricDifference:
    """Compares two metrics by Student's t; interval and p value are of the same t and agree.

    Args:
        one: influences on the metric of the first method.
        other: on that of the second.
        units: number of each image's patient (N,).
        kinds: of each patient (U,), see :func:`~dual_skd.metrics.influence.degrees_of_freedom`: few ill patients leave
            few degrees of freedom, however many are well. With the normal distribution instead of t up to 11 % of
            equally good methods were called different (docs/statistics.md).
        level: of the interval, whose limits are within -1 and 1.
    """
    if not (np.isfinite(one.value) and np.isfinite(other.value)):
        first, second = (side.value if np.isfinite(side.value) else None for side in (one, other))
        return MetricDifference(first, second, reason="not defined on the shared images: a class is absent")
    apart = difference(one, other)
    error = apart.standard_error(units)
    found = MetricDifference(one.value, other.value, apart.value)
    if not error:
        return replace(found, p=None if apart.value else 1.0, reason=NO_VARIANCE)
    freedom = degrees_of_freedom(apart, units, kinds)
    half = float(student.ppf((1 + level) / 2, freedom)) * error
    p = 2 * float(student.sf(abs(apart.value) / error, freedom))
    return replace(found, low=max(apart.value - half, -1.0), high=min(apart.value + half, 1.0), p=p)


def _influence(predictions: Predictions, name: str, units: np.ndarray) -> Influence:
    found = overall_influence(predictions, name, units)
    if found is None:
        raise TypeError(f"{name} has no influences, and isn't one of TESTED.")
    return found


def _with_mcnemar(
    one: Influence, other: Influence, pair: Sequence[Predictions], units: np.ndarray, level: float
) -> MetricDifference:
    """The accuracies: the interval by t, of patients who are all of one kind, and the p value by McNemar's test.

    Where few images differ, t is no good approximation: McNemar's test has its level however few. Near it the two may
    disagree.
    """
    found = influence_test(one, other, units, np.zeros(int(units.max()) + 1, dtype=int), level=level)
    calls = [side.probabilities.argmax(axis=1) for side in pair]
    return replace(found, p=mcnemar_test(calls[0], calls[1], pair[0].labels, patients=units.tolist()).p)


def _without_lonely_classes(
    found: MetricDifference, truth: np.ndarray, units: np.ndarray, class_names: Sequence[str]
) -> MetricDifference:
    """The difference alone where a class has images of one patient only: nobody knows how another one would be."""
    patients = [len(np.unique(units[of_class])) for of_class in truth.T]
    names = class_names or [f"class {k}" for k in range(len(patients))]
    lonely = [name for name, count in zip(names, patients, strict=True) if count == 1]
    if not lonely or found.low is None:
        return found
    return replace(found, low=None, high=None, p=None, reason=f"no interval: only one patient of {first_few(lonely)}")
