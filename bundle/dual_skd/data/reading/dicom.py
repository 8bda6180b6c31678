# SPDX-License-Identifier: Apache-2.0
"""DICOM without its pixels: headers, and which files make up a volume in which order.

What a series may be short of, and what is done about it:

==================================================  ==================================================================
one or more slices missing (gap > 1.5 x median)     refused: the anatomy would jump
different images at one position                    refused when read: time points, echoes or b-values don't stack
different sizes, orientations or pixel spacings     refused, but a few localisers beside a stack are left out and told
slices shifted against each other                   refused: no affine describes them
identical images at one position                    one is kept, the others are told
gantry tilt (positions > 1 degree off the normal)   read and told: the affine is sheared, so resampling undoes the tilt
uneven distances (over 10 %, below a missing slice) read with their mean and told
no positions                                        sorted by InstanceNumber, else by file name, and told
==================================================  ==================================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, starmap
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from dual_skd.data.reading.dicom_file import first_item, frames_of, number, numbers, open_dicom
from dual_skd.data.reading.loading import failures_named
from dual_skd.errors import InputError

TILT = 1.0  # degrees
MISSING = 1.5  # of the median distance of slices
UNEVEN = 0.1  # of the median distance of slices
SAME_POSITION = 0.01  # mm
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # ImageOrientationPatient of slices with the patient's right and front first
OTHERS = 0.25  # images beside the main stack, as a share of it, that count as localisers

_TAGS = """PatientID StudyInstanceUID SeriesInstanceUID SOPInstanceUID SOPClassUID Modality Manufacturer InstitutionName
BodyPartExamined SeriesDescription PhotometricInterpretation BitsAllocated BitsStored SamplesPerPixel Rows Columns
NumberOfFrames InstanceNumber ImageOrientationPatient ImagePositionPatient PixelSpacing ImagerPixelSpacing
NominalScannedPixelSpacing SliceThickness SpacingBetweenSlices RescaleSlope RescaleIntercept
SharedFunctionalGroupsSequence""".split()

CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)


@dataclass(frozen=True)
class Header:
    """What is used of a DICOM header; texts are "" and numbers None where the file is silent.

    Args:
        path: the file.
        patient: PatientID.
        study, series, instance: UIDs.
        photometric: PhotometricInterpretation.
        bits_stored, rows, columns, frames: of the pixels.
        hounsfield: whether rescaled values are Hounsfield units, see :func:`in_hounsfield`.
        orientation: ImageOrientationPatient, direction of the rows and of the columns (6 numbers).
        position: ImagePositionPatient in mm (3 numbers), of the centre of the first pixel.
        pixel_spacing: (distance of rows, distance of columns) in mm. Projections without PixelSpacing give that of
            the detector, which is larger than that of the body by the magnification.
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
    hounsfield: bool = False
    instance_number: int | None = None
    orientation: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None
    pixel_spacing: tuple[float, ...] | None = None
    slice_thickness: float | None = None
    slice_spacing: float | None = None
    transfer_syntax: str = ""


@dataclass(frozen=True)
class Series:
    """The images of one SeriesInstanceUID.

    Args:
        uid: SeriesInstanceUID.
        headers: of the stack, sorted by position along the normal of the slices.
        problems: everything remarkable, in words; see the table of this module.
        refusal: the problem that keeps the series from being read as a volume, "" if there is none.
        left_out: images of another size or orientation, and copies of a file.
    """

    uid: str
    headers: tuple[Header, ...]
    problems: tuple[str, ...] = ()
    refusal: str = ""
    left_out: tuple[Header, ...] = ()


# ---------------------------------------------------------------------------------------------------------- headers


def read_header(path: str | Path) -> Header:
    """Reads the header of a DICOM image, without its pixels.

    Raises:
        NotAnImage: for other files, and DICOM objects without pixels.
        InputError: for damaged files; both name the file.
    """
    with failures_named(path):
        dataset = open_dicom(path, tags=_TAGS)
        return header_of(dataset, path)


def read_headers(paths: Iterable[str | Path], workers: int | None = None) -> Iterator[Header | InputError]:
    """Reads many headers with threads; errors come in the place of their file."""

    def header_or_error(path: str | Path) -> Header | InputError:
        try:
            return read_header(path)
        except InputError as error:
            return error

    with ThreadPoolExecutor(workers or 2 * (os.cpu_count() or 1)) as pool:
        yield from pool.map(header_or_error, paths)


def header_of(dataset: Dataset, path: str | Path) -> Header:
    """Takes what is used from a parsed file; geometry also from the shared groups of multi-frame objects."""
    shared = first_item(dataset, "SharedFunctionalGroupsSequence")
    measures = first_item(shared, "PixelMeasuresSequence")
    plane = first_item(shared, "PlaneOrientationSequence")
    spacing = (
        numbers(dataset, "PixelSpacing", 2)
        or numbers(measures, "PixelSpacing", 2)
        or numbers(dataset, "ImagerPixelSpacing", 2)
        or numbers(dataset, "NominalScannedPixelSpacing", 2)
    )
    return Header(
        path=str(path),
        patient=_text(dataset, "PatientID"),
        study=_text(dataset, "StudyInstanceUID"),
        series=_text(dataset, "SeriesInstanceUID"),
        instance=_text(dataset, "SOPInstanceUID"),
        modality=_text(dataset, "Modality"),
        manufacturer=_text(dataset, "Manufacturer"),
        institution=_text(dataset, "InstitutionName"),
        body_part=_text(dataset, "BodyPartExamined"),
        series_description=_text(dataset, "SeriesDescription"),
        photometric=_text(dataset, "PhotometricInterpretation"),
        bits_stored=int(number(dataset, "BitsStored") or 0),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=frames_of(dataset),
        hounsfield=in_hounsfield(dataset),
        instance_number=None if (count := number(dataset, "InstanceNumber")) is None else int(count),
        orientation=orientation_of(dataset) or orientation_of(plane),
        position=numbers(dataset, "ImagePositionPatient", 3),
        pixel_spacing=spacing if spacing and min(spacing) > 0 else None,
        slice_thickness=number(dataset, "SliceThickness") or number(measures, "SliceThickness"),
        slice_spacing=number(dataset, "SpacingBetweenSlices") or number(measures, "SpacingBetweenSlices"),
        transfer_syntax=str(dataset.file_meta.TransferSyntaxUID),
    )


def orientation_of(dataset: Dataset) -> tuple[float, ...] | None:
    """ImageOrientationPatient if it is a pair of perpendicular unit vectors."""
    values = numbers(dataset, "ImageOrientationPatient", 6)
    if values is None:
        return None
    row, column = np.array(values).reshape(2, 3)
    proper = abs(row @ column) < 1e-2 and abs(row @ row - 1) < 1e-2 and abs(column @ column - 1) < 1e-2
    return values if proper else None


def plane_of(orientation: Sequence[float] | None) -> str:
    """ "axial", "coronal" or "sagittal", by the axis that the normal of ImageOrientationPatient is nearest to."""
    if orientation is None:
        return ""
    normal = np.cross(orientation[:3], orientation[3:])
    return ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]


def in_hounsfield(dataset: Dataset) -> bool:
    """Whether rescaled values are Hounsfield units: grey CT by its SOP class, or another object of CT with a rescale.

    A picture made of CT (secondary capture) keeps the modality, but its grey values are those of a screen. A rescale of
    8 bits by 1 and 0 says no more than none.
    """
    if dataset.get("Modality") != "CT" or not _text(dataset, "PhotometricInterpretation").startswith("MONOCHROME"):
        return False
    if dataset.get("SOPClassUID") in CT_CLASSES:
        return True
    shared = first_item(first_item(dataset, "SharedFunctionalGroupsSequence"), "PixelValueTransformationSequence")
    for group in (dataset, shared):
        slope, intercept = number(group, "RescaleSlope"), number(group, "RescaleIntercept")
        if slope is not None or intercept is not None:
            return (slope or 1, intercept or 0) != (1, 0) or (number(dataset, "BitsStored") or 8) > 8
    return False


def _text(dataset: Dataset, keyword: str) -> str:
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
    headers, copies = _without_copies(headers)
    main, *others = sorted(_by_geometry(headers), key=len, reverse=True)
    problems, refusals = [], []
    if copies:
        problems.append(f"{len(copies)} files are copies of others")
    if others:
        sizes = ", ".join(f"{len(group)} of {_geometry_name(group[0])}" for group in (main, *others))
        outside = len(headers) - len(main)
        if outside <= OTHERS * len(main):
            problems.append(f"{outside} images of another size or orientation are left out as localisers ({sizes})")
        else:
            refusals.append(f"images of different sizes or orientations ({sizes})")
    spacings = {header.pixel_spacing for header in main}
    if len(spacings) > 1 and not _alike(spacings):
        refusals.append(f"different pixel spacings ({', '.join(map(str, sorted(spacings, key=str)))} mm)")
    if len(main) > 1:
        if all(header.position and header.orientation for header in main):
            main, found, refused = _sorted_along_normal(main)
            problems += found
            refusals += refused
        else:
            main, order = _sorted_without_positions(main)
            problems.append(f"no slice positions: sorted by {order}")
    left_out = tuple(copies) + tuple(header for group in others for header in group)
    return Series(main[0].series, tuple(main), (*refusals, *problems), "; ".join(refusals), left_out)


def volume_affine(headers: tuple[Header, ...]) -> tuple[np.ndarray, bool]:
    """Affine from (column, row, slice) indices to RAS mm of sorted slices, and whether the file states the spacing.

    The third column is the measured step from slice to slice, so that a tilted gantry gives a sheared affine. Without
    positions slices count as following each other along the normal, by SpacingBetweenSlices, else by SliceThickness
    (then it counts as not known, because slices may overlap or have gaps), else by 1, and without an orientation as
    axial.
    """
    first, last = headers[0], headers[-1]
    row_distance, column_distance = first.pixel_spacing or (1.0, 1.0)
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


def _without_copies(headers: Iterable[Header]) -> tuple[list[Header], list[Header]]:
    """Sorts out files that state the instance, position and number of another one.

    An instance of several positions or numbers is the constant of an anonymiser, and tells no copy: the pixels will.
    """
    headers = list(headers)
    places: dict[str, set[object]] = {}
    for header in headers:
        places.setdefault(header.instance, set()).add((header.position, header.instance_number))
    kept: dict[object, Header] = {}
    copies: list[Header] = []
    for header in headers:
        known = header.instance and header.position and len(places[header.instance]) == 1
        key = (header.instance, header.position, header.instance_number) if known else len(kept) + len(copies)
        if key in kept:
            copies.append(header)
        else:
            kept[key] = header
    return list(kept.values()), copies


def _by_geometry(headers: list[Header]) -> list[list[Header]]:
    groups: list[list[Header]] = []
    for header in headers:
        for group in groups:
            if _same_geometry(header, group[0]):
                group.append(header)
                break
        else:
            groups.append([header])
    return groups


def _same_geometry(one: Header, other: Header) -> bool:
    if (one.rows, one.columns) != (other.rows, other.columns):
        return False
    if one.orientation is None or other.orientation is None:
        return one.orientation is other.orientation
    return np.allclose(one.orientation, other.orientation, atol=1e-2)


def _geometry_name(header: Header) -> str:
    turned = "" if header.orientation is None else f" turned {'/'.join(f'{value:.2g}' for value in header.orientation)}"
    return f"{header.columns} x {header.rows}{turned}"


def _alike(spacings: set[tuple[float, ...] | None]) -> bool:
    known = [spacing for spacing in spacings if spacing is not None]
    return len(known) == len(spacings) and bool(np.ptp(np.array(known), axis=0).max() < 1e-3 * min(map(min, known)))


def _sorted_without_positions(headers: list[Header]) -> tuple[list[Header], str]:
    """The slices in order of their numbers, or by name where not all have one of their own, and what they go by."""
    named = sorted(headers, key=lambda header: _natural(header.path))
    numbers = {header.instance_number for header in headers}
    if None in numbers or len(numbers) < len(headers):
        return named, "file name"
    return sorted(named, key=lambda header: header.instance_number or 0), "InstanceNumber"


def _natural(name: str) -> list[str | int]:
    """A key that sorts the numbers in names as numbers: IM2 before IM10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _sorted_along_normal(headers: list[Header]) -> tuple[list[Header], list[str], list[str]]:
    """The slices in order of position, what is remarkable of their positions, and what rules out a volume."""
    normal = np.cross(*np.array(headers[0].orientation).reshape(2, 3))
    places = np.array([header.position for header in headers])
    order = np.argsort(places @ normal, kind="stable")
    headers, places = [headers[index] for index in order], places[order]
    heights = places @ normal
    distinct = np.diff(heights, prepend=-np.inf) > SAME_POSITION
    problems, refusals = [], []
    if not distinct.all():
        problems.append(f"{np.count_nonzero(~distinct)} of {len(headers)} images lie at the position of another one")
    places, heights = places[distinct], heights[distinct]
    if len(places) == 1:
        return headers, problems, [f"all {len(headers)} images lie at one position, as in a time series"]
    way = places[-1] - places[0]
    along = way @ normal
    tilt = np.degrees(np.arctan2(np.linalg.norm(way - along * normal), along))
    if tilt > TILT:
        problems.append(f"the gantry is tilted by {tilt:.1f} degrees")
    # slices that leave the straight line through the first and the last one by more than a pixel
    line = places[0] + np.outer((heights - heights[0]) / along, way)
    astray = np.linalg.norm(places - line, axis=1).max()
    if astray > max(headers[0].pixel_spacing or (1.0,)):
        refusals.append(f"slices are shifted against each other by up to {astray:.1f} mm")
    gaps = np.diff(heights)
    usual = np.median(gaps)
    if (wide := gaps > MISSING * usual).any():
        missing = int(np.round(gaps[wide] / usual - 1).sum())
        refusals.append(f"about {missing} slices are missing (gap of {gaps.max():.4g} mm, usually {usual:.4g} mm)")
    elif np.abs(gaps - usual).max() > UNEVEN * usual:
        problems.append(f"slice distances are uneven ({gaps.min():.4g} to {gaps.max():.4g} mm)")
    return headers, problems, refusals
