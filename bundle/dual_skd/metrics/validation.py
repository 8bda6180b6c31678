# SPDX-License-Identifier: Apache-2.0
"""What the statistics take: probabilities, labels and names of classes, checked once and in one way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from dual_skd.errors import InputError
from dual_skd.utils.wording import first_few

_ROUNDING = 1e-6  # by which a probability may be above 1


def checked_predictions(
    probabilities: ArrayLike, labels: ArrayLike, multi_label: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities as float64 and labels as integers, of at least one image.

    Raises:
        InputError: they don't fit together, or aren't probabilities and labels.
    """
    p = checked_probabilities(probabilities, multi_label)
    return p, checked_labels(labels, p.shape, multi_label)


def checked_probabilities(probabilities: ArrayLike, multi_label: bool = False) -> np.ndarray:
    """Probabilities (N, K) as float64.

    Raises:
        InputError: the shape is another, one isn't from 0 to 1, or a row doesn't sum to 1 (not with ``multi_label``).
    """
    p = np.asarray(probabilities, dtype=float)
    if p.ndim != 2 or not p.shape[1]:
        raise InputError(f"Expected probabilities (N, K) of N images and K classes, found an array {p.shape}.")
    outside = ~((p >= 0) & (p <= 1 + _ROUNDING)).all(axis=1)
    if outside.any():
        raise InputError(
            f"Expected probabilities from 0 to 1, found others in {outside.sum()} of {len(p)} images; apply softmax "
            "first."
        )
    if not multi_label and (wrong := np.abs(p.sum(axis=1) - 1) > 1e-3).any():
        raise InputError(
            f"Expected probabilities that sum to 1, found {p[wrong][0].sum():.6g} in an image; with several labels per "
            "image use multi_label."
        )
    return np.minimum(p, 1.0)


def checked_labels(labels: ArrayLike, shape: tuple[int, ...], multi_label: bool = False) -> np.ndarray:
    """Labels as integers: class indices (N,); with ``multi_label`` zeros and ones (N, K).

    Args:
        labels: of at least one image.
        shape: of the predictions, (N, K).
        multi_label: see above.

    Raises:
        InputError: the shape is another, or one isn't a whole number from 0 to K - 1, or to 1.
    """
    labels = np.asarray(labels)
    if len(shape) != 2 or not shape[0] or labels.shape != (shape if multi_label else shape[:1]):
        raise InputError(
            f"Expected predictions (N, K) and labels {'(N, K)' if multi_label else '(N,)'} of at least one image, "
            f"found {tuple(shape)} and labels {labels.shape}; check the data set and multi_label."
        )
    largest = 1 if multi_label else shape[1] - 1
    try:
        numbers = labels.astype(float)  # of names and None there are none
    except (TypeError, ValueError):
        numbers = np.full(labels.shape, np.nan)
    wrong = ~((numbers >= 0) & (numbers <= largest) & (numbers == np.floor(numbers)))
    if wrong.any():
        raise InputError(
            f"Labels have to be whole numbers from 0 to {largest}, found {labels[wrong].tolist()[0]!r}; check "
            "class_names against the data set."
        )
    return numbers.astype(np.int64)


def checked_columns(**given: ArrayLike) -> list[np.ndarray]:
    """Finite numbers (N,) by their names, one per image, of at least one image.

    Raises:
        InputError: they differ in length or aren't one-dimensional, there is none, or one isn't a finite number.
    """
    columns = {name: np.asarray(values) for name, values in given.items()}
    shapes = {name: values.shape for name, values in columns.items()}
    images = next(iter(shapes.values()))
    if len(images) != 1 or not images[0] or set(shapes.values()) != {images}:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(
            f"Expected one number per image and at least one image: {' and '.join(shapes)} (N,), found {found}; of "
            "several labels per image give one column."
        )
    for name, values in columns.items():
        if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
            raise InputError(f"Expected {name} that are finite numbers, found {(~finite).sum()} of {len(values)} not.")
    return list(columns.values())


def checked_class_names(class_names: Sequence[str] | None, classes: int) -> list[str]:
    """The names as they are, or the numbers of the classes without any.

    Raises:
        InputError: not one name per class.
    """
    names = [str(name) for name in (class_names if class_names is not None else range(classes))]
    if len(names) != classes:
        raise InputError(
            f"There are {classes} probabilities per image, but {len(names)} class_names ({first_few(names)}); give one "
            "name per class, in the order of the probabilities."
        )
    return names
