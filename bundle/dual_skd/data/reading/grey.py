# SPDX-License-Identifier: Apache-2.0
"""Any picture as one grey channel in which bright means dense."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dual_skd.data.reading.picture import Frame
from dual_skd.data.reading.reader import PHOTOMETRIC, VOI_RANGE, channels_first, read_image
from dual_skd.errors import InputError

# Luma of ITU-R Recommendation BT.601, section 2.5.1
LUMA = (0.299, 0.587, 0.114)


def read_grey(
    image: str | Path, *, spatial_dims: int | None = None, frame: Frame | None = None, voi_lut: bool = False
) -> torch.Tensor:
    """Reads an image as training does (:func:`~dual_skd.data.reading.reader.read_image`, :func:`to_grey`).

    Returns:
        (W, H) or (X, Y, Z) float32, without meta data.
    """
    return grey_of(*read_image(image, spatial_dims=spatial_dims, frame=frame, voi_lut=voi_lut))


def grey_of(array: np.ndarray, meta: Mapping[str, Any]) -> torch.Tensor:
    """:func:`read_grey` of what :func:`~dual_skd.data.reading.reader.read_image` gave."""
    return to_grey(torch.from_numpy(channels_first(array, meta)), photometric=meta[PHOTOMETRIC])[0]


def to_grey(image: torch.Tensor, *, photometric: str | None = None, centre: float | None = None) -> torch.Tensor:
    """Makes any picture one grey channel in which bright means dense.

    Colour becomes ITU-R BT.601 luma. An alpha channel is ignored: viewers write constant or meaningless alpha, and
    blending it over an assumed background could paint the origin of a file (so, often, its class) into the picture.
    DICOM images stored as MONOCHROME1 (low values are bright) are mirrored.

    Args:
        image: (C, H, W) or (C, H, W, D) with C of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).
        photometric: DICOM PhotometricInterpretation; default is that of the meta data of ``image``.
        centre: the value that MONOCHROME1 is mirrored about: that of the window which follows, so that the window
            shows the same values as before, bright and dark exchanged. Default: the middle of the range that the
            file's VOI LUT or window gives where one was applied, else of the image's own.

    Returns:
        (1, H, W) or (1, H, W, D), floating point, meta data kept.

    Raises:
        InputError: for other numbers of channels.
    """
    channels = image.shape[0]
    if channels not in (1, 2, 3, 4):
        raise InputError(
            f"Expected a grey, RGB or RGBA image, found {channels} channels in {name_of(image)}; "
            "a volume in a 2D task needs spatial_dims 3."
        )
    grey = image if image.is_floating_point() else image.float()
    if channels <= 2:
        grey = grey[:1]
    else:
        red, green, blue = LUMA
        grey = red * grey[0:1] + green * grey[1:2] + blue * grey[2:3]
    if (_photometric(image) if photometric is None else photometric) == "MONOCHROME1":
        if centre is None and (ends := voi_range(image)):
            centre = sum(ends) / 2
        if centre is not None:
            return 2 * centre - grey
        real = grey[torch.isfinite(grey)]
        grey = real.amax() + real.amin() - grey if len(real) else grey
    return grey


def voi_range(image: torch.Tensor) -> tuple[float, float] | None:
    """Lowest and highest value that the VOI LUT or window of the file can give, None where none was applied."""
    low, high = map(float, getattr(image, "meta", {}).get(VOI_RANGE, (0.0, 0.0)))
    return (low, high) if low < high else None


def _photometric(image: torch.Tensor) -> str:
    value = getattr(image, "meta", {}).get(PHOTOMETRIC, "")
    if isinstance(value, dict):  # the nested form of PydicomReader(prune_metadata=False)
        value = (value.get("Value") or [""])[0]
    return str(value)


def name_of(image: torch.Tensor) -> str:
    """The file of an image, by its meta data."""
    return str(getattr(image, "meta", {}).get("filename_or_obj", "an image"))
