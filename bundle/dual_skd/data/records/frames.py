# SPDX-License-Identifier: Apache-2.0
"""Images of a 2D task that lie in files of several frames: cine loops, enhanced DICOM, TIFF pages, NIfTI slices."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from dual_skd.data.reading.locators import split_locator
from dual_skd.errors import InputError

if TYPE_CHECKING:
    from dual_skd.data.records.rows import Row

SINGLE = (".png", ".jpg", ".jpeg", ".bmp", ".npz")  # these hold one picture, or name it already


def frames_of(images: Iterable[str], frame: int | str | None) -> list[list[str]]:
    """Locators of the frames that are taken of each image.

    Args:
        images: locators; those of single pictures, and those that name a frame, stay as they are.
        frame: "middle", a number from 0, "all", or None, which takes nothing apart: a 2D task then refuses files of
            several frames.

    Raises:
        InputError: another ``frame``, or a number that a file doesn't have.
    """
    images = list(images)
    if frame is None:
        return [[image] for image in images]
    if frame not in ("middle", "all") and (not isinstance(frame, int) or isinstance(frame, bool) or frame < 0):
        raise InputError(f'frame is {frame!r}; use "middle", "all" or a number from 0.')
    with ThreadPoolExecutor() as pool:
        counts = list(pool.map(count_frames, images))
    return [_chosen(image, frame, count) for image, count in zip(images, counts, strict=True)]


def rows_of_frames(rows: Iterable[Row], frame: int | str | None) -> tuple[list[Row], list[str]]:
    """The rows with the chosen frames as images, and notes that say what was taken apart.

    All frames of a file whose patient is unknown count as one patient, so that no division separates them.
    """
    rows = list(rows)
    found: list[Row] = []
    files = 0
    for row, images in zip(rows, frames_of((row.image for row in rows), frame), strict=True):
        if images == [row.image]:
            found.append(row)
            continue
        files += 1
        patient = row.patient or (row.image if len(images) > 1 else "")
        found += [replace(row, image=image, patient=patient) for image in images]
    if not files:
        return rows, []
    return found, [f"{files} files have several frames; of each, frame {frame!r} is taken ({len(found)} images in all)"]


def count_frames(image: str) -> int:
    """How many frames, pages or slices a file has, by its header; 1 also where that can't be told.

    A file that can't be read counts as one picture: whoever opens it says what is wrong.
    """
    path, fragment = split_locator(image)
    name = path.name.lower()
    if fragment or path.is_dir() or name.endswith(SINGLE):
        return 1
    try:
        if name.endswith((".tif", ".tiff")):
            from PIL import Image

            with Image.open(path, formats=("TIFF",)) as pages:
                return getattr(pages, "n_frames", 1)
        if name.endswith((".nii", ".nii.gz")):
            import nibabel

            shape = nibabel.load(path).shape
            return int(shape[2]) if len(shape) > 2 else 1
        if name.endswith(".npy"):
            import numpy as np

            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            return int(shape[2]) if len(shape) == 3 and shape[2] > 4 else 1  # up to four are channels
        from dual_skd.data.reading.dicom import read_header

        return max(read_header(path).frames or 1, 1)
    except Exception:  # libraries raise anything on damaged files
        return 1


def _chosen(image: str, frame: int | str, count: int) -> list[str]:
    if count == 1:
        return [image]
    if frame == "all":
        return [f"{image}#frame={number}" for number in range(count)]
    number = count // 2 if frame == "middle" else int(frame)
    if number >= count:
        raise InputError(f'{image} has {count} frames, so there is no frame {number}; use a lower number or "middle".')
    return [f"{image}#frame={number}"]
