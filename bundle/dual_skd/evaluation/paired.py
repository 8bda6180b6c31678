# SPDX-License-Identifier: Apache-2.0
"""Paired comparison of two methods on the same test images: bootstrap interval, p value, Holm correction.

The metrics are those of :mod:`dual_skd.evaluation.metrics`, written for weighted images: a bootstrap resample is a
vector of counts, so all resamples are a few matrix products instead of thousands of small computations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dual_skd.errors import InputError
from dual_skd.evaluation.metrics import ECE_BINS, METRICS

RESAMPLES = 2000


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
    resample_seeds: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compares two methods that were trained with the same seeds and tested on the same images.

    Images (or whole patients) are drawn with replacement, the same ones for both methods and all seeds; the difference
    of each metric is averaged over the seeds (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, sections
    8 and 13). The p value is twice the smaller share of resamples on one side of 0, counting the observed sample
    (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 4.2.3).

    Args:
        one: probabilities (S, N, K) of the first method for S seeds; or (N, K).
        other: the same of the second method, in the same order of seeds and images.
        labels: class indices (N,).
        metrics: which of :data:`dual_skd.evaluation.metrics.METRICS`.
        patients: patient of each image, "" for an unknown one (then the image stands for itself); resampled whole.
        resample_seeds: draw the seeds with replacement as well: the interval then speaks of a new training too. Without
            it, of new images for just these trained networks.
        resamples: number of bootstrap resamples.
        seed: of the resampling.

    Returns:
        per metric a :class:`Difference`. Resamples in which a metric isn't defined (AUC of a class that was not
        drawn) are left out; nan where it is not defined on the images themselves.

    Raises:
        InputError: shapes don't match, or a metric isn't known.

    Example:
        >>> labels = np.array([0, 1] * 50)
        >>> good, coin = np.eye(2)[labels] * 0.8 + 0.1, np.full((100, 2), 0.5)
        >>> difference = paired_differences(good, coin, labels, metrics=["macro_auc"])["macro_auc"]
        >>> difference.value, difference.p < 0.01
        (0.5, True)
    """
    one, other, labels = _checked(one, other, labels, metrics)
    random = np.random.default_rng(seed)
    counts = _image_counts(random, len(labels), patients, resamples)
    trained = len(one)
    shares = np.full((1 + resamples, trained), 1 / trained)
    if resample_seeds:
        shares[1:] = random.multinomial(trained, shares[0], size=resamples) / trained
    weights = np.vstack([np.ones(len(labels)), counts])  # first the images as they are
    values = [[weighted_metrics(p, labels, weights, metrics=metrics) for p in method] for method in (one, other)]
    found = {}
    for name in metrics:
        first, second = (np.stack([of_seed[name] for of_seed in method], axis=1) for method in values)
        found[name] = _difference((shares * (first - second)).sum(axis=1))
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts the p values of a family so that the chance of any false rejection stays below the level (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1; none becomes smaller than the one before it, or larger than 1.

    Args:
        p_values: in any order.

    Returns:
        adjusted p values in the same order.

    Example:
        >>> holm([0.01, 0.02])
        [0.02, 0.02]
    """
    p = np.asarray(p_values, dtype=float)
    if not len(p):
        return []
    order = np.argsort(p, kind="stable")
    raised = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    adjusted = np.empty_like(p)
    adjusted[order] = raised
    return adjusted.tolist()


def weighted_metrics(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray, *, metrics: Sequence[str] = METRICS
) -> dict[str, np.ndarray]:
    """Metrics of one set of predictions under many weightings of its images.

    Args:
        probabilities: (N, K), rows that sum to 1.
        labels: class indices (N,).
        weights: (R, N), how often each image counts.
        metrics: which of :data:`dual_skd.evaluation.metrics.METRICS`, as defined there.

    Returns:
        per metric an array (R,); nan where the metric isn't defined.
    """
    p = np.asarray(probabilities, dtype=float)
    truth = np.eye(p.shape[1])[labels]
    predicted = p.argmax(axis=1)
    hits = (predicted == labels).astype(float)
    total = weights.sum(axis=1)
    found = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name in metrics:
            if name == "accuracy":
                found[name] = weights @ hits / total
            elif name == "balanced_accuracy":
                # summed over the images of each class; a class that was not drawn doesn't count
                found[name] = np.nanmean(_divided(weights @ (truth * hits[:, None]), weights @ truth), axis=1)
            elif name == "f1":
                both = weights @ (truth * hits[:, None])
                either = weights @ truth + weights @ np.eye(p.shape[1])[predicted]
                found[name] = np.divide(2 * both, either, out=np.zeros_like(both), where=either > 0).mean(axis=1)
            elif name == "nll":
                found[name] = weights @ -np.log(np.maximum(p[np.arange(len(p)), labels], 1e-300)) / total
            elif name == "brier":
                found[name] = weights @ np.square(p - truth).sum(axis=1) / total
            elif name == "ece":
                found[name] = _calibration_error(p.max(axis=1), hits, weights) / total
            else:
                found[name] = np.mean([_areas(p[:, k], truth[:, k], weights) for k in range(p.shape[1])], axis=0)
    return found


def _areas(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted area under the ROC curve (R,), ties counting half; nan without positives or negatives."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ranked, side = weights[:, order], positive[order]
    up = np.add.reduceat(ranked * side, starts, axis=1)
    down = np.add.reduceat(ranked * (1 - side), starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2
    return _divided((up * below).sum(axis=1), up.sum(axis=1) * down.sum(axis=1))


def _calibration_error(confidence: np.ndarray, hits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    edges = np.linspace(0, 1, ECE_BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, ECE_BINS - 1)
    gaps = np.eye(ECE_BINS)[place] * (hits - confidence)[:, None]
    return np.abs(weights @ gaps).sum(axis=1)


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _image_counts(
    random: np.random.Generator, images: int, patients: Sequence[str] | None, resamples: int
) -> np.ndarray:
    """How often each image is drawn, (resamples, images): as often as its patient is."""
    names = patients if patients is not None else [""] * images
    if len(names) != images:
        raise InputError(f"There are {images} images, but {len(names)} patients; give one patient per image.")
    keys = [f"patient {name}" if name else place for place, name in enumerate(names)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    drawn = random.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=resamples)
    return drawn[:, [numbers[key] for key in keys]].astype(float)


def _difference(distribution: np.ndarray) -> Difference:
    """From the observed difference and those of the resamples behind it."""
    value, drawn = float(distribution[0]), distribution[1:]
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or not len(drawn):
        return Difference(float("nan"), float("nan"), float("nan"), float("nan"))
    low, high = np.percentile(drawn, (2.5, 97.5))
    # rounding must not decide on which side of 0 an equal pair lies
    side = min(np.sum(drawn <= 1e-12), np.sum(drawn >= -1e-12))
    return Difference(value, float(low), float(high), float(min(1.0, 2 * (side + 1) / (len(drawn) + 1))))


def _checked(
    one: np.ndarray, other: np.ndarray, labels: np.ndarray, metrics: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    one, other = (p[None] if p.ndim == 2 else p for p in (np.asarray(one, float), np.asarray(other, float)))
    labels = np.asarray(labels)
    if one.shape != other.shape or one.ndim != 3 or labels.shape != one.shape[1:2]:
        raise InputError(
            f"A paired comparison needs two arrays (seeds, images, classes) of one shape and a label per image, found "
            f"{one.shape}, {other.shape} and labels {labels.shape}; compare the seeds that both methods have."
        )
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise InputError(f"Unknown metrics {', '.join(unknown)}; valid: {', '.join(METRICS)}.")
    return one, other, labels
