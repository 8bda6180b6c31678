# SPDX-License-Identifier: Apache-2.0
"""Two classifiers on the same images by how often one of them alone is right, also from their tables of predictions."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from dual_skd.errors import InputError
from dual_skd.metrics.predictions import PredictionTable
from dual_skd.metrics.validation import checked_columns
from dual_skd.utils.wording import first_few


@dataclass(frozen=True)
class McNemar:
    """Images by which classifier is right about them; ``dataclasses.asdict`` makes plain JSON of it.

    Attributes:
        both: both are right.
        only_one: the first alone is.
        only_other: the second alone is.
        neither: none is.
        p: exact two-sided p value of equal accuracy.
    """

    both: int
    only_one: int
    only_other: int
    neither: int
    p: float


def mcnemar_test(one: np.ndarray, other: np.ndarray, labels: np.ndarray) -> McNemar:
    """Exact test of equal accuracy (McNemar 1947): is one more often right where they differ than a coin would be?

    Images count as independent: with several images per patient the p value is too small, and
    :func:`dual_skd.metrics.paired.paired_differences` with patients is the test to use.

    Args:
        one: predicted classes (N,) of the first classifier.
        other: those of the second.
        labels: true classes (N,).

    Returns:
        a :class:`McNemar`; p is 1 where they never differ.

    Raises:
        InputError: shapes don't match.

    Example:
        >>> found = mcnemar_test(np.array([1, 1, 1, 1, 0]), np.array([0, 0, 0, 1, 0]), np.array([1, 1, 1, 1, 1]))
        >>> found.only_one, found.only_other, round(found.p, 6)
        (3, 0, 0.25)
    """
    one, other, labels = checked_columns(one=one, other=other, labels=labels)
    right, also = one == labels, other == labels
    only_one, only_other = int((right & ~also).sum()), int((~right & also).sum())
    return McNemar(
        int((right & also).sum()), only_one, only_other, int((~right & ~also).sum()), _sign_test(only_one, only_other)
    )


def match_tables(
    one: PredictionTable, other: PredictionTable, *, names: tuple[str, str] = ("the first", "the second")
) -> tuple[PredictionTable, PredictionTable]:
    """Brings two tables of predictions of the same images into the same order of images and classes, the first one's.

    Args:
        one: of the first classifier.
        other: of the second.
        names: of the two, for the errors, such as their paths.

    Returns:
        the first as it is, and the second reordered.

    Raises:
        InputError: an image is in one table only or twice in one, or images differ in their label, or tables in their
            classes.
    """
    for table, name in zip((one, other), names, strict=True):
        twice = [image for image, count in Counter(table.images).items() if count > 1]
        if twice:
            raise InputError(f"{name} has more than one row for {first_few(twice)}; a pair needs one row per image.")
    if sorted(one.class_names) != sorted(other.class_names):
        raise InputError(
            f"{names[0]} has the classes {', '.join(one.class_names)}, {names[1]} {', '.join(other.class_names)}; "
            "compare classifiers of the same classes."
        )
    place = {image: number for number, image in enumerate(other.images)}
    only = [
        [image for image in one.images if image not in place],
        sorted(place.keys() - set(one.images), key=place.__getitem__),
    ]
    if any(only):
        found = "; ".join(
            f"{len(left)} only in {name}: {first_few(left)}" for left, name in zip(only, names, strict=True) if left
        )
        raise InputError(f"The two tables don't hold the same images ({found}); evaluate both on one set.")
    other = other.take([place[image] for image in one.images])
    columns = [other.class_names.index(name) for name in one.class_names]
    labels = other.labels[:, columns] if other.labels.ndim == 2 else np.argsort(columns)[other.labels]
    which = ", one with several per image"
    if labels.shape == one.labels.shape:
        differ = (labels != one.labels).reshape(len(labels), -1).any(axis=1)
        wrong = [one.images[row] for row in np.flatnonzero(differ)]
        which = f" of {len(wrong)} images: {first_few(wrong)}" if wrong else ""
    if which:
        raise InputError(f"{names[0]} and {names[1]} give different labels{which}; evaluate both on one set.")
    return one, other._replace(
        labels=labels, probabilities=other.probabilities[:, columns], class_names=list(one.class_names)
    )


def _sign_test(successes: int, failures: int) -> float:
    """Two-sided binomial test of a fair coin; exact, in logarithms because the numbers of cases overflow."""
    count = successes + failures
    if not count:
        return 1.0
    k = np.arange(1, min(successes, failures) + 1)
    log_cases = np.r_[0.0, np.cumsum(np.log(count - k + 1) - np.log(k))] - count * math.log(2)
    most = log_cases.max()
    return min(1.0, 2 * math.exp(most) * float(np.exp(log_cases - most).sum()))
