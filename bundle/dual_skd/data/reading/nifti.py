# SPDX-License-Identifier: Apache-2.0
"""The reader of NIfTI."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import nibabel
import numpy as np

from dual_skd.data.reading.picture import Picture, ReadOptions, plane_affine
from dual_skd.data.reading.refusals import DEFLATE_RATIO, check_size, check_stored, quieten
from dual_skd.errors import InputError

MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # metre and micrometre, by the code in xyzt_units; 2 is mm, 0 not stated

quieten("nibabel.global", "nibabel")


def load_nifti(path: Path) -> nibabel.Nifti1Image:
    """Opens a NIfTI file, whose values are read when they are asked for."""
    image = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Image):  # Nifti2Image is one, too
        raise InputError(f"Expected a NIfTI file, found {type(image).__name__} in {path}; convert it to NIfTI.")
    return image


def read_nifti(path: Path, options: ReadOptions) -> Picture:
    """Reads a volume, or with ``spatial_dims`` 2 a single slice, whatever axis it is stored along."""
    planar = options.spatial_dims == 2
    image = load_nifti(path)
    header, affine, stored = image.header, image.affine.copy(), image.get_data_dtype()
    shape = tuple(int(size) for size in image.shape)
    while len(shape) > 3 - planar and shape[-1] == 1:
        shape = shape[:-1]
    # a sagittal or coronal slice is stored as one of a volume
    single = shape.index(1) if planar and len(shape) == 3 and 1 in shape else None
    if len(shape) not in (2, 3):
        raise InputError(
            f"Expected an image or a volume, found {len(shape)} axes ({' x '.join(map(str, shape))}) in {path}: write "
            "one file per time point or channel."
        )
    if stored.kind == "c":
        raise InputError(f"Expected real numbers, found complex ones in {path}: write magnitudes.")
    check_size(path, shape, stored.itemsize)
    start = image.dataobj.offset
    values = _values_of(path, start, shape, stored)
    coloured = stored.names is not None
    if coloured:  # RGB24 and RGBA32 are records of bytes
        values = np.stack([values[name] for name in stored.names], axis=-1)
    else:
        slope, intercept = image.dataobj.slope, image.dataobj.inter
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.array(values, np.float32, order="C")
            if (slope, intercept) != (1, 0):
                values *= np.float32(slope)
                values += np.float32(intercept)
    known = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0 or set(header.get_zooms()[:3]) != {1.0}
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise InputError(f"{path} has an affine that can't be inverted; repair its sform or qform.")
    affine[:3] *= MM_PER_UNIT.get(int(header["xyzt_units"]) % 8, 1.0)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if single is not None:
        values, spacing = values.squeeze(single), np.delete(spacing, single)
    if single is not None or len(shape) == 2:
        affine = plane_affine(*spacing[:2])
    return Picture(values, affine, spacing_known=known, coloured=coloured)


def _values_of(path: Path, start: int, shape: tuple[int, ...], stored: np.dtype) -> np.ndarray:
    """The stored values of a NIfTI file, checked against the length of the file, and with gzip against its checksum."""
    end = start + int(np.prod(shape, dtype=object)) * stored.itemsize
    size = os.path.getsize(path)
    if not path.name.lower().endswith(".gz"):
        check_stored(path, end, size)
        return np.memmap(path, stored, mode="r", offset=start, shape=shape, order="F")
    check_stored(path, end, size * DEFLATE_RATIO)
    with gzip.open(path) as file:
        file.read(start)
        content = file.read(end - start)
        file.read(2**20)  # up to the end, where the checksum is
    check_stored(path, end - start, len(content))
    return np.ndarray(shape, stored, content, order="F")
