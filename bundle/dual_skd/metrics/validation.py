# SPDX-License-Identifier: Apache-2.0
"""What the statistics take: probabilities, labels and names of classes, checked once and in one way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dual_skd.errors import InputError


def checked_predictions(
    probabilities: np.ndarray, labels: np.ndarray, multi_label: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities as float64 and labels as integers.

    Raises:
        InputError: they don't fit together, or aren't probabilities and labels.
    """
    p, labels = np.asarray(probabilities, dtype=float), np.asarray(labels)
    wanted = p.shape if multi_label else p.shape[:1]
    if p.ndim != 2 or not p.size or labels.shape != wanted:
        raise InputError(
            f"Statistics need probabilities (N, K) and labels {'(N, K)' if multi_label else '(N,)'} of at least one "
            f"image, found {p.shape} and {labels.shape}; check the data set and multi_label."
        )
    if not ((p >= 0) & (p <= 1 + 1e-6)).all():
        bad = int((~((p >= 0) & (p <= 1 + 1e-6))).any(axis=1).sum())
        raise InputError(f"Probabilities of {bad} of {len(p)} images don't lie within 0 to 1; apply softmax first.")
    if not multi_label and (np.abs(p.sum(axis=1) - 1) > 1e-3).any():
        raise InputError("Probabilities of an image have to sum to 1; with several labels per image use multi_label.")
    return np.minimum(p, 1.0), whole_labels(labels, 1 if multi_label else p.shape[1] - 1)


def whole_labels(labels: np.ndarray, most: int) -> np.ndarray:
    """Labels as integers.

    Raises:
        InputError: one isn't a whole number from 0 to ``most``.
    """
    labels = np.asarray(labels)
    try:
        numbers = labels.astype(float)  # of names and None there are none
    except (TypeError, ValueError):
        numbers = np.full(labels.shape, np.nan)
    wrong = ~np.isin(numbers, np.arange(most + 1))
    if wrong.any():
        raise InputError(
            f"Labels have to be whole numbers from 0 to {most}, found {labels[wrong].tolist()[0]!r}; check "
            "class_names against the data set."
        )
    return numbers.astype(np.int64)


def checked_class_names(class_names: Sequence[str] | None, classes: int) -> list[str]:
    """The names as they are, or the numbers of the classes without any.

    Raises:
        InputError: not one name per class.
    """
    names = [str(name) for name in (class_names if class_names is not None else range(classes))]
    if len(names) != classes:
        raise InputError(
            f"There are {classes} probabilities per image, but {len(names)} class_names ({some(names)}); give one "
            "name per class, in the order of the probabilities."
        )
    return names


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names, and how many more there are, for a sentence."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
