# SPDX-License-Identifier: Apache-2.0
"""DICOM series: which files make up a volume, in which order, and what is wrong with it.

What may be wrong with a series, and what is done about it:

=================================================  ===================================================================
one or more slices missing (gap > 1.5 x median)    refused: the anatomy would jump
different images at one position                   refused when read: time points, echoes or b-values don't stack
acquisitions with slices between each other        refused: each is a volume of its own, together they make stripes
different sizes, orientations or pixel spacings    refused; a few localisers beside a stack are left out, with a warning
slices shifted against each other                  refused: no affine describes them
several patients, studies or frames of reference   refused: they share no space
several modalities, units or kinds of grey         refused: one value means different things
identical images at one position                   one is kept, with a warning
gantry tilt (over 1 degree off the normal)         read with a warning: the affine is sheared, and resampling undoes it
distances that change (slices over 1/2 step off)   refused: an even grid would misplace the slices
uneven distances (over 10 %, slices less far off)  read with their mean, with a warning
Siemens mosaics                                    refused: all slices lie side by side in one picture
no positions                                       sorted by InstanceNumber, else by file name, with a warning
=================================================  ===================================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, starmap
from typing import Any, NamedTuple

import numpy as np
from pydicom.datadict import dictionary_VR

from dual_skd.data.reading.dicom_header import ACQUISITION, Header

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # ImageOrientationPatient of slices with the patient's right and front first
MAX_LOCALISERS = 0.25  # images beside the main stack, as a share of it, that count as localisers
MAX_TILT = 1.0  # degrees
MISSING_GAP = 1.5  # of the median distance of slices
UNEVEN_GAP = 0.1  # of the median distance of slices
MISPLACED = 0.5  # of the mean distance: a slice that lies farther from its place in an even grid is another's neighbour
SAME_POSITION = 0.01  # mm
OTHER_DISTANCE = 3  # wide gaps in a row that are slices of another distance rather than missing ones


class Problem(NamedTuple):
    """What is odd about a series; with a remedy, it keeps the series from being read as a volume."""

    words: str
    remedy: str = ""


SPLIT_STACKS = "split it into one series per stack"
MOSAIC = Problem(
    "the slices of each volume lie side by side in one picture (a Siemens mosaic)",
    "convert it to NIfTI with dcm2niix and take one time point",
)


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
    stack, *others = sorted(_by_geometry(headers), key=len, reverse=True)
    problems: list[Problem] = []
    if copies:
        problems.append(Problem(f"{len(copies)} files are copies of others"))
    if others:
        sizes = ", ".join(f"{len(group)} of {_geometry_name(group[0])}" for group in (stack, *others))
        outside = len(headers) - len(stack)
        if outside <= MAX_LOCALISERS * len(stack):
            words = f"{outside} images of another size or orientation are left out as localisers ({sizes})"
            problems.append(Problem(words))
        else:
            problems.append(Problem(f"images of different sizes or orientations ({sizes})", SPLIT_STACKS))
    spacings = {header.pixel_spacing for header in stack}
    if len(spacings) > 1 and not _are_close(spacings):
        words = f"different pixel spacings ({', '.join(map(str, sorted(spacings, key=str)))} mm)"
        problems.append(Problem(words, SPLIT_STACKS))
    problems += _differences(stack)
    if any(header.mosaic for header in stack):
        problems.append(MOSAIC)
    elif len(stack) > 1:
        by_position = all(header.position and header.orientation for header in stack)
        stack, found = (_sorted_along_normal if by_position else _sorted_without_positions)(stack)
        problems += found
    refusals = [problem for problem in problems if problem.remedy]
    return Series(
        stack[0].series,
        tuple(stack),
        tuple(problem.words for problem in sorted(problems, key=lambda problem: not problem.remedy)),
        refusal="; ".join(problem.words for problem in refusals),
        remedy=", ".join(dict.fromkeys(problem.remedy for problem in refusals)),
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


def _differences(headers: Sequence[Header]) -> list[Problem]:
    """What all slices of a volume share and these don't: a volume is read by what its first slice states of them.

    Files of several people get one SeriesInstanceUID from software that replaces UIDs by a constant.
    """
    place = [*ACQUISITION].index("FrameOfReferenceUID")
    shared: dict[str, set[Any]] = {
        "patients (PatientID)": {header.patient for header in headers},
        "examinations (StudyInstanceUID)": {header.study for header in headers},
        "frames of reference (FrameOfReferenceUID)": {
            "".join(header.acquisition[place : place + 1]) for header in headers
        },
        "kinds of grey (PhotometricInterpretation)": {
            "MONOCHROME2" if header.hounsfield else header.photometric
            for header in headers
            if header.photometric.startswith("MONOCHROME")
        },
        "units (Hounsfield units and others)": {header.hounsfield for header in headers},
        "modalities (Modality)": {header.modality for header in headers},
    }
    return [
        Problem(f"its slices are of {len(values)} {what}", "split it into one series for each of them")
        for what, found in shared.items()
        if len(values := found - {""}) > 1
    ]


def _without_copies(headers: Iterable[Header]) -> tuple[list[Header], list[Header]]:
    """(images, copies): a copy states the instance, position and number of another file.

    An instance of several positions or numbers is the constant of an anonymiser, and shows no copy: the pixels will.
    """
    headers = list(headers)
    places: dict[str, set[object]] = {}
    for header in headers:
        places.setdefault(header.instance, set()).add((header.position, header.instance_number))
    kept: list[Header] = []
    copies: list[Header] = []
    seen: set[str] = set()
    for header in headers:
        comparable = header.instance and header.position and len(places[header.instance]) == 1
        if comparable and header.instance in seen:
            copies.append(header)
        else:
            kept.append(header)
            seen.add(header.instance)
    return kept, copies


def _by_geometry(headers: list[Header]) -> list[list[Header]]:
    groups: list[list[Header]] = []
    for header in headers:
        group = next((group for group in groups if _same_geometry(header, group[0])), None)
        if group is None:
            groups.append([header])
        else:
            group.append(header)
    return groups


def _same_geometry(one: Header, other: Header) -> bool:
    if (one.rows, one.columns) != (other.rows, other.columns):
        return False
    if one.orientation == other.orientation:
        return True
    if one.orientation is None or other.orientation is None:
        return False
    return np.allclose(one.orientation, other.orientation, atol=1e-2)


def _geometry_name(header: Header) -> str:
    turned = "" if header.orientation is None else f" turned {'/'.join(f'{value:.2g}' for value in header.orientation)}"
    return f"{header.columns} x {header.rows}{turned}"


def _are_close(spacings: set[tuple[float, ...] | None]) -> bool:
    known = [spacing for spacing in spacings if spacing is not None]
    return len(known) == len(spacings) and bool(np.ptp(np.array(known), axis=0).max() < 1e-3 * min(map(min, known)))


def _sorted_along_normal(headers: Sequence[Header]) -> tuple[list[Header], list[Problem]]:
    """The slices in order of position, and what is odd about their positions."""
    normal = np.cross(*np.array(headers[0].orientation).reshape(2, 3))
    places = np.array([header.position for header in headers])
    order = np.argsort(places @ normal, kind="stable")
    headers, places = [headers[index] for index in order], places[order]
    heights = places @ normal
    distinct = np.diff(heights, prepend=-np.inf) > SAME_POSITION
    problems = []
    if not distinct.all():
        copies = np.count_nonzero(~distinct)
        problems.append(Problem(f"{copies} of {len(headers)} images lie at the position of another one"))
    interleaved = _interleaved_acquisitions(headers, heights)
    places, heights = places[distinct], heights[distinct]
    if len(places) == 1:
        words = f"all {len(headers)} images lie at one position, as in a time series"
        return headers, [*problems, Problem(words, SPLIT_STACKS)]
    way = places[-1] - places[0]
    along = way @ normal
    tilt = np.degrees(np.arctan2(np.linalg.norm(way - along * normal), along))
    if tilt > MAX_TILT:
        problems.append(Problem(f"the gantry is tilted by {tilt:.1f} degrees"))
    # slices that leave the straight line through the first and the last one by more than a pixel
    line = places[0] + np.outer((heights - heights[0]) / along, way)
    astray = np.linalg.norm(places - line, axis=1).max()
    if astray > max(headers[0].pixel_spacing or (1.0,)):
        problems.append(Problem(f"slices are shifted against each other by up to {astray:.1f} mm", SPLIT_STACKS))
    if interleaved:
        return headers, [*problems, interleaved]
    return headers, [*problems, *_uneven_distances(headers, heights), *_thinned(headers, np.median(np.diff(heights)))]


def _thinned(headers: Sequence[Header], distance: float) -> list[Problem]:
    """Whether one slice in several is there: by the distance that the header states, and by their numbers."""
    stated = headers[0].slice_spacing or distance
    numbers = [header.instance_number for header in headers if header.instance_number is not None]
    share = round(distance / stated)
    if share < 2 or abs(distance - share * stated) > UNEVEN_GAP * stated:
        return []
    if {abs(after - before) for before, after in pairwise(numbers)} != {share}:
        return []
    apart = f"they lie {distance:.4g} mm apart, the header states {stated:.4g} mm"
    return [Problem(f"one slice in {share} is there: {apart}")]


def _uneven_distances(headers: Sequence[Header], heights: np.ndarray) -> list[Problem]:
    thicknesses = [header.slice_thickness or 0.0 for header in headers]
    gaps = np.diff(heights)
    usual, step = np.median(gaps), gaps.mean()
    misplaced = np.abs(heights - np.linspace(heights[0], heights[-1], len(heights))).max()
    wide = gaps > MISSING_GAP * usual
    in_a_row = max((len(run) for run in "".join("x" if one else " " for one in wide).split()), default=0)
    one_thickness = max(thicknesses) - min(thicknesses) <= UNEVEN_GAP * max(thicknesses)
    if wide.any() and in_a_row < OTHER_DISTANCE and one_thickness:
        missing = int(np.round(gaps[wide] / usual - 1).sum())
        words = f"about {missing} slices are missing (gap of {gaps.max():.4g} mm, usually {usual:.4g} mm)"
        return [Problem(words, "add what is missing")]
    if wide.any() or misplaced > MISPLACED * step:
        middle = (gaps.min() + gaps.max()) / 2
        low, high = np.median(gaps[gaps <= middle]), np.median(gaps[gaps > middle])
        words = (
            f"slice distances change from {low:.4g} to {high:.4g} mm, an even grid would misplace slices by up to "
            f"{misplaced:.1f} mm"
        )
        return [Problem(words, "split it into one series per distance or resample it to even distances")]
    if np.abs(gaps - usual).max() > UNEVEN_GAP * usual:
        return [Problem(f"slice distances are uneven ({gaps.min():.4g} to {gaps.max():.4g} mm)")]
    return []


def _interleaved_acquisitions(headers: Sequence[Header], heights: np.ndarray) -> Problem | None:
    """Two acquisitions of which each is an even stack, one with slices between those of the other.

    Runs that follow each other, an acquisition per slice, and slices that fill the gaps of another acquisition make
    one stack. So do those of several passes whose common distance is the stated SpacingBetweenSlices, or without it
    leaves them side by side by their SliceThickness. Several images at the same positions are left to the comparison
    of their pixels.
    """
    if len({header.acquisition for header in headers}) == 1:
        return None
    gaps = np.diff(heights)
    gaps = gaps[gaps > SAME_POSITION]
    if not len(gaps) or _is_stated(float(np.median(gaps)), headers[0]):
        return None
    for keyword, values in zip(ACQUISITION, zip(*(header.acquisition for header in headers), strict=True), strict=True):
        members: dict[str, list[float]] = {}
        for value, height in zip(values, heights.tolist(), strict=True):
            members.setdefault(_as_number(keyword, value), []).append(height)
        stacks = sorted((own, value) for value, own in members.items() if _is_even(own))
        for (one, first), (other, second) in pairwise(stacks):
            between = np.array([height for height in other if height < one[-1]])
            if len(between) and np.abs(between[:, None] - one).min(axis=1).max() > SAME_POSITION:
                names = f"{keyword} {first or 'none'} and {second or 'none'}"
                words = (
                    f"slices of several acquisitions lie between each other ({names}), which are volumes of their own"
                )
                return Problem(words, SPLIT_STACKS)
    return None


def _is_stated(distance: float, header: Header) -> bool:
    """Whether slices of this distance fit SpacingBetweenSlices, else whether they touch by SliceThickness."""
    spacing, thickness = abs(header.slice_spacing or 0.0), abs(header.slice_thickness or 0.0)
    if spacing:
        return abs(distance - spacing) <= UNEVEN_GAP * spacing
    return (1 - UNEVEN_GAP) * thickness <= distance <= MISSING_GAP * thickness


def _as_number(keyword: str, value: str) -> str:
    """A number in one way of writing: 2.46 and 2.460 are the same echo time."""
    if dictionary_VR(keyword) not in ("DS", "IS", "FD"):
        return value
    try:
        return f"{float(value):.10g}"
    except ValueError:  # none, or several
        return value


def _is_even(heights: list[float]) -> bool:
    """Whether sorted heights are those of a stack without missing slices."""
    gaps = np.diff(heights)
    gaps = gaps[gaps > SAME_POSITION]
    return len(gaps) > 0 and gaps.max() <= MISSING_GAP * gaps.min()


def _sorted_without_positions(headers: list[Header]) -> tuple[list[Header], list[Problem]]:
    """The slices in order of their numbers, or by name where not all have one of their own."""
    headers, order = sorted(headers, key=lambda header: _natural(header.path)), "file name"
    numbers = {header.instance_number for header in headers}
    if None not in numbers and len(numbers) == len(headers):
        headers, order = sorted(headers, key=lambda header: header.instance_number or 0), "InstanceNumber"
    return headers, [Problem(f"no slice positions: sorted by {order}")]


def _natural(name: str) -> list[str | int]:
    """A key that sorts the numbers in names as numbers: IM2 before IM10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
