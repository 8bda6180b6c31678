# SPDX-License-Identifier: Apache-2.0
"""How sure a prediction is: entropy, disagreement of two networks, prediction sets, and what is gained by abstaining.

All functions take probabilities, as arrays or as tensors on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dual_skd.errors import InputError
from dual_skd.metrics.binomial import CONFIDENCE, exact_lower_limit
from dual_skd.metrics.validation import checked_columns, checked_labels, checked_probabilities
from dual_skd.utils.wording import counted

CONFORMAL_METHODS = ("lac", "aps")
_ROUNDING = 1e-6  # of probabilities in a table: a set never loses a class to it


class Entropies(NamedTuple):
    """Entropies of several predictions of the same images, in nats, (N,) each.

    Attributes:
        total: entropy of the mean prediction.
        expected: mean entropy of the predictions: what stays uncertain although they agree.
        disagreement: total minus expected, the mutual information of label and network.
    """

    total: np.ndarray
    expected: np.ndarray
    disagreement: np.ndarray


class Conformal(NamedTuple):
    """A calibrated rule for prediction sets, see :func:`fit_conformal`.

    Attributes:
        method: ``lac`` or ``aps``.
        alpha: share of images whose set may miss the label.
        images: number of calibration images.
        threshold: largest score in a set; infinite where the images are too few, and every set is full then.
        randomised: of ``aps``.
    """

    method: str
    alpha: float
    images: int
    threshold: float
    randomised: bool = True

    def least_coverage(self, independent: int | None = None, confidence: float = CONFIDENCE) -> float:
        """Share of new images whose set holds the label, at the least: fewer calibrations have less than it states.

        1 - alpha is held on average over calibrations. Over calibrations of n images the coverage of one of them is
        distributed as Beta(k, n + 1 - k), k being the rank of the threshold (Vovk 2012, Conditional validity of
        inductive conformal predictors, proposition 2a); this is its 1 - ``confidence`` quantile.

        Args:
            independent: how many independent images the calibration images are worth; None for all of them.
            confidence: that the coverage is at least this.

        Example:
            >>> round(Conformal("lac", 0.1, 38, 0.9).least_coverage(), 3)  # Beta(36, 3)
            0.843
        """
        if self.threshold == math.inf:
            return 1.0
        n = self.images if independent is None else independent
        return exact_lower_limit(min(_rank(n, self.alpha), n), n, confidence) if n else 0.0

    @property
    def reason(self) -> str:
        """Why every set is full; "" where they aren't."""
        return self.why_full()

    def why_full(self, unit: str = "image") -> str:
        """The same, counting images, or patients."""
        if self.threshold < math.inf:
            return ""
        needed = math.ceil(1 / self.alpha - 1 - 1e-9)
        those = counted(self.images, f"validation {unit} is", f"validation {unit}s are")
        return (
            f"{those} too few for prediction sets that miss {self.alpha:g} of the labels ({needed} are needed): every "
            "set is full"
        )


class RiskCoverage(NamedTuple):
    """Errors among the answered images, from only the surest one to all N of them.

    Attributes:
        coverage: share of images answered, (N,): 1/N, 2/N ... 1.
        risk: mean error of those, (N,).
        aurc: area under the curve, the mean of ``risk`` (Geifman et al. 2019, section 3).
        excess: ``aurc`` less that of the best order, all right ones first (E-AURC, equation 4 there).
    """

    coverage: np.ndarray
    risk: np.ndarray
    aurc: float
    excess: float


def predictive_entropy(probabilities: ArrayLike, *, multi_label: bool = False) -> np.ndarray:
    """Entropy of each prediction as a share of the largest possible: 0 for a sure one, 1 for equal probabilities.

    Args:
        probabilities: (N, K), rows that sum to 1; with ``multi_label`` each number by itself.
        multi_label: the mean over the K labels of the entropy of yes and no.

    Returns:
        (N,), Shannon entropy divided by log K, or by log 2 with ``multi_label``. 0 for a single class.
    """
    p = _probabilities(probabilities, multi_label)
    if multi_label:
        return _entropy(np.stack([p, 1 - p], axis=-1)).mean(axis=1) / math.log(2)
    return _entropy(p) / math.log(p.shape[1]) if p.shape[1] > 1 else np.zeros(len(p))


def decompose_entropy(members: Sequence[ArrayLike]) -> Entropies:
    """Splits the uncertainty of several networks into that within and that between them (Depeweg et al. 2018).

    Args:
        members: M predictions (N, K) of the same images, rows that sum to 1.

    Returns:
        total = expected + disagreement, in nats. For two networks the disagreement is the Jensen-Shannon divergence of
        their predictions (Lin 1991), from 0 to log 2.

    Raises:
        InputError: there is none, they differ in shape, or they hold no probabilities.
    """
    stacked = [_probabilities(member, False) for member in members]
    if not stacked or any(member.shape != stacked[0].shape for member in stacked):
        shapes = ", ".join(str(member.shape) for member in stacked) or "none"
        raise InputError(f"Predictions of several networks have to be of the same images and classes; found {shapes}.")
    total = _entropy(np.mean(stacked, axis=0))
    expected = np.mean([_entropy(member) for member in stacked], axis=0)
    return Entropies(total, expected, np.maximum(total - expected, 0))


def disagreement(one: ArrayLike, other: ArrayLike, *, multi_label: bool = False) -> np.ndarray:
    """Jensen-Shannon divergence of two predictions in bits: 0 where they are equal, 1 where they exclude each other.

    Args:
        one: (N, K).
        other: the same of the other network.
        multi_label: the mean over the K labels of the divergence of yes and no.

    Returns:
        (N,).
    """
    if multi_label:
        both = [_probabilities(each, True) for each in (one, other)]
        pairs = [np.stack([each, 1 - each], axis=-1).reshape(-1, 2) for each in both]
        return decompose_entropy(pairs).disagreement.reshape(both[0].shape).mean(axis=1) / math.log(2)
    return decompose_entropy([one, other]).disagreement / math.log(2)


def decisions(probabilities: np.ndarray, labels: np.ndarray, multi_label: bool) -> tuple[np.ndarray, np.ndarray]:
    """What is decided about each image, with the surety of it: the likeliest class, or yes or no to every label.

    Args:
        probabilities: (N, K).
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        multi_label: every label is a yes or no of its own, decided at one half.

    Returns:
        probability of what was decided, and whether it is right: (N, 1), with ``multi_label`` (N, K).
    """
    p = probabilities
    if multi_label:
        return np.maximum(p, 1 - p), (p > 0.5) == (labels > 0.5)
    return p.max(axis=1)[:, None], (p.argmax(axis=1) == labels)[:, None]


# --- prediction sets --------------------------------------------------------------------------------------------------


def fit_conformal(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: float = 0.1,
    method: str = "lac",
    randomised: bool = True,
    seed: int = 0,
) -> Conformal:
    """Calibrates prediction sets that hold the label of a new image with probability 1 - alpha at least.

    Split conformal prediction (Papadopoulos 2002; Vovk et al. 2005): the threshold is the k-th smallest of the scores
    of n calibration images, k = ceil((n + 1) (1 - alpha)). That holds for any network, on average over images that
    come from where the calibration images come from, and on average over calibrations, see
    :meth:`Conformal.least_coverage`; not for each class by itself, nor for another hospital. Images of one patient are
    not independent: then n counts for less than it says. And it holds less exactly for images that have
    also chosen the epoch or the temperature, as a run's validation images have.

    Args:
        probabilities: (n, K) of the calibration images, rows that sum to 1.
        labels: class indices (n,).
        alpha: share of misses, between 0 and 1.
        method: score of a class. ``lac``, 1 - p, gives the smallest sets (Sadinle et al. 2019). ``aps``, the
            probability of all classes that are likelier, and a random share of its own, gives sets that follow the
            difficulty of the image (Romano et al. 2020).
        randomised: False counts a class's own probability in full in ``aps``: no chance, and larger sets.
        seed: of that share.

    Returns:
        the rule for :func:`prediction_sets`. Fewer than 1/alpha - 1 images can't tell: then it gives full sets, and
        its ``reason`` says so.

    Raises:
        InputError: alpha, method, probabilities or labels that can't be used.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha is {alpha!r}; expected the share of misses, between 0 and 1, such as 0.1.")
    if method not in CONFORMAL_METHODS:
        raise InputError(f"Unknown conformal method {method!r}; valid: {', '.join(CONFORMAL_METHODS)}.")
    p = _probabilities(probabilities, False)
    n = len(p)
    rank = _rank(n, alpha)
    if rank > n:
        return Conformal(method, alpha, n, math.inf, randomised)
    scores = _scores(p, method, randomised, seed)[np.arange(n), checked_labels(labels, p.shape)]
    return Conformal(method, alpha, n, float(np.sort(scores)[rank - 1]), randomised)


def _rank(n: int, alpha: float) -> int:
    """Which of the n scores, from the smallest, is the threshold."""
    # 1e-9: (n + 1)(1 - alpha) that is a whole number stays one, whatever binary fractions make of it
    return math.ceil((n + 1) * (1 - alpha) - 1e-9)


def prediction_sets(probabilities: ArrayLike, rule: Conformal, *, seed: int = 1) -> np.ndarray:
    """Sets of classes that can't be ruled out.

    Args:
        probabilities: (N, K), of the network that the rule was calibrated with.
        rule: of :func:`fit_conformal`.
        seed: of ``aps``; not that of the calibration.

    Returns:
        (N, K), True where the class is in the image's set. The likeliest class always is: an empty set, which the
        theory allows, helps nobody, and a class more can only raise the coverage.
    """
    p = _probabilities(probabilities, False)
    inside = _scores(p, rule.method, rule.randomised, seed) <= rule.threshold + _ROUNDING
    inside[np.arange(len(p)), p.argmax(axis=1)] = True
    return inside


def set_coverage(sets: ArrayLike, labels: ArrayLike) -> dict[str, float | list[float | None]]:
    """How often sets hold the label and how large they are.

    Args:
        sets: (N, K), of :func:`prediction_sets`.
        labels: class indices (N,).

    Returns:
        ``coverage``; ``mean_size``; ``single``, the share of sets of one class; ``coverage_per_class``, None for a
        class without images.

    Raises:
        InputError: there is no image, or not a class index for each.
    """
    sets = np.asarray(sets, dtype=bool)
    labels = checked_labels(labels, sets.shape)
    hit = sets[np.arange(len(sets)), labels]
    sizes = sets.sum(axis=1)
    of_class = [hit[labels == k] for k in range(sets.shape[1])]
    return {
        "coverage": float(hit.mean()),
        "mean_size": float(sizes.mean()),
        "single": float((sizes == 1).mean()),
        "coverage_per_class": [float(hits.mean()) if len(hits) else None for hits in of_class],
    }


def _scores(p: np.ndarray, method: str, randomised: bool, seed: int) -> np.ndarray:
    """Scores (N, K) of all classes: larger is less fitting."""
    if method == "lac":
        return 1 - p
    order = np.argsort(-p, axis=1, kind="stable")
    ordered = np.take_along_axis(p, order, axis=1)
    before = np.cumsum(ordered, axis=1) - ordered
    own = np.random.default_rng(seed).random((len(p), 1)) if randomised else 1.0
    scores = np.empty_like(p)
    np.put_along_axis(scores, order, before + own * ordered, axis=1)
    return scores


# --- abstaining -------------------------------------------------------------------------------------------------------


def risk_coverage(uncertainty: ArrayLike, errors: ArrayLike) -> RiskCoverage:
    """Risk-coverage curve: the error that is left when only the surest share of the images is answered.

    Args:
        uncertainty: (N,), larger is less sure: 1 - largest probability, entropy, disagreement, ...
        errors: (N,), 1 where the prediction is wrong, 0 where it is right; or any error from 0 to 1.

    Returns:
        a :class:`RiskCoverage`. Images of equal uncertainty count as drawn in random order, so that the curve doesn't
        depend on the order of the table.

    Raises:
        InputError: the two differ in length, are empty, or aren't finite.

    Example:
        >>> curve = risk_coverage([0.1, 0.2, 0.9], [0, 0, 1])
        >>> curve.risk.round(3).tolist(), curve.excess
        ([0.0, 0.0, 0.333], 0.0)
    """
    uncertainty, errors = checked_columns(
        uncertainty=np.asarray(uncertainty, dtype=float), errors=np.asarray(errors, dtype=float)
    )
    _, group = np.unique(uncertainty, return_inverse=True)
    expected = np.bincount(group, weights=errors) / np.bincount(group)
    answered = np.arange(1, len(errors) + 1)
    risk = np.cumsum(expected[np.sort(group)]) / answered
    best = np.cumsum(np.sort(errors)) / answered
    aurc = float(risk.mean())
    return RiskCoverage(answered / len(errors), risk, aurc, aurc - float(best.mean()))


def _entropy(p: np.ndarray) -> np.ndarray:
    """Shannon entropy over the last axis in nats; 0 log 0 is 0."""
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)


def _probabilities(given: ArrayLike, multi_label: bool) -> np.ndarray:
    """Checked probabilities, made to sum to 1 exactly, which those of a table do to nine digits."""
    p = checked_probabilities(given, multi_label)
    return p if multi_label else p / p.sum(axis=1, keepdims=True)
