# SPDX-License-Identifier: Apache-2.0
"""What is used of a DICOM header: ids, geometry, unit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from dual_skd.data.reading.dicom_file import frames_of, groups_first, number, numbers, open_header, syntax_of, text
from dual_skd.data.reading.dicom_scan import Beginning, Elements, read_beginning
from dual_skd.data.reading.refusals import failures_named
from dual_skd.errors import InputError

FILES_PER_READ = 16  # by a thread, while another thread parses
READS_AHEAD = 64  # so that memory doesn't grow with the number of files

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
_TAGS = (
    *"""PatientID StudyInstanceUID SeriesInstanceUID SOPInstanceUID SOPClassUID Modality Manufacturer InstitutionName
    BodyPartExamined SeriesDescription PhotometricInterpretation BitsAllocated BitsStored SamplesPerPixel Rows Columns
    NumberOfFrames InstanceNumber ImageOrientationPatient ImagePositionPatient PixelSpacing ImagerPixelSpacing
    NominalScannedPixelSpacing PixelAspectRatio SliceThickness SpacingBetweenSlices RescaleSlope RescaleIntercept
    RescaleType SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence""".split(),
    *ACQUISITION,
)
_CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
# RescaleType (PS3.3, C.11.1.1.2) of spectral CT and others
_OTHER_UNITS = ("OD", "MGML", "Z_EFF", "ED", "EDW", "PCT")


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
        acquisition: values of :data:`ACQUISITION`.
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


def read_header(path: str | Path, beginning: Beginning | None = None) -> Header:
    """Reads the header of a DICOM image, without its pixels.

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
    reads = [paths[start : start + FILES_PER_READ] for start in range(0, len(paths), FILES_PER_READ)]
    with ThreadPoolExecutor(workers or 2 * (os.cpu_count() or 1)) as pool:
        for start in range(0, len(reads), READS_AHEAD):
            ahead = reads[start : start + READS_AHEAD]
            for files, beginnings in zip(ahead, pool.map(lambda files: [*map(_beginning, files)], ahead), strict=True):
                yield from map(_header_or_error, files, beginnings)


def _beginning(path: str | Path) -> Beginning | None:
    try:
        return read_beginning(path)
    except OSError:  # read_header meets it again, and names the file
        return None


def _header_or_error(path: str | Path, beginning: Beginning | None) -> Header | InputError:
    try:
        return read_header(path, beginning)
    except InputError as error:
        return error


def header_of(dataset: Dataset | Elements, path: str | Path) -> Header:
    """The :class:`Header` of a parsed file; of several frames, what the shared groups say of all."""
    frames = frames_of(dataset)
    instance_number = number(dataset, "InstanceNumber")
    return Header(
        path=str(path),
        patient=text(dataset, "PatientID"),
        study=text(dataset, "StudyInstanceUID"),
        series=text(dataset, "SeriesInstanceUID"),
        instance=text(dataset, "SOPInstanceUID"),
        modality=text(dataset, "Modality").upper(),
        manufacturer=text(dataset, "Manufacturer"),
        institution=text(dataset, "InstitutionName"),
        body_part=text(dataset, "BodyPartExamined"),
        series_description=text(dataset, "SeriesDescription"),
        photometric=text(dataset, "PhotometricInterpretation").upper(),
        bits_stored=int(number(dataset, "BitsStored") or 0),
        rows=int(dataset.get("Rows")),
        columns=int(dataset.get("Columns")),
        frames=frames,
        hounsfield=in_hounsfield(dataset),
        instance_number=None if instance_number is None else int(instance_number),
        mosaic="MOSAIC" in text(dataset, "ImageType"),
        transfer_syntax=syntax_of(dataset),
        **geometry_of(dataset, 0 if frames == 1 else None),
    )


def geometry_of(dataset: Dataset | Elements, frame: int | None) -> dict[str, Any]:
    """The fields of a :class:`Header` that differ between frames: of one frame, or with None of all together."""

    def stated(
        keyword: str, group: str, count: int, valid: Callable[[tuple[float, ...]], bool] = bool
    ) -> tuple[float, ...] | None:
        found = (numbers(holder, keyword, count) for holder in groups_first(dataset, group, frame))
        return next((values for values in found if values and valid(values)), None)

    def measure(keyword: str, count: int) -> tuple[float, ...] | None:
        return stated(keyword, "PixelMeasuresSequence", count, any)  # 0 stands for what isn't known

    def acquisition(keyword: str, group: str) -> str:
        return next((value for holder in groups_first(dataset, group, frame) if (value := text(holder, keyword))), "")

    spacing = (
        measure("PixelSpacing", 2)
        or numbers(dataset, "ImagerPixelSpacing", 2)
        or numbers(dataset, "NominalScannedPixelSpacing", 2)
    )
    aspect = numbers(dataset, "PixelAspectRatio", 2)
    return {
        "orientation": stated("ImageOrientationPatient", "PlaneOrientationSequence", 6, _is_a_plane),
        "position": stated("ImagePositionPatient", "PlanePositionSequence", 3),
        "pixel_spacing": spacing if spacing and min(spacing) > 0 else None,
        "pixel_aspect": aspect[0] / aspect[1] if aspect and min(aspect) > 0 else 1.0,
        "slice_thickness": (measure("SliceThickness", 1) or (None,))[0],
        "slice_spacing": (measure("SpacingBetweenSlices", 1) or (None,))[0],
        "acquisition": tuple(acquisition(keyword, group) for keyword, group in ACQUISITION.items()),
    }


@lru_cache(maxsize=1024)
def _is_a_plane(directions: tuple[float, ...]) -> bool:
    """Whether ImageOrientationPatient is a pair of perpendicular unit vectors."""
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
    grey = text(dataset, "PhotometricInterpretation").upper().startswith("MONOCHROME")
    if text(dataset, "Modality").upper() != "CT" or not grey:
        return False
    groups = list(groups_first(dataset, "PixelValueTransformationSequence", 0))
    if any(text(group, "RescaleType").upper() in _OTHER_UNITS for group in groups):
        return False
    of_ct = dataset.get("SOPClassUID") in _CT_CLASSES
    for group in groups:
        slope, intercept = number(group, "RescaleSlope"), number(group, "RescaleIntercept")
        if slope is not None or intercept is not None:
            return of_ct or (slope or 1, intercept or 0) != (1, 0) or (number(dataset, "BitsStored") or 8) > 8
    return None if of_ct else False
