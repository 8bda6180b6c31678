# SPDX-License-Identifier: Apache-2.0
"""Images of a 2D task that are one of several: of cine loops, enhanced DICOM, series, TIFF pages, NIfTI slices."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dual_skd.data.reading.locators import split_locator
from dual_skd.errors import InputError

if TYPE_CHECKING:
    from dual_skd.data.records.rows import Row

SINGLE_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".npz")  # these hold one picture, or name it already


def frames_of(images: Iterable[str], frame: int | str | None) -> list[list[str]]:
    """Locators of the frames that are taken of each image.

    Args:
        images: locators; those of single pictures, and those that name a frame, stay as they are. The frames of a
            DICOM series in a folder are the files of its slices, sorted along the stack.
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
        found = list(pool.map(all_frames, images))
    return [_chosen(image, frame, every) for image, every in zip(images, found, strict=True)]


def rows_of_frames(rows: Iterable[Row], frame: int | str | None) -> tuple[list[Row], list[str]]:
    """The rows with the chosen frames as images, and notes on the files that have several.

    The frames of a file whose patient is unknown count as one patient, so no division separates them.
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
    taken = f"of each, frame {frame!r} is taken ({len(found)} images in all)"
    return found, [f"{files} files or series have several frames; {taken}"]


def all_frames(image: str) -> list[str]:
    """Locators of the frames, pages or slices of an image; a file that can't be read counts as one picture."""
    path, fragment = split_locator(image)
    if path.is_dir():
        try:
            from dual_skd.data.reading.dicom_pixels import slices_in

            files = [header.path for header in slices_in(path, fragment)]
        except Exception:  # libraries raise anything on damaged files
            return [image]
        return files if len(files) > 1 else all_frames(files[0])
    count = 1 if fragment else _count(path)
    return [image] if count == 1 else [f"{image}#frame={number}" for number in range(count)]


def _count(path: Path) -> int:
    name = path.name.lower()
    if name.endswith(SINGLE_PICTURE_SUFFIXES):
        return 1
    try:
        if name.endswith((".tif", ".tiff")):
            from dual_skd.data.reading.pictures import opened, pages_of

            with opened(path) as image:
                return pages_of(image, path)
        if name.endswith((".nii", ".nii.gz")):
            from dual_skd.data.reading.nifti import read_nifti_header

            shape = read_nifti_header(path).get_data_shape()
            return int(shape[2]) if len(shape) > 2 and 1 not in shape[:2] else 1  # one slice may lie along any axis
        if name.endswith(".npy"):
            import numpy as np

            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            return int(shape[2]) if len(shape) == 3 and shape[2] > 4 else 1  # up to four are channels
        from dual_skd.data.reading.dicom_header import read_header

        return max(read_header(path).frames or 1, 1)
    except Exception:  # libraries raise anything on damaged files
        return 1


def _chosen(image: str, frame: int | str, every: list[str]) -> list[str]:
    if len(every) == 1:
        return [image]
    if frame == "all":
        return every
    number = len(every) // 2 if frame == "middle" else int(frame)
    if number >= len(every):
        raise InputError(
            f'{image} has {len(every)} frames, so there is no frame {number}; use a lower number or "middle".'
        )
    return [every[number]]
