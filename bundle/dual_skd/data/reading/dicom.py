# SPDX-License-Identifier: Apache-2.0
"""DICOM without its pixels: headers, and which files make up a volume in which order.

What a series may be short of, and what is done about it:

==================================================  ==================================================================
one or more slices missing (gap > 1.5 x median)     refused: the anatomy would jump
different images at one position                    refused when read: time points, echoes or b-values don't stack
acquisitions with slices between each other         refused: each is a volume of its own, together they make stripes
different sizes, orientations or pixel spacings     refused, but a few localisers beside a stack are left out and told
slices shifted against each other                   refused: no affine describes them
several patients, examinations or frames of ref.    refused: they share no space
several modalities, units or kinds of grey          refused: one value means different things
identical images at one position                    one is kept, the others are told
gantry tilt (positions > 1 degree off the normal)   read and told: the affine is sheared, so resampling undoes the tilt
distances that change (a slice over 1/2 step astray) refused: an even grid would misplace the slices
uneven distances (over 10 %, less astray than that) read with their mean and told
Siemens mosaics                                     refused: all slices lie side by side in one picture
no positions                                        sorted by InstanceNumber, else by file name, and told
==================================================  ==================================================================
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, starmap
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from dual_skd.data.reading.dicom_file import frames_of, groups_first, number, numbers, open_header, syntax_of
from dual_skd.data.reading.dicom_scan import Beginning, Elements, read_beginning
from dual_skd.data.reading.dicom_stack import (
    ACQUISITION,
    SAME_POSITION,
    Refusal,
    alike,
    by_geometry,
    differences,
    geometry_name,
    sorted_along_normal,
    sorted_without_positions,
    without_copies,
)
from dual_skd.data.reading.loading import failures_named
from dual_skd.errors import InputError

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # ImageOrientationPatient of slices with the patient's right and front first
MOSAIC = Refusal(
    "the slices of each volume lie side by side in one picture (a Siemens mosaic)",
    "convert it to NIfTI with dcm2niix and take one time point",
)
OTHERS = 0.25  # images beside the main stack, as a share of it, that count as localisers

BLOCK = 16  # files that a thread reads at a time, while another thread parses
AHEAD = 64  # blocks that are kept at a time, so that memory doesn't grow with the number of files

_TAGS = (
    *"""PatientID StudyInstanceUID SeriesInstanceUID SOPInstanceUID SOPClassUID Modality Manufacturer InstitutionName
    BodyPartExamined SeriesDescription PhotometricInterpretation BitsAllocated BitsStored SamplesPerPixel Rows Columns
    NumberOfFrames InstanceNumber ImageOrientationPatient ImagePositionPatient PixelSpacing ImagerPixelSpacing
    NominalScannedPixelSpacing PixelAspectRatio SliceThickness SpacingBetweenSlices RescaleSlope RescaleIntercept
    RescaleType SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence""".split(),
    *ACQUISITION,
)

CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
OTHER_UNITS = ("OD", "MGML", "Z_EFF", "ED", "EDW", "PCT")  # RescaleType (PS3.3, C.11.1.1.2) of spectral CT and others


@dataclass(frozen=True)
class Header:
    """What is used of a DICOM header; texts are "" and numbers None where the file is silent.

    Args:
        path: the file.
        patient: PatientID.
        study, series, instance: UIDs.
        photometric: PhotometricInterpretation.
        bits_stored, rows, columns, frames: of the pixels.
        hounsfield: whether rescaled values are Hounsfield units, None where only they tell, see :func:`in_hounsfield`.
        orientation: ImageOrientationPatient, direction of the rows and of the columns (6 numbers).
        position: ImagePositionPatient in mm (3 numbers), of the centre of the first pixel.
        pixel_spacing: (distance of rows, distance of columns) in mm. Projections without PixelSpacing give that of
            the detector, which is larger than that of the body by the magnification.
        pixel_aspect: height of a pixel by its width, from PixelAspectRatio; for files without a pixel spacing.
        acquisition: values of :data:`~dual_skd.data.reading.dicom_stack.ACQUISITION`.
        mosaic: whether the slices of a volume lie side by side in the image, as Siemens writes fMRI.
        slice_thickness, slice_spacing: SliceThickness and SpacingBetweenSlices in mm.
        transfer_syntax: UID.
    """

    path: str
    patient: str = ""
    study: str = ""
    series: str = ""
    instance: str = ""
    modality: str = ""
    manufacturer: str = ""
    institution: str = ""
    body_part: str = ""
    series_description: str = ""
    photometric: str = ""
    bits_stored: int = 0
    rows: int = 0
    columns: int = 0
    frames: int = 1
    hounsfield: bool | None = False
    instance_number: int | None = None
    orientation: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None
    pixel_spacing: tuple[float, ...] | None = None
    pixel_aspect: float = 1.0
    slice_thickness: float | None = None
    slice_spacing: float | None = None
    acquisition: tuple[str, ...] = ()
    mosaic: bool = False
    transfer_syntax: str = ""


@dataclass(frozen=True)
class Series:
    """The images of one SeriesInstanceUID.

    Args:
        uid: SeriesInstanceUID.
        headers: of the stack, sorted by position along the normal of the slices.
        problems: everything remarkable, in words; see the table of this module.
        refusal: the problem that keeps the series from being read as a volume, "" if there is none.
        remedy: what to do about it.
        left_out: images of another size or orientation, and copies of a file.
    """

    uid: str
    headers: tuple[Header, ...]
    problems: tuple[str, ...] = ()
    refusal: str = ""
    remedy: str = ""
    left_out: tuple[Header, ...] = ()


# ---------------------------------------------------------------------------------------------------------- headers


def read_header(path: str | Path, beginning: Beginning | None = None) -> Header:
    """Reads the header of a DICOM image, without its pixels.

    Args:
        path: the file.
        beginning: its first bytes, where they were read before.

    Raises:
        NotAnImage: for other files, and DICOM objects without pixels.
        InputError: for damaged files; both name the file.
    """
    with failures_named(path):
        return header_of(open_header(path, _TAGS, beginning), path)


def read_headers(paths: Iterable[str | Path], workers: int | None = None) -> Iterator[Header | InputError]:
    """Reads many headers; errors come in the place of their file.

    Threads read ahead, and one parses: two that parse would wait for each other.
    """
    paths = list(paths)
    blocks = [paths[start : start + BLOCK] for start in range(0, len(paths), BLOCK)]
    with ThreadPoolExecutor(workers or 2 * (os.cpu_count() or 1)) as pool:
        for start in range(0, len(blocks), AHEAD):
            some = blocks[start : start + AHEAD]
            for block, beginnings in zip(some, pool.map(_beginnings, some), strict=True):
                yield from map(_header_or_error, block, beginnings)


def _beginnings(paths: Sequence[str | Path]) -> list[Beginning | None]:
    return [_beginning(path) for path in paths]


def _beginning(path: str | Path) -> Beginning | None:
    try:
        return read_beginning(path)
    except OSError:  # said by whoever opens it as a whole
        return None


def _header_or_error(path: str | Path, beginning: Beginning | None) -> Header | InputError:
    try:
        return read_header(path, beginning)
    except InputError as error:
        return error


def header_of(dataset: Dataset | Elements, path: str | Path) -> Header:
    """Takes what is used from a parsed file; of several frames, what the shared groups say of all."""
    frames = frames_of(dataset)
    return Header(
        path=str(path),
        patient=_text(dataset, "PatientID"),
        study=_text(dataset, "StudyInstanceUID"),
        series=_text(dataset, "SeriesInstanceUID"),
        instance=_text(dataset, "SOPInstanceUID"),
        modality=_text(dataset, "Modality").upper(),
        manufacturer=_text(dataset, "Manufacturer"),
        institution=_text(dataset, "InstitutionName"),
        body_part=_text(dataset, "BodyPartExamined"),
        series_description=_text(dataset, "SeriesDescription"),
        photometric=_text(dataset, "PhotometricInterpretation").upper(),
        bits_stored=int(number(dataset, "BitsStored") or 0),
        rows=int(dataset.get("Rows")),
        columns=int(dataset.get("Columns")),
        frames=frames,
        hounsfield=in_hounsfield(dataset),
        instance_number=None if (count := number(dataset, "InstanceNumber")) is None else int(count),
        mosaic="MOSAIC" in _text(dataset, "ImageType"),
        transfer_syntax=syntax_of(dataset),
        **geometry_of(dataset, 0 if frames == 1 else None),
    )


def geometry_of(dataset: Dataset | Elements, frame: int | None) -> dict[str, Any]:
    """The fields of a :class:`Header` that frames have of their own: of one frame, or of None what all share."""

    def measure(keyword: str, count: int) -> tuple[float, ...] | None:
        found = (numbers(holder, keyword, count) for holder in groups_first(dataset, "PixelMeasuresSequence", frame))
        return next((values for values in found if values and any(values)), None)  # 0 stands for what isn't known

    spacing = (
        measure("PixelSpacing", 2)
        or numbers(dataset, "ImagerPixelSpacing", 2)
        or numbers(dataset, "NominalScannedPixelSpacing", 2)
    )
    planes = (orientation_of(holder) for holder in groups_first(dataset, "PlaneOrientationSequence", frame))
    places = (
        numbers(holder, "ImagePositionPatient", 3) for holder in groups_first(dataset, "PlanePositionSequence", frame)
    )
    aspect = numbers(dataset, "PixelAspectRatio", 2)
    return {
        "orientation": next((plane for plane in planes if plane), None),
        "position": next((place for place in places if place), None),
        "pixel_spacing": spacing if spacing and min(spacing) > 0 else None,
        "pixel_aspect": aspect[0] / aspect[1] if aspect and min(aspect) > 0 else 1.0,
        "slice_thickness": (measure("SliceThickness", 1) or (None,))[0],
        "slice_spacing": (measure("SpacingBetweenSlices", 1) or (None,))[0],
        "acquisition": tuple(
            next((text for holder in groups_first(dataset, group, frame) if (text := _text(holder, keyword))), "")
            for keyword, group in ACQUISITION.items()
        ),
    }


def orientation_of(dataset: Dataset | Elements) -> tuple[float, ...] | None:
    """ImageOrientationPatient if it is a pair of perpendicular unit vectors."""
    values = numbers(dataset, "ImageOrientationPatient", 6)
    return values if values and _is_a_plane(values) else None


@lru_cache(maxsize=1024)
def _is_a_plane(directions: tuple[float, ...]) -> bool:
    row, column = np.reshape(directions, (2, 3))
    return bool(abs(row @ column) < 1e-2 and abs(row @ row - 1) < 1e-2 and abs(column @ column - 1) < 1e-2)


def plane_of(orientation: Sequence[float] | None) -> str:
    """ "axial", "coronal" or "sagittal", by the axis that the normal of ImageOrientationPatient is nearest to."""
    if orientation is None:
        return ""
    normal = np.cross(orientation[:3], orientation[3:])
    return ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]


def in_hounsfield(dataset: Dataset | Elements) -> bool | None:
    """Whether rescaled values are Hounsfield units: grey CT by its SOP class, or another object of CT, with a rescale.

    CT by its SOP class without a rescale gives None: negative values tell, and without any nothing does. A picture made
    of CT (secondary capture) keeps the modality, but its grey values are those of a screen. A rescale of 8 bits by 1
    and 0 says no more than none, and maps of spectral CT state another unit.
    """
    grey = _text(dataset, "PhotometricInterpretation").upper().startswith("MONOCHROME")
    if _text(dataset, "Modality").upper() != "CT" or not grey:
        return False
    groups = list(groups_first(dataset, "PixelValueTransformationSequence", 0))
    if any(_text(group, "RescaleType").upper() in OTHER_UNITS for group in groups):
        return False
    of_ct = dataset.get("SOPClassUID") in CT_CLASSES
    for group in groups:
        slope, intercept = number(group, "RescaleSlope"), number(group, "RescaleIntercept")
        if slope is not None or intercept is not None:
            return of_ct or (slope or 1, intercept or 0) != (1, 0) or (number(dataset, "BitsStored") or 8) > 8
    return None if of_ct else False


def _text(dataset: Dataset | Elements, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


# --------------------------------------------------------------------------------------------------------- geometry


def group_series(headers: Iterable[Header]) -> list[Series]:
    """Groups images by SeriesInstanceUID, sorts each group into a stack and says what is wrong with it.

    Images without SeriesInstanceUID are grouped by folder. Order of first appearance is kept.
    """
    groups: dict[str, list[Header]] = {}
    for header in headers:
        groups.setdefault(header.series or os.path.dirname(header.path), []).append(header)
    return [stack_of(group) for group in groups.values()]


def stack_of(headers: Iterable[Header]) -> Series:
    """Sorts the images of one series into a stack; frames of one file count as images."""
    headers, copies = without_copies(headers)
    main, *others = sorted(by_geometry(headers), key=len, reverse=True)
    problems: list[str] = []
    refusals: list[Refusal] = []
    if copies:
        problems.append(f"{len(copies)} files are copies of others")
    if others:
        sizes = ", ".join(f"{len(group)} of {geometry_name(group[0])}" for group in (main, *others))
        outside = len(headers) - len(main)
        if outside <= OTHERS * len(main):
            problems.append(f"{outside} images of another size or orientation are left out as localisers ({sizes})")
        else:
            refusals.append(Refusal(f"images of different sizes or orientations ({sizes})"))
    spacings = {header.pixel_spacing for header in main}
    if len(spacings) > 1 and not alike(spacings):
        refusals.append(Refusal(f"different pixel spacings ({', '.join(map(str, sorted(spacings, key=str)))} mm)"))
    refusals += differences(main)
    if any(header.mosaic for header in main):
        refusals.append(MOSAIC)
    elif len(main) > 1:
        if all(header.position and header.orientation for header in main):
            main, found, refused = sorted_along_normal(main)
            problems += found
            refusals += refused
        else:
            main, order = sorted_without_positions(main)
            problems.append(f"no slice positions: sorted by {order}")
    return Series(
        main[0].series,
        tuple(main),
        (*(refusal.problem for refusal in refusals), *problems),
        refusal="; ".join(refusal.problem for refusal in refusals),
        remedy=", ".join(dict.fromkeys(refusal.remedy for refusal in refusals)),
        left_out=tuple(copies) + tuple(header for group in others for header in group),
    )


def volume_affine(headers: tuple[Header, ...]) -> tuple[np.ndarray, bool]:
    """Affine from (column, row, slice) indices to RAS mm of sorted slices, and whether the file states the spacing.

    The third column is the measured step from slice to slice, so that a tilted gantry gives a sheared affine. Without
    positions slices count as following each other along the normal, by SpacingBetweenSlices, else by SliceThickness
    (then it counts as not known, because slices may overlap or have gaps), else by 1, and without an orientation as
    axial.
    """
    first, last = headers[0], headers[-1]
    row_distance, column_distance = first.pixel_spacing or (first.pixel_aspect, 1.0)
    row, column = np.reshape(first.orientation or AXIAL, (2, 3))
    known = first.pixel_spacing is not None
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * column_distance, column * row_distance
    if len(headers) > 1 and first.orientation and first.position and last.position:
        affine[:3, 2] = np.subtract(last.position, first.position) / (len(headers) - 1)
        affine[:3, 3] = first.position
    else:
        affine[:3, 2] = np.cross(row, column) * abs(first.slice_spacing or first.slice_thickness or 1.0)
        known = known and first.slice_spacing is not None
    # DICOM's patient axes are left, posterior, superior (PS3.3, C.7.6.2.1.1)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, known


def same_position(one: Header, other: Header) -> bool:
    """Whether two slices of a stack lie at one place."""
    if one.position is None or other.position is None:
        return False
    return np.allclose(one.position, other.position, atol=SAME_POSITION)


def is_one_stack(parts: Iterable[Series]) -> bool:
    """Whether slices of one examination, each at a place of its own, together make a volume without gaps."""
    slices = [header for part in parts for header in part.headers]
    if len(slices) < 3 or len({(header.patient, header.study) for header in slices}) > 1:
        return False
    if not all(header.position and header.orientation for header in slices):
        return False
    whole = stack_of(slices)
    return not whole.refusal and not whole.left_out and not any(starmap(same_position, pairwise(whole.headers)))
