# SPDX-License-Identifier: Apache-2.0
"""The readers of NumPy's files: .npy, and .npz in the layout of MedMNIST."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from dual_skd.data.reading.picture import Picture, ReadOptions, plane_affine
from dual_skd.data.reading.refusals import DEFLATE_RATIO, check_size, check_stored, failures_named
from dual_skd.errors import InputError

# Pictures shrink to no less than a hundredth (the largest of MedMNIST to a seventh); what expands further was made to
# fill a disk. Small ones are let through, as they do no harm.
MAX_RATIO = 100
HARMLESS_BYTES = 2**30

_LOCK = threading.Lock()


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


def npz_array(path: Path, member: str) -> np.ndarray:
    """An array of an .npz file, memory-mapped and read-only.

    The array is unpacked once into ``${XDG_CACHE_HOME:-~/.cache}/dual_skd`` under a name made from the path, size and
    time of the file, whole or not at all, so that threads and processes can share it. The folder may be deleted at
    any time that nothing is being read.

    Raises:
        InputError: if the file is damaged, lacks the array, holds Python objects, or the disk is too small.
    """
    facts = os.stat(path)
    with _LOCK, failures_named(path):
        return _mapped(str(path.resolve()), facts.st_size, facts.st_mtime_ns, member)


@lru_cache(maxsize=16)
def _mapped(path: str, size: int, changed: int, member: str) -> np.ndarray:
    key = hashlib.blake2b(f"{path}\0{size}\0{changed}".encode(), digest_size=12).hexdigest()
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dual_skd" / "npz"
    unpacked = root / key / f"{member}.npy"
    if not unpacked.exists():
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        _unpack(path, member, unpacked)
    return np.load(unpacked, mmap_mode="r", allow_pickle=False)


def check_member(path: str | Path, info: zipfile.ZipInfo) -> None:
    """Refuses a member of an archive that declares more than the file can hold, or may hold more than it declares.

    NumPy writes no other compression than that of zlib, and zipfile expands others in pieces of any size.
    """
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{info.filename} of {path} isn't compressed as NumPy does it; save it again with NumPy.")
    check_stored(path, info.file_size, os.path.getsize(path) * DEFLATE_RATIO)


def _unpack(path: str, member: str, target: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if f"{member}.npy" not in archive.namelist():
            names = ", ".join(name.removesuffix(".npy") for name in archive.namelist())
            raise InputError(f"Expected an array {member} in {path}, found {names or 'none'}.")
        info = archive.getinfo(f"{member}.npy")
        declared, packed = info.file_size, info.compress_size
        if declared > max(packed * MAX_RATIO, HARMLESS_BYTES):
            raise InputError(
                f"{member} of {path} expands from {packed / 2**20:.1f} MiB to {declared / 2**30:.1f} GiB, more than "
                "images do: it may be made to fill the disk; if you trust it, save it again without compression."
            )
        check_member(path, info)
        free = shutil.disk_usage(target.parent).free
        if declared > free:
            raise InputError(
                f"Unpacking {member} of {path} takes {declared / 2**30:.1f} GiB, {target.parent} has "
                f"{free / 2**30:.1f}: free some space or set XDG_CACHE_HOME to a larger disk."
            )
        descriptor, name = tempfile.mkstemp(dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as copy, archive.open(f"{member}.npy") as file:
                shutil.copyfileobj(file, copy, 2**20)
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise
