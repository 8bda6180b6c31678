# SPDX-License-Identifier: Apache-2.0
"""The readers of NumPy's files: .npy, and .npz in the layout of MedMNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dual_skd.data.reading.npz_cache import npz_array
from dual_skd.data.reading.picture import Picture, ReadOptions, check_size, plane_affine
from dual_skd.errors import InputError


def read_npy(path: Path, options: ReadOptions) -> Picture:
    """Reads an array, whose axes stay as they are."""
    return picture_of_array(np.load(path, mmap_mode="r", allow_pickle=False), path, options.spatial_dims)


def read_npz(path: Path, options: ReadOptions) -> Picture:
    """Reads one image of MedMNIST, whose rows come first: (H, W), (H, W, 3) or (D, H, W)."""
    split, mark, index = options.part.partition("/")
    if not mark or not index.isdecimal():
        raise InputError(
            f"Expected the split and number of an image, as in {path}#train/0, found {path}#{options.part}."
        )
    images = npz_array(path, f"{split}_images")
    if images.ndim < 3 or int(index) >= len(images):
        raise InputError(f"Expected image {index} in {split}_images of {path}, found an array of shape {images.shape}.")
    picture = picture_of_array(images[int(index)], path, options.spatial_dims)
    turned = np.ascontiguousarray(np.swapaxes(picture.array, 0, picture.spatial_dims - 1))
    return Picture(turned, picture.affine, coloured=picture.coloured)


def picture_of_array(array: np.ndarray, path: str | Path, spatial_dims: int | None) -> Picture:
    """An array as it is; 3 or 4 values along the last axis are colours unless it has to be a volume."""
    if array.dtype.kind not in "buif":
        raise InputError(f"Expected an array of numbers, found {array.dtype} in {path}; save it as float32.")
    check_size(path, array.shape, array.dtype.itemsize)
    if spatial_dims == 2 and array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    coloured = array.ndim == 4 or (array.ndim == 3 and array.shape[-1] in (2, 3, 4) and spatial_dims != 3)
    if array.ndim - coloured not in (2, 3):
        raise InputError(f"Expected 2 or 3 axes and at most one of channels, found shape {array.shape} in {path}.")
    kept = array.astype(np.uint8) if array.dtype.kind == "b" else np.array(array)
    return Picture(kept, plane_affine(), coloured=coloured)
