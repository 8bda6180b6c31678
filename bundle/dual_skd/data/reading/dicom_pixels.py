# SPDX-License-Identifier: Apache-2.0
"""The reader of DICOM: files, frames, and series in folders; CT in Hounsfield units, volumes with their affine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut

from dual_skd.data.reading.dicom_file import NotAnImage, first_item, groups_first, numbers, open_dicom
from dual_skd.data.reading.dicom_header import Header, geometry_of, header_of, plane_of, read_headers
from dual_skd.data.reading.dicom_series import MOSAIC, Series, group_series, same_position, stack_of, volume_affine
from dual_skd.data.reading.dicom_values import COLOURS, values_of_frames, voi_of
from dual_skd.data.reading.picture import Picture, ReadOptions, chosen_frame, plane_affine
from dual_skd.data.reading.refusals import check_size, failures_named, too_many_frames
from dual_skd.errors import InputError

logger = logging.getLogger(__name__)

UNPLACED = (
    "frames without slice positions are read as a volume in the order of the file, though a loop over time is none"
)
SUFFIXES = (".dcm", ".ima")
SLICES_PER_COPY = 16  # that are laid into a volume together: 16 float32 fill a cache line


def read_dicom(path: Path, options: ReadOptions) -> Picture:
    """Reads a DICOM file (an image, one frame of several, or all as a volume), or the series of a folder.

    The Modality LUT (rescale, e.g. to HU) is always applied; the VOI LUT or window of the file with ``voi_lut``, in
    volumes that of the middle slice, so that all slices keep one scale. Pixels with PixelPaddingValue (outside the
    field of view) get the lowest real value of their slice, with MONOCHROME1 the highest, so that they show black and
    don't move percentiles. MONOCHROME1 itself is not inverted here. CT in Hounsfield units counts as MONOCHROME2: its
    values mean density, however a viewer shows them.

    In a folder, files that are no images are passed over; a damaged one is an error, because the volume would lack a
    slice. ``frame`` counts along the sorted stack; frames without positions keep the order of the file.

    Raises:
        InputError: naming the file, the problem and the remedy.
    """
    return _read_folder(path, options) if path.is_dir() else _read_file(path, options)


def _read_file(path: Path, options: ReadOptions) -> Picture:
    dataset = open_dicom(path)
    header = header_of(dataset, path)
    if options.frame is None and header.frames > 1:
        if options.spatial_dims == 2:
            raise too_many_frames(path, header.frames)
        return _volume_of_frames(dataset, header, options.voi_lut)
    if header.mosaic:
        if options.spatial_dims == 3:
            raise InputError(f"{path} is no volume: {MOSAIC.words}; {MOSAIC.remedy}, or leave it out.")
        _warn_once(f"{MOSAIC.words}: the picture is taken as it is")  # without the file, of which there are many
    chosen = chosen_frame(0 if options.frame is None else options.frame, header.frames, path)
    chosen = _order_of_frames(dataset, header)[chosen]
    voi = voi_of(dataset, chosen, path) if options.voi_lut else None
    array = next(values_of_frames(dataset, path, [chosen], voi))
    header = replace(header, **geometry_of(dataset, chosen))
    row, column = header.pixel_spacing or (header.pixel_aspect, 1.0)
    return _picture(array.swapaxes(0, 1), header, plane_affine(column, row), header.pixel_spacing is not None, voi)


def _read_folder(folder: Path, options: ReadOptions) -> Picture:
    headers = slices_in(folder, options.part)
    if len(headers) == 1:
        return _read_file(Path(headers[0].path), options)
    if options.frame is not None:
        chosen = headers[chosen_frame(options.frame, len(headers), folder)]
        return _read_file(Path(chosen.path), ReadOptions(2, voi_lut=options.voi_lut))
    if options.spatial_dims == 2:
        raise too_many_frames(folder, len(headers), headers[0].path)
    if any(header.frames > 1 for header in headers):
        raise InputError(f"{folder} holds several multi-frame files; give each one as an image of its own.")
    check_size(folder, (headers[0].columns, headers[0].rows, len(headers)), 0)
    middle = headers[len(headers) // 2].path
    voi = voi_of(open_dicom(middle), 0, middle) if options.voi_lut else None
    slices = (_only_frame(header.path, voi) for header in headers)
    affine, known = volume_affine(headers)
    return _picture(_stacked(slices, len(headers)), headers[0], affine, known, voi)


def _only_frame(path: str, voi: Dataset | None) -> np.ndarray:
    with failures_named(path):
        return next(values_of_frames(open_dicom(path), path, [0], voi))


# ------------------------------------------------------------------------------------------------------------ series


def slices_in(folder: Path, uid: str = "") -> tuple[Header, ...]:
    """The slices of the one series of a folder, or of the series ``uid``, sorted, with one image per position.

    Raises:
        InputError: that isn't one series, or the series makes no stack.
    """
    series = series_in(folder, uid)
    if len(series.headers) == 1:
        return series.headers
    _refuse_or_warn(series, folder)
    return tuple(_without_equal_images(series))


def series_in(folder: Path, uid: str) -> Series:
    """The series ``uid`` of a folder, or with "" its only one; raises InputError where that isn't one series."""
    found = _index(str(folder), os.stat(folder).st_mtime_ns)
    if not found and folder == Path():
        raise InputError(
            "Expected the path of an image, found an empty one; give one. MONAI Label gives an empty path for an image "
            "id that its store doesn't have."
        )
    if not found:
        raise InputError(f"Expected a folder with the DICOM images of one series, found none in {folder}.")
    if uid:
        matching = [series for series in found if series.uid == uid]
        if not matching:
            raise InputError(f"Expected a series {uid} in {folder}, found {', '.join(s.uid for s in found)}.")
        return matching[0]
    if len(found) > 1:
        raise InputError(
            f"Expected one DICOM series in {folder}, found {len(found)}: name one of them in the record, as in "
            f"{folder}#{found[0].uid}, or keep one per folder."
        )
    return found[0]


@lru_cache(maxsize=4)
def _index(folder: str, changed: int) -> tuple[Series, ...]:
    """The series of a folder; a few are remembered, for records that name one series each of the same folder."""
    files = (entry for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith("."))
    paths = sorted(entry.path for entry in files if entry.stat().st_size or _may_be_a_slice(entry.name))
    headers = []
    for path, header in zip(paths, read_headers(paths), strict=True):
        if isinstance(header, Header):
            headers.append(header)
        elif not isinstance(header, NotAnImage) or (path.lower().endswith(SUFFIXES) and not _is_dicom(path)):
            raise header
    return tuple(group_series(headers))


def _may_be_a_slice(name: str) -> bool:
    """Whether an empty file is a lost slice rather than a mark such as COMPLETE: names of slices have a number."""
    return name.lower().endswith(SUFFIXES) or any(letter.isdecimal() for letter in name)


def _is_dicom(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _refuse_or_warn(series: Series, path: str | Path) -> None:
    if series.refusal:
        raise InputError(
            f"The DICOM series {series.uid} in {path} does not make a volume: {series.refusal}; {series.remedy}, "
            "or leave it out."
        )
    if series.problems:
        _warn_once(f"{path}: {'; '.join(series.problems)}")


@lru_cache(maxsize=4096)
def _warn_once(message: str) -> None:
    logger.warning(message)


def _without_equal_images(series: Series) -> Iterator[Header]:
    """The slices of a stack with one image per position."""
    previous = None
    for header in series.headers:
        if previous is not None and same_position(previous, header):
            one, other = (_only_frame(each.path, None) for each in (previous, header))
            if not np.array_equal(one, other):
                raise InputError(
                    f"The DICOM series {series.uid} holds different images of one position ({previous.path} and "
                    f"{header.path}), as with several time points, echoes or b-values; keep one of each in the folder."
                )
            continue
        previous = header
        yield header


# ------------------------------------------------------------------------------------------------------------ frames


def _volume_of_frames(dataset: Dataset, header: Header, voi_lut: bool) -> Picture:
    """All frames of a file, sorted along the normal where the file states their positions."""
    stack = _stack_of_frames(dataset, header)
    if UNPLACED in stack.problems:
        _warn_once(UNPLACED)  # without the file: a set of loops has as many as images
    else:
        _refuse_or_warn(stack, header.path)
    kept = _positions(stack)
    if kept < len(stack.headers):
        raise InputError(
            f"{header.path} holds {len(stack.headers)} frames at {kept} positions, as with several time points, "
            "echoes or b-values; write one file for each, or name one frame in the record with #frame=0."
        )
    order = [frame.instance_number or 0 for frame in stack.headers]
    affine, known = volume_affine(stack.headers)
    voi = voi_of(dataset, order[len(order) // 2], header.path) if voi_lut else None
    frames = values_of_frames(dataset, header.path, order, voi)
    return _picture(_stacked(frames, len(order)), header, affine, known, voi)


def _stack_of_frames(dataset: Dataset, header: Header) -> Series:
    """The frames of a file as a stack of images, whose number is the place in the file.

    A position in the shared groups is that of every frame; one outside the groups says nothing of the frames.
    """
    frames = [
        replace(
            header,
            instance=f"{header.instance} frame {index}",
            instance_number=index,
            **{**geometry_of(dataset, index), "position": _position_of_frame(dataset, index)},
        )
        for index in range(header.frames)
    ]
    if not all(frame.position and frame.orientation for frame in frames):
        return Series(header.series, tuple(frames), (UNPLACED,))
    return stack_of(frames)


def _positions(stack: Series) -> int:
    return 1 + sum(not same_position(*pair) for pair in pairwise(stack.headers))


def _order_of_frames(dataset: Dataset, header: Header) -> list[int]:
    """The places in the file of all frames, along the stack where they make one, else as they are."""
    if header.frames == 1:
        return [0]
    stack = _stack_of_frames(dataset, header)
    if stack.refusal or not _positions(stack) == len(stack.headers) == header.frames:
        return list(range(header.frames))
    return [frame.instance_number or 0 for frame in stack.headers]


def frame_in_file(path: Path, frame: int) -> int:
    """The place in the file, from 0, of a frame that is counted as in :func:`read_dicom`."""
    with failures_named(path):
        dataset = open_dicom(path)
        header = header_of(dataset, path)
        return _order_of_frames(dataset, header)[chosen_frame(frame, header.frames, path)]


def _position_of_frame(dataset: Dataset, index: int) -> tuple[float, ...] | None:
    *groups, _ = groups_first(dataset, "PlanePositionSequence", index)
    found = (numbers(group, "ImagePositionPatient", 3) for group in groups)
    return next((position for position in found if position), None)


# ----------------------------------------------------------------------------------------------------------- results


def _stacked(frames: Iterator[np.ndarray], count: int) -> np.ndarray:
    """Frames (rows, columns[, 3]) as a contiguous volume (X, Y, Z[, 3])."""
    volume, block = np.empty(0, np.float32), []
    for index, frame in enumerate(frames):
        if index == 0:
            volume = np.empty((frame.shape[1], frame.shape[0], count, *frame.shape[2:]), np.float32)
        block.append(frame)
        if len(block) == SLICES_PER_COPY or index + 1 == count:
            volume[:, :, index + 1 - len(block) : index + 1] = np.stack(block, axis=2).swapaxes(0, 1)
            block = []
    return volume


def _picture(array: np.ndarray, header: Header, affine: np.ndarray, known: bool, voi: Dataset | None) -> Picture:
    coloured = header.photometric in COLOURS
    grey = header.photometric if header.hounsfield is False else "MONOCHROME2"
    hounsfield = True if header.hounsfield is None and array.min() < 0 else header.hounsfield
    return Picture(
        np.ascontiguousarray(array),
        affine,
        spacing_known=known,
        coloured=coloured,
        photometric="RGB" if coloured else grey,
        modality=header.modality,
        hounsfield=hounsfield,
        plane=plane_of(header.orientation),
        voi_range=(np.nan, np.nan) if voi is None or coloured else _range_of(voi),
    )


def _range_of(voi: Dataset) -> tuple[float, float]:
    """Lowest and highest value that a VOI LUT or window gives: those of its ends."""
    if "VOILUTSequence" in voi:
        entries, first = first_item(voi, "VOILUTSequence").LUTDescriptor[:2]
        ends = np.array([first, first + (entries or 2**16) - 1], np.int32)
    else:
        ends = np.array([-1e9, 1e9])
    with np.errstate(over="ignore"):  # the foot of a sigmoid
        low, high = sorted(apply_voi_lut(ends, voi).tolist())
    return low, high
