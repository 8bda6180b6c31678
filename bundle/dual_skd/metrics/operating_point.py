# SPDX-License-Identifier: Apache-2.0
"""The threshold from which an image counts as positive: chosen on validation images, applied to others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dual_skd.errors import InputError
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
    """

    threshold: float
    positive: int
    rule: str
    sensitivity: float
    specificity: float
    images: int
    positives: int

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
    class_names: Sequence[str] | None = None,
) -> OperatingPoint:
    """Chooses the threshold of one class on validation images.

    Without a wanted sensitivity or specificity, the threshold has the largest sensitivity + specificity - 1 (Youden
    1950), of equals the most sensitive one. It lies halfway between the two neighbouring probabilities.

    Args:
        probabilities: (N, K) of the validation images; of several labels per image those of one,
            ``np.stack([1 - p, p], axis=1)``.
        labels: class indices (N,).
        positive: class that is looked for, the others together being the rest: index, or one of ``class_names``.
        sensitivity: the largest threshold that finds at least this share of the positive images.
        specificity: the smallest threshold that leaves alone at least this share of the others.
        class_names: in the order of the probabilities, for ``positive`` as a name.

    Returns:
        an :class:`OperatingPoint` for :func:`dual_skd.metrics.bootstrap.bootstrap_intervals` on the test images.

    Raises:
        InputError: no image or no counter-example of the class, no such class, or wishes that can't be.

    Example:
        >>> p = np.array([0.1, 0.4, 0.3, 0.8])
        >>> choose_operating_point(np.stack([1 - p, p], axis=1), np.array([0, 0, 1, 1]), sensitivity=1).threshold
        0.2
    """
    p, labels = checked_predictions(probabilities, labels)
    _check_wish(sensitivity, specificity)
    positive = class_index(positive, p.shape[1], class_names)
    scores, truth = p[:, positive], labels == positive
    if truth.all() or not truth.any():
        name = class_names[positive] if class_names is not None else positive
        raise InputError(
            f"{int(truth.sum())} of the {len(p)} validation images are of class {name}: an operating point needs "
            "images of it and of the rest; choose it on other images."
        )
    thresholds, found, left = _curve(scores, truth)
    if sensitivity is not None:
        place = np.flatnonzero(found >= sensitivity - 1e-12)[-1]
        rule = f"sensitivity of at least {sensitivity:g}"
    elif specificity is not None:
        place = np.flatnonzero(left >= specificity - 1e-12)[0]
        rule = f"specificity of at least {specificity:g}"
    else:
        place = np.flatnonzero(found + left >= (found + left).max() - 1e-12)[0]
        rule = "largest sensitivity + specificity"
    at = [float(values[place]) for values in (thresholds, found, left)]
    return OperatingPoint(at[0], positive, rule, at[1], at[2], len(scores), int(truth.sum()))


def _check_wish(sensitivity: float | None, specificity: float | None) -> None:
    wanted = {"sensitivity": sensitivity, "specificity": specificity}
    given = {name: value for name, value in wanted.items() if value is not None}
    numbers = all(isinstance(value, (int, float, np.number)) and 0 < value <= 1 for value in given.values())
    if len(given) > 1 or not numbers:
        raise InputError(
            f"Expected a sensitivity or a specificity, a number above 0 and up to 1, not both; found {given}."
        )


def too_few(truth: np.ndarray, *, sensitivity: float | None = None, unit: str = "image") -> str:
    """Why a threshold for other images can't be chosen on these, in a few words; "" where it can.

    A new image of the class scores below the lowest of n with probability 1 / (n + 1), so that a sensitivity s can be
    had on average with n >= s / (1 - s) images only, as with prediction sets (Vovk et al. 2005): 9 for 0.9. In any case
    it takes :data:`FEWEST` of the class and of the rest.

    Args:
        truth: (N,), True for the images of the class.
        sensitivity: that is wished for.
        unit: what is counted: "image" or "patient".
    """
    truth = np.asarray(truth, dtype=bool)
    positives, rest = int(truth.sum()), int((~truth).sum())
    needed = FEWEST if sensitivity is None else max(FEWEST, math.ceil(sensitivity / max(1 - sensitivity, 1e-9) - 1e-9))
    if positives >= needed and rest >= FEWEST:
        return ""
    wish = "" if sensitivity is None else f" for a sensitivity of {sensitivity:g}"
    needs = f"({needed} and {FEWEST} needed)"
    return f"{positives} validation {unit}s of it and {rest} of the rest are too few{wish} {needs}"


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
