# SPDX-License-Identifier: Apache-2.0
"""Simulations of what is decided: thresholds for a sensitivity, prediction sets and likelihood ratios.

Scores are normal, 1.5 deviations apart, so that the sensitivity of a threshold and the coverage of a rule are known in
closed form. Clustered: a patient's images share a part of their score and are all ill or all well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from dual_skd.metrics.design_effect import fewest_effective
from dual_skd.metrics.likelihood_ratio import likelihood_ratios
from dual_skd.metrics.operating_point import choose_operating_point, too_few
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.uncertainty import fit_conformal

DISTANCE = 1.5  # of the mean scores of ill and well, in standard deviations
PATIENT_SHARE = 0.6  # of the variance of clustered scores lies between patients
NORMAL = NormalDist()


class Validation(NamedTuple):
    """Size of a validation set: images, patients (0 for one image each), and the share of ill ones."""

    images: int
    patients: int = 0
    ill: float = 0.5

    def __str__(self) -> str:
        """In words."""
        return f"{self.images} images{f' of {self.patients} patients' if self.patients else ''}, {self.ill:.0%} ill"

    def draw(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
        """Probabilities of well and ill (N, 2), labels, and patients."""
        unit = random.integers(self.patients, size=self.images) if self.patients else np.arange(self.images)
        labels = (random.random(unit.max() + 1) < self.ill)[unit].astype(int)
        share = PATIENT_SHARE if self.patients else 0.0
        own = math.sqrt(1 - share) * random.normal(size=self.images)
        scores = math.sqrt(share) * random.normal(size=unit.max() + 1)[unit] + own + DISTANCE * labels
        p = 1 / (1 + np.exp(-self.logit(scores)))
        return np.stack([1 - p, p], axis=1), labels, [f"p{one}" for one in unit] if self.patients else None

    def logit(self, scores: np.ndarray) -> np.ndarray:
        """Log of the odds of ill, by Bayes."""
        return DISTANCE * (scores - DISTANCE / 2) + math.log(self.ill / (1 - self.ill))

    def shares_above(self, p: float) -> tuple[float, float]:
        """True sensitivity and specificity of calling ill from a probability on."""
        if not 0 < p < 1:
            return (1.0, 0.0) if p <= 0 else (0.0, 1.0)
        score = (math.log(p / (1 - p)) - math.log(self.ill / (1 - self.ill))) / DISTANCE + DISTANCE / 2
        return 1 - NORMAL.cdf(score - DISTANCE), NORMAL.cdf(score)


THRESHOLD_CASES = (
    (Validation(38), 0.9), (Validation(38), 0.8), (Validation(100), 0.9), (Validation(400), 0.9),
    (Validation(400, ill=0.15), 0.9), (Validation(200, 100), 0.9), (Validation(400, 100), 0.9),
)  # fmt: skip
SET_CASES = (
    Validation(38),
    Validation(100),
    Validation(400),
    Validation(36, 9),
    Validation(100, 50),
    Validation(400, 100),
)
RATIO_CASES = (
    Validation(40), Validation(100, ill=0.1), Validation(400, ill=0.05), Validation(400), Validation(400, 100)
)  # fmt: skip


def threshold_rows(simulations: int) -> Iterator[str]:
    """How often a threshold has less than the wished sensitivity in truth, by the plain rule and with confidence."""
    yield "| validation set | wished sensitivity | rule | too few | truth below the wish | sensitivity | specificity |"
    yield "|---|---|---|---|---|---|---|"
    for size, wish in THRESHOLD_CASES:
        for confidence in (None, 0.95):
            true = []
            for case in range(simulations):
                p, labels, patients = size.draw(np.random.default_rng([case, 10]))
                asked = {"sensitivity": wish, "confidence": confidence, "patients": patients}
                if not too_few(labels == 1, scores=p[:, 1], **asked):
                    true.append(size.shares_above(choose_operating_point(p, labels, **asked).threshold))
            rule = "plain" if confidence is None else f"{confidence:.0%} confidence"
            yield f"| {size} | {wish:g} | {rule} | {1 - len(true) / simulations:.1%} | {_below(true, wish)} |"


def _below(true: list[tuple[float, float]], wish: float) -> str:
    if not true:
        return "– | – | –"
    sensitivity, specificity = np.transpose(true)
    return f"{(sensitivity < wish).mean():.1%} | {sensitivity.mean():.3f} | {specificity.mean():.3f}"


def set_rows(simulations: int, alpha: float = 0.1) -> Iterator[str]:
    """True coverage of prediction sets over calibrations, and how often it is below what was said to be the least."""
    yield "| calibration set | mean coverage | 5 % of calibrations below | said to be the least | truth below it |"
    yield "|---|---|---|---|---|"
    for size in SET_CASES:
        true, least = [], []
        for case in range(simulations):
            p, labels, patients = size.draw(np.random.default_rng([case, 11]))
            rule = fit_conformal(p, labels, alpha=alpha)
            sensitivity, _ = size.shares_above(1 - rule.threshold)
            _, specificity = size.shares_above(rule.threshold)
            if rule.threshold < 0.5:  # then the likeliest class alone is in the set
                sensitivity, specificity = size.shares_above(0.5)
            true.append(size.ill * sensitivity + (1 - size.ill) * specificity)
            least.append(rule.least_coverage(fewest_effective(patient_numbers(patients, len(p)))))
        below = np.mean(np.array(true) < np.array(least))
        yield f"| {size} | {np.mean(true):.3f} | {np.quantile(true, 0.05):.3f} | {np.mean(least):.3f} | {below:.1%} |"


def ratio_rows(simulations: int) -> Iterator[str]:
    """How often intervals of likelihood ratios at a probability hold the truth: the product's, and Simel's of 1991."""
    yield "| test set | threshold | ratio | truth | score interval | logarithm, of images | without one |"
    yield "|---|---|---|---|---|---|---|"
    for size in RATIO_CASES:
        for threshold in (0.2, 0.5):
            sensitivity, specificity = size.shares_above(threshold)
            true = {"positive": sensitivity / (1 - specificity), "negative": (1 - sensitivity) / specificity}
            for name, ratio in true.items():
                held, plain, given = 0, 0, 0
                for case in range(simulations):
                    p, labels, patients = size.draw(np.random.default_rng([case, 12]))
                    called, truth = p[:, 1] >= threshold, labels == 1
                    one = getattr(likelihood_ratios(called, truth, patients), name)
                    if one.low is not None:
                        given += 1
                        held += one.low <= ratio <= (math.inf if one.high is None else one.high)
                        low, high = logarithm_interval(called if name == "positive" else ~called, truth)
                        plain += low <= ratio <= high
                shares = f"{held / given:.1%} | {plain / given:.1%} | {1 - given / simulations:.1%}"
                yield f"| {size} | {threshold:g} | LR {name} | {ratio:.3f} | {shares} |"


def logarithm_interval(answer: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Interval of a likelihood ratio by its logarithm (Simel et al. 1991), with halves added where a cell is empty."""
    x, n, y, m = (float(one.sum()) for one in (answer & truth, truth, answer & ~truth, ~truth))
    if 0 in (x, y, n - x, m - y):
        x, n, y, m = x + 0.5, n + 1, y + 0.5, m + 1
    half = NORMAL.inv_cdf(0.975) * math.sqrt(1 / x - 1 / n + 1 / y - 1 / m)
    return x / n / (y / m) * math.exp(-half), x / n / (y / m) * math.exp(half)
