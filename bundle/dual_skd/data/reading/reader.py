# SPDX-License-Identifier: Apache-2.0
"""Reads an image or a volume, whatever its format, by the reader that the table of formats names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from dual_skd.data.reading.formats import DICOM, FORMATS, NPZ, format_of_suffix
from dual_skd.data.reading.locators import split_locator
from dual_skd.data.reading.numpy_files import picture_of_array
from dual_skd.data.reading.picture import Frame, NamedFrame, Picture, ReadOptions, chosen_frame, plane_affine
from dual_skd.data.reading.refusals import failures_named, too_many_frames
from dual_skd.errors import InputError

# names of meta data
PHOTOMETRIC = "00280004"  # DICOM PhotometricInterpretation, as the JSON tag that MONAI's readers use
VOI_RANGE = "voi_range"  # the ends of what the VOI LUT or window of a DICOM file gives, NaN without one


def read_image(
    image: str | Path, *, spatial_dims: int | None = None, frame: Frame | None = None, voi_lut: bool = False
) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads an image or a volume, whatever its format.

    Axes are those of MONAI's readers: (W, H) for images, (X, Y, Z) for volumes, channels last where there are any.
    What each format adds stands with its reader: :func:`~dual_skd.data.reading.dicom_pixels.read_dicom`,
    :func:`~dual_skd.data.reading.pictures.read_picture`, :func:`~dual_skd.data.reading.nifti.read_nifti`,
    :func:`~dual_skd.data.reading.numpy_files.read_npy`.

    Args:
        image: a locator, see :func:`~dual_skd.data.reading.locators.split_locator`.
        spatial_dims: 2 or 3 to insist on an image or a volume; None takes what the file holds.
        frame: which frame, page or slice (of the last axis) of several to take: "middle" or a number from 0.
        voi_lut: whether to apply the VOI LUT or window of DICOM files.

    Returns:
        The array and its meta data: "affine", "original_affine" (:class:`~dual_skd.data.reading.picture.Picture`),
        "spacing_known", "modality", "hounsfield", "plane", PhotometricInterpretation, "voi_range", "spatial_shape",
        "original_channel_dim", "filename_or_obj", "in_memory" (false). NaN and infinite values are left in.

    Raises:
        InputError: whatever is wrong, in one sentence with the file, the problem and the remedy.
    """
    path, part = split_locator(image)
    with failures_named(image):
        picture = _read(path, ReadOptions(spatial_dims, frame, voi_lut, part))
    if spatial_dims == 3 and picture.spatial_dims == 2:
        raise InputError(
            f"Expected a volume (spatial_dims 3), found one image in {image}: give --spatial-dims 2, or name the "
            "folder of a DICOM series or a NIfTI file."
        )
    if spatial_dims not in (None, picture.spatial_dims):
        raise too_many_frames(image, picture.array.shape[2])
    return picture.array, _meta_of(picture, str(image))


def _read(path: Path, options: ReadOptions) -> Picture:
    if not path.exists():
        raise InputError(f"{path} does not exist; correct the path in the records.")
    if path.is_dir():
        return _reader_of(DICOM)(path, options)
    kind = format_of_suffix(path) or DICOM
    if kind != NPZ:
        if options.part:
            number = re.fullmatch(r"frame=(\d+)", options.part)
            if not number:
                raise InputError(f'Expected "frame=" and a number after "#", found {options.part!r} for {path}.')
            options = replace(options, frame=NamedFrame(number[1]))
        if not os.path.getsize(path):
            raise InputError(f"{path} is empty (0 bytes); copy the file again or leave it out.")
    picture = _reader_of(kind)(path, options)
    if options.frame is None or picture.spatial_dims == 2:
        return picture
    return picture.slice(chosen_frame(options.frame, picture.array.shape[2], path))


def _reader_of(kind: str) -> Callable[[Path, ReadOptions], Picture]:
    reader = FORMATS[kind].reader
    try:
        return resolve_name(reader) if isinstance(reader, str) else reader
    except ModuleNotFoundError as error:
        if error.name != "pydicom.pixels":  # which came with pydicom 3; the other formats can be read beside 2
            raise
        raise InputError(
            f"DICOM files need pydicom 3.0.2 or newer, found {version('pydicom')} (MONAI Label's own choice of "
            "packages brings 2): install a newer one, or convert the file to NIfTI or PNG."
        ) from error


def image_from_array(
    array: np.ndarray, *, spatial_dims: int = 2, spacing: Sequence[float] | None = None, hounsfield: bool | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Gives an array in memory the form of :func:`read_image`.

    Unlike in files of NumPy, whose axes stay as they are, the axes are those in which pictures are shown.

    Args:
        array: an image (H, W), its first row on top, also with a last axis of 2 to 4 channels; for ``spatial_dims`` 3 a
            volume (H, W, D) of axial slices as DICOM keeps them: rows from front to back, columns from the patient's
            right to left, slices from the feet up. Bright means dense.
        spatial_dims: 2 or 3.
        spacing: mm from one value to the next along each axis, in the order of the axes; None: not known.
        hounsfield: whether the values are Hounsfield units; None: values of air decide.

    Raises:
        InputError: other axes than these, no numbers, or a spacing that isn't positive.
    """
    name = "the given array"
    picture = picture_of_array(array, name, spatial_dims)
    if picture.spatial_dims != spatial_dims:
        raise InputError(f"Expected an array of {spatial_dims} axes without those of channels, found {array.shape}.")
    if spacing is not None and not all(np.isfinite(value) and value > 0 for value in spacing):
        raise InputError(f"The spacing of an array is in mm and must be positive, found {tuple(spacing)}.")
    row, column, *slices = spacing or (1.0,) * spatial_dims
    # DICOM's patient axes are left, posterior, superior; the affine leads to right, anterior, superior
    affine = np.diag([-column, -row, *slices, 1.0]) if slices else plane_affine(column, row)
    turned = np.ascontiguousarray(np.swapaxes(picture.array, 0, 1))
    picture = Picture(turned, affine, spacing is not None, picture.coloured, hounsfield=hounsfield)
    return turned, _meta_of(picture, name, in_memory=True)


def _meta_of(picture: Picture, name: str, *, in_memory: bool = False) -> dict[str, Any]:
    return {
        "affine": picture.affine,
        "original_affine": picture.affine.copy(),
        "spacing_known": picture.spacing_known,
        "modality": picture.modality,
        "hounsfield": np.nan if picture.in_hounsfield is None else float(picture.in_hounsfield),
        "plane": picture.plane,
        PHOTOMETRIC: picture.photometric,
        VOI_RANGE: np.array(picture.voi_range),
        "spatial_shape": np.array(picture.array.shape[: picture.spatial_dims]),
        "original_channel_dim": -1 if picture.coloured else float("nan"),
        "filename_or_obj": name,
        "in_memory": in_memory,
    }


def hounsfield_of(meta: Mapping[str, Any]) -> bool | None:
    """Whether the values of an image are Hounsfield units, by its meta data; None where nothing decides (NaN there)."""
    return None if np.isnan(meta["hounsfield"]) else bool(meta["hounsfield"])


def channels_first(array: np.ndarray, meta: Mapping[str, Any]) -> np.ndarray:
    """What :func:`read_image` gave as (C, W, H) or (C, X, Y, Z), float32."""
    values = array.astype(np.float32, copy=False)
    return np.moveaxis(values, -1, 0) if meta["original_channel_dim"] == -1 else values[None]
