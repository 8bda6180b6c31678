# SPDX-License-Identifier: Apache-2.0
"""The threshold from which an image counts as positive: chosen on validation images, applied to others."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from dual_skd.errors import InputError
from dual_skd.metrics.binomial import allowed_misses, fewest_trials
from dual_skd.metrics.design_effect import effective_number
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.validation import checked_predictions

FEWEST = 5  # images of a class and of the rest, for a threshold; of fewer each is over a fifth of what is measured


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what it did to the images that it was chosen on; ``dataclasses.asdict`` makes plain JSON of it.

    Attributes:
        threshold: an image whose probability of the positive class is this or more counts as positive.
        positive: index of that class.
        rule: how it was chosen.
        sensitivity: share of the positive images found, on the images that it was chosen on: not a result.
        specificity: share of the others left alone, there.
        images: how many images those were.
        positives: how many of them were of the class.
        confidence: that new images reach what was wished for; None where only those images do.
    """

    threshold: float
    positive: int
    rule: str
    sensitivity: float
    specificity: float
    images: int
    positives: int
    confidence: float | None = None

    def predict(self, scores: np.ndarray) -> np.ndarray:
        """Which probabilities (N,) of the positive class count as positive."""
        return np.asarray(scores) >= self.threshold


def choose_operating_point(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    positive: int | str = 1,
    sensitivity: float | None = None,
    specificity: float | None = None,
    confidence: float | None = None,
    patients: Sequence[Hashable] | None = None,
    class_names: Sequence[str] | None = None,
) -> OperatingPoint:
    """Chooses the threshold of one class on validation images.

    Without a wanted sensitivity or specificity, the threshold has the largest sensitivity + specificity - 1 (Youden
    1950), of equals the most sensitive one. It lies halfway between the two neighbouring probabilities.

    With one, the threshold reaches it on these images, and about every second such threshold misses it on new ones.
    With ``confidence`` the threshold is a tolerance limit (Wilks 1941, Annals of Mathematical Statistics 12:91): on
    these images so much more is reached that of all thresholds chosen so, at most the share 1 - ``confidence`` misses
    it on new images: the lower limit of Clopper and Pearson 1934 is the wish or more. Where patients have several
    images, the limit is that of the effective number, by the design effect at the threshold without ``confidence``
    (as Korn and Graubard 1998, Survey Methodology 24:193).

    Args:
        probabilities: (N, K) of the validation images; of several labels per image those of one,
            ``np.stack([1 - p, p], axis=1)``.
        labels: class indices (N,).
        positive: class that is looked for, the others together being the rest: index, or one of ``class_names``.
        sensitivity: the largest threshold that finds at least this share of the positive images.
        specificity: the smallest threshold that leaves alone at least this share of the others.
        confidence: that new images, too, have the wanted sensitivity or specificity, such as 0.95; None asks it of
            these images alone.
        patients: patient of each image, "" for an unknown one, for ``confidence``. None: each image has its own.
        class_names: in the order of the probabilities, for ``positive`` as a name.

    Returns:
        an :class:`OperatingPoint` for :func:`dual_skd.metrics.intervals.metric_intervals` on the test images.

    Raises:
        InputError: no image or no counter-example of the class, no such class, wishes that can't be, or too few images
            for the confidence.

    Example:
        >>> p = np.array([0.1, 0.4, 0.3, 0.8])
        >>> choose_operating_point(np.stack([1 - p, p], axis=1), np.array([0, 0, 1, 1]), sensitivity=1).threshold
        0.2
    """
    p, labels = checked_predictions(probabilities, labels)
    _check_wish(sensitivity, specificity, confidence)
    positive = class_index(positive, p.shape[1], class_names)
    scores, truth = p[:, positive], labels == positive
    if truth.all() or not truth.any():
        name = class_names[positive] if class_names is not None else positive
        raise InputError(
            f"{int(truth.sum())} of the {len(p)} validation images are of class {name}: an operating point needs "
            "images of it and of the rest; choose it on other images."
        )
    units = patient_numbers(patients, len(p))
    thresholds, found, left = _curve(scores, truth)
    if sensitivity is not None:
        needed = _share_needed(sensitivity, confidence, scores[truth], units[truth])
        place = np.flatnonzero(found >= needed - 1e-12)[-1]
        rule = f"sensitivity of at least {sensitivity:g}{_promise(confidence)}"
    elif specificity is not None:
        needed = _share_needed(specificity, confidence, -scores[~truth], units[~truth])
        place = np.flatnonzero(left >= needed - 1e-12)[0]
        rule = f"specificity of at least {specificity:g}{_promise(confidence)}"
    else:
        place = np.flatnonzero(found + left >= (found + left).max() - 1e-12)[0]
        rule = "largest sensitivity + specificity"
    at = [float(values[place]) for values in (thresholds, found, left)]
    return OperatingPoint(at[0], positive, rule, at[1], at[2], len(scores), int(truth.sum()), confidence)


def _share_needed(wish: float, confidence: float | None, scores: np.ndarray, units: np.ndarray) -> float:
    """Share of one side that has to be decided rightly, for the wish to hold with confidence; see :func:`_worth`."""
    if confidence is None:
        return wish
    worth = _worth(scores, wish, units)
    if (misses := allowed_misses(worth, wish, confidence)) < 0:
        raise InputError(
            f"The {len(units)} validation images count as {worth} independent ones, too few to make sure of {wish:g} "
            f"with {confidence:.0%} confidence; {_needed(wish, confidence)} are needed. Give more, or wish for less."
        )
    return 1 - misses / worth


def _worth(scores: np.ndarray, wish: float, units: np.ndarray) -> int:
    """Independent images that these of one side are worth, where the wished share of them is decided rightly.

    Args:
        scores: (n,), the larger the sooner decided rightly.
        wish: the share.
        units: number of each image's patient (n,).
    """
    if not len(scores):
        return 0
    least = np.sort(scores)[int(len(scores) * (1 - wish) + 1e-9)]
    return effective_number(scores >= least, units)


def _promise(confidence: float | None) -> str:
    return " on the validation images" if confidence is None else f" with {confidence:.0%} confidence"


def _needed(wish: float, confidence: float) -> str:
    needed = fewest_trials(wish, confidence)
    return f"{needed:.0f}" if math.isfinite(needed) else "infinitely many"


def _check_wish(sensitivity: float | None, specificity: float | None, confidence: float | None) -> None:
    wanted = {"sensitivity": sensitivity, "specificity": specificity}
    given = {name: value for name, value in wanted.items() if value is not None}
    numbers = all(isinstance(value, (int, float, np.number)) and 0 < value <= 1 for value in given.values())
    if len(given) > 1 or not numbers:
        raise InputError(
            f"Expected a sensitivity or a specificity, a number above 0 and up to 1, not both; found {given}."
        )
    if confidence is not None and not (given and 0.5 <= confidence < 1):
        raise InputError(
            "Expected a confidence of at least 0.5 and below 1, of a wanted sensitivity or specificity; found "
            f"{confidence!r} and {given}."
        )


def too_few(
    truth: np.ndarray,
    *,
    sensitivity: float | None = None,
    confidence: float | None = None,
    scores: np.ndarray | None = None,
    patients: Sequence[Hashable] | None = None,
    unit: str = "image",
) -> str:
    """Why a threshold for other images can't be chosen on these, in a few words; "" where it can.

    A new image of the class scores below the lowest of n with probability 1 / (n + 1), so that a sensitivity s can be
    had on average with n >= s / (1 - s) images only, as with prediction sets (Vovk et al. 2005): 9 for 0.9. With
    confidence c it takes log(1 - c) / log(s) (Wilks 1941): 29 for 0.9 with 0.95. In any case it takes :data:`FEWEST`
    of the class and of the rest.

    Args:
        truth: (N,), True for the images of the class.
        sensitivity: that is wished for.
        confidence: with which it is.
        scores: (N,), probabilities of the class, for the effective number of images where patients have several.
        patients: patient of each image, "" for an unknown one.
        unit: what is counted: "image" or "patient".
    """
    truth = np.asarray(truth, dtype=bool)
    positives, rest = int(truth.sum()), int((~truth).sum())
    worth, needed, wish, alike = positives, float(FEWEST), "", ""
    if sensitivity is not None:
        needed = max(needed, math.ceil(sensitivity / max(1 - sensitivity, 1e-9) - 1e-9))
        wish = f" for a sensitivity of {sensitivity:g}"
        if confidence is not None:
            needed = max(needed, fewest_trials(sensitivity, confidence))
            wish += f" with {confidence:.0%} confidence"
            if scores is not None and patients is not None:
                worth = _worth(np.asarray(scores)[truth], sensitivity, patient_numbers(patients, len(truth))[truth])
            alike = f", which count as {worth} independent ones," if worth < positives else ""
    if worth >= needed and rest >= FEWEST:
        return ""
    needs = f"({needed:.0f} and {FEWEST} needed)" if math.isfinite(needed) else "(no number is enough)"
    return f"{positives} validation {unit}s of it{alike} and {rest} of the rest are too few{wish} {needs}"


def one_against_rest(probabilities: np.ndarray, labels: np.ndarray, positive: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes two classes of many: probabilities (N, 2) of the rest and of ``positive``, and labels 0 and 1 (N,)."""
    p = np.asarray(probabilities, dtype=float)
    positive = class_index(positive, p.shape[1], None)
    return np.stack([1 - p[:, positive], p[:, positive]], axis=1), (np.asarray(labels) == positive).astype(int)


def class_index(name: int | str, classes: int, class_names: Sequence[str] | None) -> int:
    """Index of a class given by index or name.

    Raises:
        InputError: there is no such class.
    """
    if isinstance(name, str):
        if class_names is not None and name in class_names:
            return list(class_names).index(name)
        valid = ", ".join(class_names) if class_names is not None else "none were given"
        raise InputError(f"No class is named {name!r}; class_names: {valid}.")
    if not 0 <= name < classes:
        raise InputError(f"There is no class {name}: the predictions have {classes}, numbered from 0.")
    return int(name)


def _curve(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every threshold that makes a difference, ascending, with its sensitivity and specificity."""
    values, place = np.unique(scores, return_inverse=True)
    up = np.bincount(place[truth], minlength=len(values))
    down = np.bincount(place[~truth], minlength=len(values))
    middles = values[:-1] + (values[1:] - values[:-1]) / 2
    middles = np.where(middles > values[:-1], middles, values[1:])  # neighbours without a number between them
    thresholds = np.r_[values[0], middles, np.nextafter(values[-1], np.inf)]  # everything ... nothing is positive
    return thresholds, 1 - np.r_[0, np.cumsum(up)] / up.sum(), np.r_[0, np.cumsum(down)] / down.sum()
