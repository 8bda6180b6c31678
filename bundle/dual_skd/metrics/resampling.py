# SPDX-License-Identifier: Apache-2.0
"""Drawing patients with replacement: the unit of resampling, and how often each image counts in a resample."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from dual_skd.errors import InputError

WEIGHTS_PER_BLOCK = 1_000_000  # held at once (4 MB): what fits into the cache is measured fastest
_EXACT = 2**20  # images up to which float32 holds counts, their sums and products exactly


def patient_numbers(patients: Sequence[Hashable] | None, images: int) -> np.ndarray:
    """Number of the independent unit, from 0, that each image belongs to.

    Args:
        patients: patient of each image; "", None or nan for an unknown one, which then stands for itself. None: every
            image stands for itself.
        images: how many there are.

    Returns:
        integers (N,).

    Raises:
        InputError: not one patient per image.
    """
    if patients is None:
        return np.arange(images)
    if len(patients) != images:
        raise InputError(f"There are {images} images, but {len(patients)} patients; give one patient per image.")
    keys = [place if is_unknown(name) else (name,) for place, name in enumerate(patients)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=int)


def is_unknown(patient: Hashable) -> bool:
    """Whether this names no patient: None, "", or nan, as tables have it for an empty cell."""
    return patient in (None, "") or patient != patient  # nan differs from itself


def drawn_weights(random: np.random.Generator, units: np.ndarray, resamples: int) -> Iterator[np.ndarray]:
    """Resamples of a bootstrap over whole units (Davison and Hinkley 1997, section 3.8): as many as there are, drawn
    with replacement, each with all of its images.

    Args:
        random: where the draws come from.
        units: number of each image's unit (N,), from :func:`patient_numbers`.
        resamples: how many resamples in all.

    Yields:
        (r, N), how often each image counts, in float32 where that is exact; the r add up to ``resamples``.
    """
    count = int(units.max()) + 1
    alone = count == len(units)  # then the units are the images in their order
    rows = max(1, WEIGHTS_PER_BLOCK // len(units))
    for start in range(0, resamples, rows):
        drawn = random.integers(count, size=(min(rows, resamples - start), count), dtype=np.int32)
        weights = np.empty(drawn.shape, np.float32 if len(units) <= _EXACT else np.float64)
        for row, chosen in zip(weights, drawn, strict=True):
            row[:] = np.bincount(chosen, minlength=count)
        yield weights if alone else weights.take(units, axis=1)
