# SPDX-License-Identifier: Apache-2.0
"""The slices of a series: which of them belong together, their order, and what keeps them from being an even grid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydicom.datadict import dictionary_VR

if TYPE_CHECKING:
    from dual_skd.data.reading.dicom import Header

TILT = 1.0  # degrees
MISSING = 1.5  # of the median distance of slices
UNEVEN = 0.1  # of the median distance of slices
MISPLACED = 0.5  # of the mean distance: a slice that lies farther from its place in an even grid is another's neighbour
SAME_POSITION = 0.01  # mm
BLOCK = 3  # wide gaps in a row that are slices of another distance rather than missing ones

# keyword -> the functional group in which enhanced objects have it; what differs between acquisitions of one place
ACQUISITION = {
    "AcquisitionNumber": "",
    "EchoTime": "",
    "EchoNumbers": "",
    "TemporalPositionIdentifier": "",
    "InversionTime": "",
    "KVP": "",
    "ConvolutionKernel": "",
    "ImageType": "",
    "FrameOfReferenceUID": "",
    "DiffusionBValue": "MRDiffusionSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "StackID": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
}


class Refusal(NamedTuple):
    """What keeps a series from being read as a volume, and what to do about it."""

    problem: str
    remedy: str = "split it into one series per stack"


def differences(headers: Iterable[Header]) -> list[Refusal]:
    """What all slices of a volume share and these don't: a volume is read by what its first slice states of them.

    Files of several people get one SeriesInstanceUID from software that replaces UIDs by a constant.
    """
    headers = list(headers)
    shared: dict[str, set[Any]] = {
        "patients (PatientID)": {header.patient for header in headers},
        "examinations (StudyInstanceUID)": {header.study for header in headers},
        "frames of reference (FrameOfReferenceUID)": {
            dict(zip(ACQUISITION, header.acquisition, strict=False)).get("FrameOfReferenceUID", "")
            for header in headers
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
        Refusal(f"its slices are of {len(values)} {what}", "split it into one series for each of them")
        for what, values in ((what, found - {""}) for what, found in shared.items())
        if len(values) > 1
    ]


def without_copies(headers: Iterable[Header]) -> tuple[list[Header], list[Header]]:
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


def by_geometry(headers: list[Header]) -> list[list[Header]]:
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
    if (one.rows, one.columns, one.orientation) == (other.rows, other.columns, other.orientation):
        return True
    if (one.rows, one.columns) != (other.rows, other.columns):
        return False
    if one.orientation is None or other.orientation is None:
        return one.orientation is other.orientation
    return np.allclose(one.orientation, other.orientation, atol=1e-2)


def geometry_name(header: Header) -> str:
    turned = "" if header.orientation is None else f" turned {'/'.join(f'{value:.2g}' for value in header.orientation)}"
    return f"{header.columns} x {header.rows}{turned}"


def alike(spacings: set[tuple[float, ...] | None]) -> bool:
    known = [spacing for spacing in spacings if spacing is not None]
    return len(known) == len(spacings) and bool(np.ptp(np.array(known), axis=0).max() < 1e-3 * min(map(min, known)))


def sorted_along_normal(headers: Sequence[Header]) -> tuple[list[Header], list[str], list[Refusal]]:
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
    interleaved = _interleaved_acquisitions(headers, heights)
    places, heights = places[distinct], heights[distinct]
    if len(places) == 1:
        return headers, problems, [Refusal(f"all {len(headers)} images lie at one position, as in a time series")]
    way = places[-1] - places[0]
    along = way @ normal
    tilt = np.degrees(np.arctan2(np.linalg.norm(way - along * normal), along))
    if tilt > TILT:
        problems.append(f"the gantry is tilted by {tilt:.1f} degrees")
    # slices that leave the straight line through the first and the last one by more than a pixel
    line = places[0] + np.outer((heights - heights[0]) / along, way)
    astray = np.linalg.norm(places - line, axis=1).max()
    if astray > max(headers[0].pixel_spacing or (1.0,)):
        refusals.append(Refusal(f"slices are shifted against each other by up to {astray:.1f} mm"))
    if interleaved:
        return headers, problems, [*refusals, Refusal(interleaved)]
    told, refused = _distances(heights, [header.slice_thickness or 0.0 for header in headers])
    return headers, [*problems, *told, *_thinned(headers, np.median(np.diff(heights)))], refusals + refused


def _thinned(headers: Sequence[Header], distance: float) -> list[str]:
    """A sentence where one slice in several is there: by the distance that the header states, and by their numbers."""
    stated = headers[0].slice_spacing or distance
    numbers = [header.instance_number for header in headers if header.instance_number is not None]
    share = round(distance / stated)
    if share < 2 or abs(distance - share * stated) > UNEVEN * stated:
        return []
    if {abs(after - before) for before, after in pairwise(numbers)} != {share}:
        return []
    return [f"one slice in {share} is there: they lie {distance:.4g} mm apart, the header states {stated:.4g} mm"]


def _distances(heights: np.ndarray, thicknesses: Sequence[float]) -> tuple[list[str], list[Refusal]]:
    """What is remarkable of the distances of slices, and what of them rules out an even grid."""
    gaps = np.diff(heights)
    usual, step = np.median(gaps), gaps.mean()
    misplaced = np.abs(heights - np.linspace(heights[0], heights[-1], len(heights))).max()
    wide = gaps > MISSING * usual
    in_a_row = max((len(run) for run in "".join("x" if one else " " for one in wide).split()), default=0)
    one_thickness = max(thicknesses) - min(thicknesses) <= UNEVEN * max(thicknesses)
    if wide.any() and in_a_row < BLOCK and one_thickness:
        missing = int(np.round(gaps[wide] / usual - 1).sum())
        problem = f"about {missing} slices are missing (gap of {gaps.max():.4g} mm, usually {usual:.4g} mm)"
        return [], [Refusal(problem, "add what is missing")]
    if wide.any() or misplaced > MISPLACED * step:
        middle = (gaps.min() + gaps.max()) / 2
        low, high = np.median(gaps[gaps <= middle]), np.median(gaps[gaps > middle])
        problem = (
            f"slice distances change from {low:.4g} to {high:.4g} mm, an even grid would misplace slices by up to "
            f"{misplaced:.1f} mm"
        )
        return [], [Refusal(problem, "split it into one series per distance or resample it to even distances")]
    if np.abs(gaps - usual).max() > UNEVEN * usual:
        return [f"slice distances are uneven ({gaps.min():.4g} to {gaps.max():.4g} mm)"], []
    return [], []


def _interleaved_acquisitions(headers: Sequence[Header], heights: np.ndarray) -> str:
    """Names two acquisitions of which each is an even stack, one with slices between those of the other, "" for none.

    Blocks that follow each other, an acquisition per slice, and slices that fill the gaps of another acquisition make
    one stack. So do those of several passes whose common distance is the stated SpacingBetweenSlices, or without it
    leaves them side by side by their SliceThickness. Several images at the same positions are left to the comparison
    of their pixels.
    """
    if len({header.acquisition for header in headers}) == 1:
        return ""
    gaps = np.diff(heights)
    gaps = gaps[gaps > SAME_POSITION]
    if not len(gaps) or _is_stated(float(np.median(gaps)), headers[0]):
        return ""
    for keyword, values in zip(ACQUISITION, zip(*(header.acquisition for header in headers), strict=True), strict=True):
        members: dict[str, list[float]] = {}
        for value, height in zip(values, heights.tolist(), strict=True):
            members.setdefault(_plain(keyword, value), []).append(height)
        stacks = sorted((own, value) for value, own in members.items() if _is_even(own))
        for (one, first), (other, second) in pairwise(stacks):
            between = np.array([height for height in other if height < one[-1]])
            if len(between) and np.abs(between[:, None] - one).min(axis=1).max() > SAME_POSITION:
                names = f"{keyword} {first or 'none'} and {second or 'none'}"
                return (
                    f"slices of several acquisitions lie between each other ({names}), which are volumes of their own"
                )
    return ""


def _is_stated(distance: float, header: Header) -> bool:
    """Whether slices of this distance fit SpacingBetweenSlices, else whether they touch by SliceThickness."""
    spacing, thickness = abs(header.slice_spacing or 0.0), abs(header.slice_thickness or 0.0)
    if spacing:
        return abs(distance - spacing) <= UNEVEN * spacing
    return (1 - UNEVEN) * thickness <= distance <= MISSING * thickness


def _plain(keyword: str, value: str) -> str:
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
    return len(gaps) > 0 and gaps.max() <= MISSING * gaps.min()


def sorted_without_positions(headers: list[Header]) -> tuple[list[Header], str]:
    """The slices in order of their numbers, or by name where not all have one of their own, and what they go by."""
    named = sorted(headers, key=lambda header: _natural(header.path))
    numbers = {header.instance_number for header in headers}
    if None in numbers or len(numbers) < len(headers):
        return named, "file name"
    return sorted(named, key=lambda header: header.instance_number or 0), "InstanceNumber"


def _natural(name: str) -> list[str | int]:
    """A key that sorts the numbers in names as numbers: IM2 before IM10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
