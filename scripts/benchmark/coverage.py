# SPDX-License-Identifier: Apache-2.0
"""How often 95 % intervals hold the truth, on test sets that are drawn again and again.

Two classes: normal scores 1.5 deviations apart (AUC 0.856), calibrated, decided by the more probable class. Half of
the patients are ill, or five of them. A patient has one or more images, all ill or all well; half of the variance of
the scores lies between patients. Three classes: of unequal frequency, a little overconfident. What is true is known in
closed form, or from one sample of a million images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtr

from dual_skd.metrics.definitions import CALIBRATION_ERRORS
from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.intervals import metric_intervals
from dual_skd.metrics.weighted import WeightedMetrics

TRUTH_IMAGES = 1_000_000
DISTANCE = 1.5  # between ill and well, in standard deviations of the scores
PATIENT_SHARE = 0.5  # of the variance of scores lies between patients
FEW = 5  # ill patients
SHARES = ("accuracy", "sensitivity", "specificity", "ppv", "npv")
METRICS = (
    "macro_auc", "balanced_accuracy", "f1", "harmonic_mean", *SHARES, "average_precision", "nll", "brier", "ece",
    "ece_equal_mass",
)  # fmt: skip
OVERALL = tuple(name for name in METRICS if name not in ("harmonic_mean", *SHARES[1:]))


class Setting(NamedTuple):
    """A kind of test set: number of patients, how many of them are ill, and images of each."""

    patients: int
    ill: int
    images_each: int = 1

    def __str__(self) -> str:
        images = f" x {self.images_each} images" if self.images_each > 1 else ""
        return f"{self.patients} patients{images}, {self.ill} ill"

    @property
    def prevalence(self) -> float:
        return self.ill / self.patients


TWELVE = tuple(
    Setting(patients, ill, images)
    for images in (1, 2)
    for few in (False, True)
    for patients in (40, 100, 400)
    for ill in [FEW if few else patients // 2]
)
SETTINGS = (*TWELVE, *(Setting(100, ill, images) for images in (4, 10) for ill in (FEW, 50)))


class Sample(NamedTuple):
    """Probabilities (N, K), labels (N,), and the patient of each image (N,)."""

    probabilities: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


def two_classes(random: np.random.Generator, setting: Setting) -> Sample:
    """A test set of two classes."""
    patients = np.repeat(np.arange(setting.patients), setting.images_each)
    labels = (patients < setting.ill).astype(int)
    between = PATIENT_SHARE if setting.images_each > 1 else 0.0
    scores = np.sqrt(between) * random.normal(size=setting.patients)[patients]
    scores += np.sqrt(1 - between) * random.normal(size=len(patients)) + DISTANCE * labels
    ill = expit(DISTANCE * (scores - DISTANCE / 2) + logit(setting.prevalence))  # by Bayes
    return Sample(np.stack([1 - ill, ill], axis=1), labels, patients)


def many_classes(random: np.random.Generator, images: int, classes: int) -> Sample:
    """Classes of unequal frequency, right about two times of three, a little overconfident."""
    share = np.arange(classes, 0, -1) / np.arange(classes, 0, -1).sum()
    labels = random.choice(classes, size=images, p=share)
    logits = random.normal(size=(images, classes))
    logits[np.arange(images), labels] += DISTANCE
    p = np.exp(2 * logits)
    return Sample(p / p.sum(axis=1, keepdims=True), labels, np.arange(images))


def truth_of_two(setting: Setting) -> dict[str, float]:
    """What is true of new images: in closed form where there is one, else from a very large sample."""
    share = setting.prevalence
    threshold = DISTANCE / 2 - logit(share) / DISTANCE
    found, left = ndtr(DISTANCE - threshold), ndtr(threshold)
    called = share * found + (1 - share) * (1 - left)
    ppv, npv = share * found / called, (1 - share) * left / (1 - called)
    scale = TRUTH_IMAGES // setting.patients
    large = two_classes(np.random.default_rng(1), Setting(scale * setting.patients, scale * setting.ill))
    return truth_of(large, METRICS) | {
        "macro_auc": float(ndtr(DISTANCE / np.sqrt(2))), "accuracy": share * found + (1 - share) * left,
        "sensitivity": found, "specificity": left, "balanced_accuracy": (found + left) / 2, "ppv": ppv, "npv": npv,
        "f1": found * ppv / (found + ppv) + left * npv / (left + npv),
        "harmonic_mean": 2 * found * left / (found + left), **dict.fromkeys(CALIBRATION_ERRORS, 0.0),
    }  # fmt: skip


def truth_of(large: Sample, names: Sequence[str]) -> dict[str, float]:
    """The metrics of a very large sample, with two classes those of the second."""
    found = WeightedMetrics(large.probabilities, large.labels, names)(np.ones((1, len(large.labels))))
    return {
        name: float(found.overall[name][0] if name in found.overall else found.per_class[name][0, 1]) for name in names
    }


class Coverage:
    """Counts how often intervals hold the truth."""

    def __init__(self, true: dict[str, float]) -> None:
        self.true = true
        self.held = dict.fromkeys(true, 0)
        self.given = dict.fromkeys(true, 0)
        self.width = dict.fromkeys(true, 0.0)

    def add(self, found: dict[str, Estimate]) -> None:
        for name, true in self.true.items():
            one = found[name]
            if one.low is not None:
                self.given[name] += 1
                self.held[name] += one.low - 1e-12 <= true <= one.high + 1e-12
                self.width[name] += one.high - one.low

    def share(self, name: str) -> str:
        """Percentage of the intervals that hold the truth; with the percentage of sets that have one, if not all do."""
        given, sets = self.given[name], max(self.given.values())
        if not given:
            return "–"
        return f"{100 * self.held[name] / given:.1f}" + (f" ({100 * given / sets:.0f})" if given < sets else "")


def count(draw: Callable[[np.random.Generator], Sample], true: dict[str, float], sets: int, resamples: int) -> Coverage:
    """Counts over test sets.

    Args:
        draw: a test set.
        true: name of a metric -> what is true.
        sets: number of test sets.
        resamples: number of bootstrap resamples of each.
    """
    counted = Coverage(true)
    for case in range(sets):
        p, labels, patients = draw(np.random.default_rng([case, 2]))
        found = metric_intervals(p, labels, patients.tolist(), metrics=list(true), resamples=resamples, seed=case)
        counted.add(found.overall)
    return counted


def coverage(sets: int, resamples: int) -> Iterator[str]:
    """Rows of the table: percentages of the intervals that hold the truth."""
    yield "| test set | " + " | ".join(METRICS) + " |"
    yield "|---" * (len(METRICS) + 1) + "|"
    for setting in SETTINGS:
        counted = count(lambda random, of=setting: two_classes(random, of), truth_of_two(setting), sets, resamples)
        yield f"| {setting} | " + " | ".join(map(counted.share, METRICS)) + " |"
    true = truth_of(many_classes(np.random.default_rng(5), TRUTH_IMAGES, 3), OVERALL)
    for images in (100, 300):
        counted = count(lambda random, size=images: many_classes(random, size, 3), true, sets, resamples)
        shown = (counted.share(name) if name in OVERALL else "" for name in METRICS)
        yield f"| {images} patients, 3 classes | " + " | ".join(shown) + " |"
