# SPDX-License-Identifier: Apache-2.0
"""One answer per patient: the probabilities of a patient's images, combined."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from dual_skd.errors import InputError
from dual_skd.metrics.predictions import PredictionTable
from dual_skd.metrics.resampling import is_unknown, patient_numbers

COMBINATIONS = ("mean", "max")


class PatientTable(NamedTuple):
    """Predictions with a row per patient.

    Attributes:
        table: the rows. A patient goes by the first path of its images, in alphabetical order; the column ``images``
            has their number.
        members: rows of the images of each patient, in the table of images.
        left_out_patients: number of patients without a label of their own, as their images have different ones.
        left_out_images: number of the images of those.
    """

    table: PredictionTable
    members: list[list[int]]
    left_out_patients: int
    left_out_images: int


def combine_patients(
    table: PredictionTable, patients: Sequence[Hashable], how: str = "mean", *, multi_label: bool = False
) -> PatientTable:
    """Makes one row of all images of a patient.

    ``mean`` is the mean probability of each class over the images. ``max`` is, with two classes, the largest
    probability of the positive one, which has index 1. With more classes it is for each class the probability of the
    image that is surest of it, divided by the sum of these.

    With two classes a patient is positive if any image is. With more classes a patient has the label of its images, and
    is left out where they have different ones. With several labels per image a patient has those of any image.

    Args:
        table: a row per image.
        patients: patient of each image, "" for an unknown one, which is a patient of its own then.
        how: ``mean`` or ``max``.
        multi_label: every label is a yes or no of its own.

    Raises:
        InputError: there is no such combination, no patient is known, or most of them would be left out.

    Example:
        >>> images = PredictionTable(["a", "b", "c"], np.array([0, 1, 0]), np.array([[.8, .2], [.4, .6], [.9, .1]]),
        ...                          ["well", "ill"], {})
        >>> found = combine_patients(images, ["Ann", "Ann", "Ben"], "max").table
        >>> found.labels.tolist(), found.probabilities[:, 1].tolist()
        ([1, 0], [0.6, 0.1])
    """
    if how not in COMBINATIONS:
        raise InputError(f"Expected {' or '.join(COMBINATIONS)} to combine the images of a patient, found {how!r}.")
    units = patient_numbers(patients, len(table.images))
    if all(is_unknown(one) for one in patients):
        raise InputError(
            f"Expected images with patients, found none: of {len(units)} images no patient is known. Give the patients "
            "in the data, or by patient_pattern; or measure per image."
        )
    members = [np.flatnonzero(units == unit) for unit in range(int(units.max()) + 1)]
    whole = [rows for rows in members if multi_label or _one_label(table, rows)]
    if 2 * len(whole) < len(members):  # the question is one about images
        raise InputError(
            f"Expected patients with one label each, found {len(members) - len(whole)} of {len(members)} with images "
            "of different labels; measure per image."
        )
    left_out = len(table.images) - sum(map(len, whole))
    combined = PredictionTable(
        [min(table.images[row] for row in rows) for rows in whole],
        np.stack([table.labels[rows].max(axis=0) for rows in whole]),
        np.stack([_combined(table.probabilities[rows], how, multi_label) for rows in whole]),
        table.class_names,
        {"images": [str(len(rows)) for rows in whole]},
    )
    return PatientTable(combined, [rows.tolist() for rows in whole], len(members) - len(whole), left_out)


def _one_label(table: PredictionTable, rows: np.ndarray) -> bool:
    """Whether these images give their patient a label; with two classes any do."""
    return len(table.class_names) == 2 or len(set(table.labels[rows].tolist())) == 1


def _combined(p: np.ndarray, how: str, multi_label: bool) -> np.ndarray:
    """Probabilities (K,) of a patient from those of its images (n, K)."""
    if how == "mean":
        return p.mean(axis=0)
    largest = p.max(axis=0)
    if multi_label:
        return largest
    if len(largest) == 2:
        return np.array([1 - largest[1], largest[1]])
    return largest / largest.sum()
