# SPDX-License-Identifier: Apache-2.0
"""The reader of NIfTI."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import BinaryIO, cast

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError

from dual_skd.data.reading.metered import BLOCK, check_expanded
from dual_skd.data.reading.picture import Picture, ReadOptions, plane_affine
from dual_skd.data.reading.refusals import DEFLATE_RATIO, MAX_BYTES, check_size, check_stored, quieten
from dual_skd.errors import InputError

MM_PER_UNIT = {1: 1000.0, 3: 0.001}  # metre and micrometre, by the code in xyzt_units; 2 is mm, 0 not stated

quieten("nibabel.global", "nibabel")


def read_nifti_header(path: Path) -> nibabel.Nifti1Header:
    """The header of a NIfTI file, without its extensions: nibabel would read them into memory, whatever their size."""
    with _content(path) as file:
        head = file.read(nibabel.Nifti2Header.sizeof_hdr)
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        if kind.may_contain_header(head):
            return kind(head[: kind.sizeof_hdr])
    raise ImageFileError("it has no header of NIfTI")


def read_nifti(path: Path, options: ReadOptions) -> Picture:
    """Reads a volume, or with ``spatial_dims`` 2 a single slice, whatever axis it is stored along."""
    planar = options.spatial_dims == 2
    header = read_nifti_header(path)
    affine, stored = header.get_best_affine(), header.get_data_dtype()
    shape = tuple(int(size) for size in header.get_data_shape())
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
    values = _values_of(path, header.get_data_offset(), shape, stored)
    coloured = stored.names is not None
    if coloured:  # RGB24 and RGBA32 are records of bytes
        values = np.stack([values[name] for name in stored.names], axis=-1)
    else:
        slope, intercept = header.get_slope_inter()
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.array(values, np.float32, order="C")
            if slope is not None and (slope, intercept) != (1, 0):
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
    if not _is_packed(path):
        check_stored(path, end, size)
        return np.memmap(path, stored, mode="r", offset=start, shape=shape, order="F")
    check_stored(path, end, size * DEFLATE_RATIO)
    check_expanded(path, end, MAX_BYTES)
    with _content(path) as file:
        while file.tell() < start and file.read(min(BLOCK, start - file.tell())):
            pass
        content = file.read(end - start)
        file.read(2**20)  # up to the end, where the checksum is
    check_stored(path, end - start, len(content))
    return np.ndarray(shape, stored, content, order="F")


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _content(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if _is_packed(path) else path.open("rb")
