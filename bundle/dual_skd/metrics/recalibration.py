# SPDX-License-Identifier: Apache-2.0
"""Logistic recalibration: a slope and intercepts that fit probabilities to the outcomes of other patients.

For two classes it is the recalibration of Cox 1958 (Steyerberg et al. 2004, Statistics in Medicine 23:2567): the logit
of the risk times a slope, plus an intercept. For K classes it is its multinomial form, a bias per class and one slope
(bias-corrected temperature scaling; Alexandari, Kundaje and Shrikumar 2020, ICML), and with several labels per image
each label is recalibrated by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from dual_skd.errors import InputError
from dual_skd.metrics.probabilities import probabilities as probabilities_of
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.validation import checked_class_names, checked_predictions
from dual_skd.utils.wording import counted, first_few

FEWEST = 10  # patients with and without each class that are needed, for the fit and for measuring it
SMALLEST = 5e-7  # what a probability of 0 is taken for, or the smallest other one if that is less
_STEPS = 30  # of Newton's method: it needs about ten, and without a maximum the likelihood still grows after these
_CLOSE = 1e-16  # of the likelihood per image: the next step is the last one
_HALVINGS = 40


class LogisticFit(NamedTuple):
    """The maximum of the likelihood of the labels under softmax(slope * log p + intercepts).

    Attributes:
        intercepts: of the classes (K,), the first one 0.
        slope: 1 where it wasn't fitted.
        covariance: of the intercepts but the first, then of the slope if it was fitted; robust, over patients.
    """

    intercepts: np.ndarray
    slope: float
    covariance: np.ndarray


class Recalibration(NamedTuple):
    """Fitted numbers of a recalibration: softmax(slope * log p + intercept), or sigmoid(slope * logit p + intercept).

    Attributes:
        intercepts: of each class, the first one 0; with several labels per image of each label.
        slopes: of each class, all the same; with several labels per image of each label.
        notes: why labels were left as they are.
    """

    intercepts: tuple[float, ...]
    slopes: tuple[float, ...]
    notes: tuple[str, ...] = ()

    def __call__(self, probabilities: np.ndarray, *, multi_label: bool = False) -> np.ndarray:
        """Recalibrated probabilities (N, K)."""
        if not multi_label:
            return probabilities_of(np.array(self.slopes) * log_probabilities(probabilities) + self.intercepts)
        odds = np.diff([log_probabilities(1 - probabilities), log_probabilities(probabilities)], axis=0)[0]
        return probabilities_of(np.array(self.slopes) * odds + self.intercepts, multi_label=True)


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms; a probability of 0 counts as :data:`SMALLEST`, or as the smallest other one if that is less."""
    p = np.asarray(probabilities, dtype=float)
    return np.log(np.where(p > 0, p, min(SMALLEST, p[p > 0].min(initial=SMALLEST))))


def fit_recalibration(
    probabilities: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[Hashable] | None = None,
    *,
    slope: bool = True,
    class_names: Sequence[str] | None = None,
    multi_label: bool = False,
) -> Recalibration:
    """Fits intercepts, and a slope if wanted, by maximum likelihood.

    Args:
        probabilities: (N, K), rows that sum to 1; with ``multi_label`` each number by itself.
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        patients: patient of each image, "" for an unknown one, which then stands for itself.
        slope: False keeps it at 1.
        class_names: names in the messages, in the order of the probabilities.
        multi_label: every label is a yes or no of its own. One that has too few patients is left as it is, with a note.

    Raises:
        InputError: too few patients with or without a class, or a likelihood without a maximum, as where the
            probabilities tell the classes apart without an error.

    Example:
        >>> p = np.array([[0.8, 0.2]] * 40)  # says 20 %, and half of them are ill
        >>> found = fit_recalibration(p, np.arange(40) % 2, slope=False)
        >>> round(found.intercepts[1], 6), found(p)[0].round(6).tolist()  # log 4
        (1.386294, [0.5, 0.5])
    """
    p, labels = checked_predictions(probabilities, labels, multi_label)
    names, units = checked_class_names(class_names, p.shape[1]), patient_numbers(patients, len(p))
    if multi_label:
        return _of_labels(p, labels, units, slope, names)
    if reasons := too_few_patients(labels[:, None] == np.arange(p.shape[1]), units, names):
        raise InputError(
            f"No recalibration: of those to fit on {reasons[0]}; give more images, or a larger share of them."
        )
    found = _fit_or_refuse(log_probabilities(p), labels, units, slope, names)
    return Recalibration(tuple(found.intercepts.tolist()), (found.slope,) * len(names))


def _of_labels(
    p: np.ndarray, labels: np.ndarray, units: np.ndarray, slope: bool, names: Sequence[str]
) -> Recalibration:
    """Each label recalibrated by itself."""
    intercepts, slopes, notes = [0.0] * len(names), [1.0] * len(names), []
    for k, name in enumerate(names):
        if reasons := too_few_patients(labels[:, k : k + 1] > 0, units, [name]):
            notes.append(reasons[0])
            continue
        both = log_probabilities(np.stack([1 - p[:, k], p[:, k]], axis=1))
        try:
            found = _fit_or_refuse(both, labels[:, k], units, slope, [name])
        except InputError as error:
            notes.append(str(error))
        else:
            intercepts[k], slopes[k] = float(found.intercepts[1]), found.slope
    if len(notes) == len(names):
        raise InputError(
            f"No recalibration: of those to fit on {notes[0]}; give more images, or a larger share of them."
        )
    return Recalibration(tuple(intercepts), tuple(slopes), tuple(notes))


def too_few_patients(truth: np.ndarray, units: np.ndarray, names: Sequence[str]) -> list[str]:
    """Why classes can't be recalibrated or measured: a sentence for each with or without too few patients.

    Args:
        truth: (N, K), whether an image is of a class.
        units: number of each image's patient (N,).
        names: of the classes.
    """
    found = {(side, name): len(np.unique(units[of_class == there])) for side, there in (("with", 1), ("without", 0))
             for name, of_class in zip(names, truth.T, strict=True)}  # fmt: skip
    return [f"{counted(count, 'patient')} {side} {name}, at least {FEWEST} are needed"
            for (side, name), count in found.items() if count < FEWEST]  # fmt: skip


def patients_for_the_fit(truth: np.ndarray, units: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Marks the images (N,) of a share of the patients, drawn among those whose rarest class is the same.

    Args:
        truth: (N, K), whether an image is of a class.
        units: number of each image's patient (N,), from :func:`~dual_skd.metrics.resampling.patient_numbers`.
        share: of the patients.
        seed: of the draw.
    """
    count = int(units.max()) + 1
    images = np.hstack([truth, np.ones((len(truth), 1))])  # every patient has the last one, also those without a label
    has = np.stack([np.bincount(units, weights=column) > 0 for column in images.T], axis=1)
    size = has.sum(axis=0)
    rarest = np.where(has, size, count + 1).argmin(axis=1)
    random, chosen = np.random.default_rng(seed), np.zeros(count, dtype=bool)
    for stratum in np.unique(rarest):
        members = random.permutation(np.flatnonzero(rarest == stratum))
        chosen[members[: round(share * len(members))]] = True
    return chosen[units]


def fit_logistic(log_p: np.ndarray, labels: np.ndarray, units: np.ndarray, *, slope: bool) -> LogisticFit | None:
    """Maximum likelihood of intercepts, and of the slope if wanted, by Newton's method with halved steps.

    The covariance is the sandwich over patients with the correction G / (G - 1) * (N - 1) / (N - parameters), as Stata
    and statsmodels give it (Liang and Zeger 1986, Biometrika 73:13).

    Args:
        log_p: (N, K), logarithms of the probabilities.
        labels: class indices (N,), each class at least once.
        units: number of each image's patient (N,).
        slope: False keeps it at 1.

    Returns:
        None where the likelihood has no maximum: the classes are told apart without an error, or every image has the
        same probabilities and the slope is asked for.
    """
    images, classes = log_p.shape
    truth = np.eye(classes)[labels]
    relative = log_p - log_p[:, :1]
    if slope and (np.ptp(relative, axis=0).max() < 1e-9 or (classes == 2 and _separate(relative[:, 1], labels))):
        return None
    at = np.zeros(classes - 1 + slope)  # there the likelihood bends most: from 1, sure risks send the steps astray
    loss, p = _loss(relative, truth, at)
    for _ in range(_STEPS):
        scores, hessian = _derivatives(relative, truth, p, slope)
        try:
            step = np.linalg.solve(hessian, scores.sum(axis=0))
        except np.linalg.LinAlgError:
            return None
        gain = float(scores.sum(axis=0) @ step)
        for _ in range(_HALVINGS):
            moved = _loss(relative, truth, at + step)
            if moved[0] <= loss or gain < _CLOSE * images:
                break
            step = step / 2
        at, (loss, p) = at + step, moved
        if gain < _CLOSE * images:
            break
    else:
        return None
    if slope and (p.argmax(axis=1) == labels).all():  # larger numbers would fit better still
        return None
    scores, hessian = _derivatives(relative, truth, p, slope)
    patients = int(units.max()) + 1
    sums = np.zeros((patients, len(at)))
    np.add.at(sums, units, scores)
    try:
        inverse = np.linalg.inv(hessian)
    except np.linalg.LinAlgError:
        return None
    correction = patients / max(patients - 1, 1) * (images - 1) / max(images - len(at), 1)
    return LogisticFit(
        np.append(0, at[: classes - 1]), float(at[-1]) if slope else 1.0, correction * inverse @ sums.T @ sums @ inverse
    )


def _separate(logit: np.ndarray, labels: np.ndarray) -> bool:
    """Whether the logits of two classes don't overlap, but for ties (Albert and Anderson 1984, Biometrika 71:1)."""
    one, other = logit[labels == 0], logit[labels == 1]
    return bool(one.max() <= other.min() or other.max() <= one.min())


def _loss(relative: np.ndarray, truth: np.ndarray, at: np.ndarray) -> tuple[float, np.ndarray]:
    """Negative log likelihood, and the probabilities (N, K)."""
    classes = truth.shape[1]
    z = relative * (at[-1] if len(at) == classes else 1.0) + np.append(0, at[: classes - 1])
    z = z - z.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(z).sum(axis=1, keepdims=True))
    return float(((log_sum - z) * truth).sum()), np.exp(z - log_sum)


def _derivatives(relative: np.ndarray, truth: np.ndarray, p: np.ndarray, slope: bool) -> tuple[np.ndarray, np.ndarray]:
    """Derivative of each image's log likelihood (N, q), and the negative second derivative of all (q, q)."""
    scores, hessian = (truth - p)[:, 1:], (np.diag(p.sum(axis=0)) - p.T @ p)[1:, 1:]
    if not slope:
        return scores, hessian
    centred = relative - (p * relative).sum(axis=1, keepdims=True)
    beside = (p * centred).sum(axis=0)[1:, None]
    corner = np.array([[(p * centred**2).sum()]])
    scores = np.hstack([scores, ((truth - p) * relative).sum(axis=1, keepdims=True)])
    return scores, np.block([[hessian, beside], [beside.T, corner]])


def _fit_or_refuse(
    log_p: np.ndarray, labels: np.ndarray, units: np.ndarray, slope: bool, names: Sequence[str]
) -> LogisticFit:
    found = fit_logistic(log_p, labels, units, slope=slope)
    if found is None:
        raise InputError(
            f"No slope can be fitted for {first_few(names)}: the probabilities tell these images apart without an "
            "error, or are the same for all of them; take recalibrate intercept, or more images."
        )
    if found.slope <= 0:
        raise InputError(
            f"The slope of {first_few(names)} would be {found.slope:.3g}: higher probabilities go with fewer images of "
            "the class. No recalibration mends that; check the labels and class_map."
        )
    return found
