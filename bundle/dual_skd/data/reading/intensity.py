# SPDX-License-Identifier: Apache-2.0
"""Intensity windows and scaling: windows in HU, percentiles, z-score, chosen by modality."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from monai.transforms import (
    Lambdad,
    MapTransform,
    NormalizeIntensityd,
    ScaleIntensityRange,
    ScaleIntensityRanged,
)
from monai.transforms.utils_pytorch_numpy_unification import percentile

from dual_skd.data.reading.expectation import PICTURES, Window
from dual_skd.data.reading.facts import ImageFacts, look_at_sample
from dual_skd.data.reading.grey import voi_range
from dual_skd.errors import InputError

logger = logging.getLogger(__name__)

# (centre, width) in Hounsfield units, as radiology text books and viewers preset them
WINDOWS = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (40.0, 400.0),
    "brain": (40.0, 80.0),
    "bone": (500.0, 2000.0),
    "soft_tissue": (50.0, 350.0),
    "wide": (0.0, 2000.0),
}
# the window of a CT data set by DICOM BodyPartExamined; any other part keeps all tissues in the wide window
BODY_PARTS = {"CHEST": "lung", "LUNG": "lung", "THORAX": "lung", "HEAD": "brain", "BRAIN": "brain", "SKULL": "brain"}
WINDOW_WORDS = ("auto", "percentile", "zscore", "file", *WINDOWS)
UNITLESS = "pictures without units"


def window_range(window: str | Sequence[float]) -> tuple[float, float]:
    """Lowest and highest value of an intensity window, for ``ScaleIntensityRanged(a_min, a_max)``.

    Args:
        window: "lung", "mediastinum", "brain", "bone", "soft_tissue", "wide", or [centre, width] in the image's units
            (HU for CT).

    Raises:
        InputError: for an unknown name or a width that is not positive.
    """
    if isinstance(window, str):
        if window not in WINDOWS:
            raise InputError(
                f"Unknown window {window!r}; use one of {', '.join(WINDOW_WORDS)}, or [centre, width] in HU for CT."
            )
        centre, width = WINDOWS[window]
    else:
        values = list(window)
        if len(values) != 2 or not all(isinstance(v, (int, float)) for v in values) or values[1] <= 0:
            raise InputError(f"A window is [centre, width] with a positive width, found {window}.")
        centre, width = map(float, values)
    return centre - width / 2, centre + width / 2


def window_centre(window: str | Sequence[float]) -> float | None:
    """The middle of an intensity window; None for "percentile", "zscore" and "file", which follow the image."""
    return None if window in ("percentile", "zscore", "file") else sum(window_range(window)) / 2


def choose_window(
    window: Window,
    images: Sequence[str | Path],
    *,
    spatial_dims: int = 2,
    facts: Sequence[ImageFacts] | None = None,
) -> str | list[float]:
    """Chooses how a data set's values are scaled, and logs it.

    "auto" reads the modality of a sample of the images. CT in HU (by the DICOM header, or by values below -300 in a
    file without one) gets a window: lung for the chest, brain for the head, else the wide one. Everything else, X-ray
    and MR, whose values have no fixed unit, pictures made of CT, and mixtures of modalities, is scaled by its own
    percentiles.

    Args:
        window: "auto", "percentile", "zscore", "file" (the VOI LUT or window inside each DICOM file), the name of a
            window, [centre, width], or None, which means "percentile".
        images: of the training data, files or other locators.
        spatial_dims: 2 for images, 3 for volumes.
        facts: of a sample of them, where they are known already.

    Returns:
        "percentile", "zscore", "file" or [centre, width]: numbers rather than names, so that a stored model does not
        change its meaning with a later table of windows.

    Raises:
        InputError: for an unknown word, or an image that can't be read.
    """
    if window is None or window in ("percentile", "zscore", "file"):
        return window or "percentile"
    if window != "auto":
        low, high = window_range(window)
        return [(low + high) / 2, high - low]
    if facts is None:
        facts = look_at_sample([{"image": image} for image in images], spatial_dims=spatial_dims)
    found = {_words(one) for one in facts}
    if facts and all(one.hounsfield for one in facts):
        parts = {BODY_PARTS.get(one.body_part, "wide") for one in facts}
        name = parts.pop() if len(parts) == 1 else "wide"
        centre, width = WINDOWS[name]
        logger.info(
            "Intensities: CT (%s), so the %s window, centre %g and width %g HU, is used; --window NAME or "
            '--window "[centre,width]" changes it.',
            ", ".join(sorted(found)),
            name,
            centre,
            width,
        )
        return [centre, width]
    logger.info(
        "Intensities: %s, so every image is scaled between its own 0.5 and 99.5 percentiles; --window changes it.",
        ", ".join(sorted(found)) or "no images",
    )
    return "percentile"


def _words(facts: ImageFacts) -> str:
    """ "CT CHEST", "MR", "DX" ..., what the log says of an image."""
    if facts.hounsfield:
        return f"CT {facts.body_part}".strip()
    if facts.modality == "CT" or facts.format in PICTURES:
        return UNITLESS
    return facts.modality or "images without a modality"


def scale_intensity(window: str | Sequence[float], keys: str = "image") -> MapTransform:
    """The MONAI transform for what :func:`choose_window` returned.

    Windows and percentiles end in [-1, 1], which pretrained networks expect; values outside are clipped. "file" maps
    what the file's own VOI LUT or window can give to [-1, 1], of images without one their whole range. "zscore" has
    mean 0 and standard deviation 1 per image.
    """
    if window == "percentile":
        return Lambdad(keys, partial(_between_percentiles, lower=0.5, upper=99.5))
    if window == "file":
        return Lambdad(keys, _over_voi_range)
    if window == "zscore":
        return NormalizeIntensityd(keys)
    low, high = window_range(window)
    return ScaleIntensityRanged(keys, low, high, -1.0, 1.0, clip=True)


def _over_voi_range(image: torch.Tensor) -> torch.Tensor:
    ends = voi_range(image)
    if ends is None:
        return _between_percentiles(image, lower=0.0, upper=100.0)
    return ScaleIntensityRange(*ends, -1.0, 1.0, clip=True)(image)


def _between_percentiles(image: torch.Tensor, lower: float, upper: float) -> torch.Tensor:
    """From between two percentiles to [-1, 1], as MONAI's transform of this name does, for even backgrounds, too.

    Where so little stands out that both percentiles are the background, that transform would leave the values in their
    units; here the whole range of the image counts then.
    """
    low, high = percentile(image, lower), percentile(image, upper)
    if not low < high:
        low, high = image.min(), image.max()
    if not low < high:
        return torch.full_like(image, -1.0, dtype=torch.float32)
    return ScaleIntensityRange(low, high, -1.0, 1.0, clip=True)(image)
