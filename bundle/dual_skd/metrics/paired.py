# SPDX-License-Identifier: Apache-2.0
"""Paired comparison of two methods on the same test images: bootstrap interval, p value, Holm correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from dual_skd.errors import InputError
from dual_skd.metrics.definitions import METRICS, OVERALL_METRICS, check_names
from dual_skd.metrics.estimates import DEFINED_SHARE
from dual_skd.metrics.intervals import RESAMPLES
from dual_skd.metrics.resampling import drawn_weights, patient_numbers
from dual_skd.metrics.validation import checked_labels, checked_probabilities
from dual_skd.metrics.weighted import WeightedMetrics

SIGNIFICANCE = 0.05  # p values below it after the correction tell a difference from chance


class Difference(NamedTuple):
    """How much larger a metric is for one method than for the other.

    Attributes:
        value: difference on the test images as they are, mean over the seeds.
        low: 2.5 percentile of the bootstrap distribution.
        high: 97.5 percentile.
        p: two-sided p value of no difference.
    """

    value: float
    low: float
    high: float
    p: float


def paired_differences(
    one: np.ndarray,
    other: np.ndarray,
    labels: np.ndarray,
    *,
    metrics: Sequence[str] = METRICS,
    patients: Sequence[str] | None = None,
    new_trainings: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compares two methods that were trained with the same seeds and tested on the same images.

    Images (or whole patients) are drawn with replacement, the same ones for both methods and all seeds; the difference
    is averaged over the seeds (Efron and Tibshirani 1993, sections 8 and 13). The p value is twice the smaller share of
    resamples on one side of 0, counting the observed sample (Davison and Hinkley 1997, section 4.2.3): it is never
    below 2 / (resamples + 1), see :func:`holm`. Single networks are better compared by
    :func:`~dual_skd.metrics.differences.paired_tests`, whose p values have no such end.

    Args:
        one: probabilities (S, N, K) of the first method for S seeds; or (N, K).
        other: the same of the second method, in the same order of seeds and images.
        labels: class indices (N,).
        metrics: names in :data:`dual_skd.metrics.definitions.OVERALL_METRICS`.
        patients: patient of each image, "" for an unknown one (then the image stands for itself); resampled whole.
        new_trainings: the interval speaks of new trainings too, where there are several seeds.
        resamples: number of bootstrap resamples.
        seed: of the resampling.

    Returns:
        per metric a :class:`Difference`. Resamples that don't define a metric are left out; where those are more than a
        tenth, limits and p are nan.

    Raises:
        InputError: shapes don't match, probabilities or labels that can't be, no resample, or a metric isn't known.

    Example:
        >>> labels = np.array([0, 1] * 50)
        >>> good, coin = np.eye(2)[labels] * 0.8 + 0.1, np.full((100, 2), 0.5)
        >>> difference = paired_differences(good, coin, labels, metrics=["macro_auc"])["macro_auc"]
        >>> difference.value, difference.p < 0.01
        (0.5, True)
    """
    one, other, labels = _checked(one, other, labels)
    check_names(metrics, OVERALL_METRICS)
    if resamples < 1:
        raise InputError(f"Expected a resample or more, found {resamples}.")
    measures = [[WeightedMetrics(p, labels, metrics) for p in pair] for pair in zip(one, other, strict=True)]
    units, random = patient_numbers(patients, len(labels)), np.random.default_rng(seed)
    blocks = []
    for weights in chain([np.ones((1, len(labels)))], drawn_weights(random, units, resamples)):
        pairs = [(first(weights).overall, second(weights).overall) for first, second in measures]
        blocks.append({name: np.stack([a[name] - b[name] for a, b in pairs], axis=1) for name in metrics})
    found = {}
    for name in metrics:
        per_seed = np.concatenate([block[name] for block in blocks])
        mean = per_seed.mean(axis=1)
        if new_trainings and len(one) > 1:
            mean[1:] += _of_new_trainings(per_seed[0], resamples, random)
        found[name] = _difference(mean)
    return found


def _of_new_trainings(per_seed: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """What the difference over new seeds adds to each resample of the images.

    It is a draw of Student's t distribution with S - 1 degrees of freedom times the standard error over the seeds; the
    sum is the distribution of Behrens and Fisher (Fisher, The fiducial argument in statistical inference, 1935).
    Drawing few seeds with replacement would be too narrow: five of them vary by 4/5 of what they should, and know no
    tails. What images and seeds do together counts in both parts, so the interval is rather too wide.
    """
    trained = len(per_seed)
    return per_seed.std(ddof=1) / np.sqrt(trained) * random.standard_t(trained - 1, size=resamples)


def holm(p_values: Sequence[float], *, resamples: int | None = None) -> list[float]:
    """Adjusts the p values of a family so that the chance of any false rejection stays below the level (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1; none becomes smaller than the one before it, or larger than 1.

    Args:
        p_values: in any order, of different hypotheses.
        resamples: of the bootstrap that they come from; None for p values of any fineness.

    Returns:
        adjusted p values in the same order.

    Raises:
        InputError: the smallest p value that so many resamples can give would be :data:`SIGNIFICANCE` or more after the
            correction, so that nothing could ever be told from chance.

    Example:
        >>> holm([0.01, 0.02])
        [0.02, 0.02]
    """
    if resamples is not None and 2 * len(p_values) >= SIGNIFICANCE * (resamples + 1):
        raise InputError(
            f"Expected resamples for p values below {SIGNIFICANCE} after Holm's correction for {len(p_values)} "
            f"hypotheses, found {resamples}; take {math.ceil(2 * len(p_values) / SIGNIFICANCE)} or more, or test fewer "
            "hypotheses."
        )
    p = np.asarray(p_values, dtype=float)
    if not len(p):
        return []
    order = np.argsort(p, kind="stable")
    raised = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    adjusted = np.empty_like(p)
    adjusted[order] = raised
    return adjusted.tolist()


def _difference(distribution: np.ndarray) -> Difference:
    """From the observed difference and those of the resamples behind it."""
    value, defined = float(distribution[0]), np.isfinite(distribution[1:])
    if not np.isfinite(value) or defined.mean() < DEFINED_SHARE:
        return Difference(value, float("nan"), float("nan"), float("nan"))
    drawn = distribution[1:][defined]
    low, high = np.percentile(drawn, (2.5, 97.5))
    # rounding must not decide on which side of 0 an equal pair lies
    side = min(np.sum(drawn <= 1e-12), np.sum(drawn >= -1e-12))
    return Difference(value, float(low), float(high), float(min(1.0, 2 * (side + 1) / (len(drawn) + 1))))


def _checked(one: np.ndarray, other: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    one, other = (p[None] if p.ndim == 2 else p for p in (np.asarray(one, float), np.asarray(other, float)))
    if one.shape != other.shape or one.ndim != 3 or not len(one):
        raise InputError(
            "Expected two arrays (seeds, images, classes) of one shape and at least one seed, found "
            f"{one.shape} and {other.shape}; compare the seeds that both methods have."
        )
    labels = checked_labels(labels, one.shape[1:])
    one, other = (np.stack([checked_probabilities(p) for p in method]) for method in (one, other))
    return one, other, labels
