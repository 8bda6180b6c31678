# SPDX-License-Identifier: Apache-2.0
"""Two classifiers on the same images by how often one of them alone is right, also from their tables of predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from dual_skd.errors import InputError
from dual_skd.metrics.predictions import PredictionTable
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.sign_flips import exact_p_value
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
        p: two-sided p value of equal accuracy.
    """

    both: int
    only_one: int
    only_other: int
    neither: int
    p: float


def mcnemar_test(
    one: np.ndarray, other: np.ndarray, labels: np.ndarray, *, patients: Sequence[Hashable] | None = None
) -> McNemar:
    """Test of equal accuracy (McNemar 1947) over patients: where they differ, is one right more often than a coin?

    A patient's difference is the number of images that the first alone has right minus those that the second alone has.
    The p value is the exact one, mid-p, of these differences with signs by a fair coin: with one image per patient that
    of McNemar's test (Fagerland et al. 2013, BMC Med Res Methodol 13:91), with many patients that of Obuchowski 1998
    (Stat Med 17:1495), who compares the sum with the normal distribution of the same variance. In simulations it has
    the level of 5 % with 1, 4 and 10 images per patient, and less where few images differ (docs/statistics.md), where
    the normal distribution has up to 7 %. Durkalski et al. 2003 (Stat Med 22:2417) give every patient the same weight,
    which is a test of another difference than that of the accuracies.

    Args:
        one: predicted classes (N,) of the first classifier.
        other: those of the second.
        labels: true classes (N,).
        patients: patient of each image, "" for an unknown one, which then stands for itself; None: every image does.

    Returns:
        a :class:`McNemar`; p is 1 where they never differ.

    Raises:
        InputError: shapes don't match.

    Example:
        >>> found = mcnemar_test(np.array([1, 1, 1, 1, 0]), np.array([0, 0, 0, 1, 0]), np.array([1, 1, 1, 1, 1]))
        >>> found.only_one, found.only_other, round(found.p, 6)
        (3, 0, 0.125)
    """
    one, other, labels = checked_columns(one=one, other=other, labels=labels)
    right, also = one == labels, other == labels
    units = patient_numbers(patients, len(labels))
    differences = np.bincount(units, weights=right.astype(float) - also)
    return McNemar(
        both=int((right & also).sum()),
        only_one=int((right & ~also).sum()),
        only_other=int((~right & also).sum()),
        neither=int((~right & ~also).sum()),
        p=exact_p_value(np.rint(differences)),
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
