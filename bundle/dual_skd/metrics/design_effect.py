# SPDX-License-Identifier: Apache-2.0
"""For how many independent images the images of patients count, who have several.

A design effect is the variance of a number over the variance that it would have with as many independent images (Kish,
Survey Sampling, 1965; of shares Rao and Scott 1992, Biometrics 48:577). Images divided by it are the effective number.
"""

from __future__ import annotations

import numpy as np

FEW_PATIENTS = 15  # of fewer a design effect is too uncertain to promise anything by it (docs/statistics.md)


def design_effect(influence: np.ndarray, units: np.ndarray) -> float:
    """Design effect of a number, at least 1.

    Args:
        influence: what each image (n,) adds to the error of the number; of a share its value less the share.
        units: number of each image's patient (n,), from :func:`~dual_skd.metrics.resampling.patient_numbers`.

    Returns:
        1 where each patient has one image. Where the images leave no variance, such as a share of 1, that of patients
        whose images all say the same.

    Example:
        >>> right = np.array([1, 1, 0, 0, 1, 1, 0, 0])  # four patients whose two images agree
        >>> design_effect(right - right.mean(), np.array([0, 0, 1, 1, 2, 2, 3, 3]))  # 2, and a little for four
        2.3333333333333335
    """
    patients, images = len(np.unique(units)), len(units)
    if patients == images:
        return 1.0
    alone = float(np.square(influence).sum())
    if alone < 1e-12 or patients < 2:
        return _of_equal_images(units)
    together = float(np.square(np.bincount(units, weights=influence)).sum())
    return max(together / alone * (patients / (patients - 1)) / (images / (images - 1)), 1.0)


def effective_number(successes: np.ndarray, units: np.ndarray) -> int:
    """How many independent images these (n,) are worth for a share, rounded down.

    With fewer than :data:`FEW_PATIENTS` the design effect isn't known well enough: see :func:`fewest_effective`.
    """
    if len(np.unique(units)) < FEW_PATIENTS:
        return fewest_effective(units)
    successes = np.asarray(successes, dtype=float)
    return int(len(units) / design_effect(successes - successes.mean(), units) + 1e-9)


def fewest_effective(units: np.ndarray) -> int:
    """How many independent images those (n,) of patients are worth at least, as if a patient's all said the same.

    With as many images of each patient it is the number of patients.
    """
    return int(len(units) / _of_equal_images(units) + 1e-9) if len(units) else 0


def _of_equal_images(units: np.ndarray) -> float:
    sizes = np.bincount(units)
    return float(np.square(sizes).sum() / sizes.sum())  # the mean number of images, by image
