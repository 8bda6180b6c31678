# SPDX-License-Identifier: Apache-2.0
"""DICOM files, written as small as the standard allows, and what the reader says of those that it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

from dual_skd.data.reading.reader import read_image
from dual_skd.errors import InputError


def refused(image, *words: str, **options) -> str:
    """What the reader says of an image that it refuses, with these words in it."""
    with pytest.raises(InputError) as caught:
        read_image(image, **options)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def write_dicom(path: Path, stored: np.ndarray, *, syntax: str = ExplicitVRLittleEndian, **tags) -> Path:
    """Writes ``stored``: (rows, columns), (rows, columns, 3) or, with NumberOfFrames, frames first.

    ``tags`` win over what follows from the array; those of None are left out.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, syntax
    meta.MediaStorageSOPInstanceUID = generate_uid()
    little = syntax != ExplicitVRBigEndian
    dicom = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128, is_little_endian=little)
    dicom.SOPClassUID, dicom.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    coloured = stored.ndim - ("NumberOfFrames" in tags) == 3
    size = stored.shape[1:] if "NumberOfFrames" in tags else stored.shape
    dicom.Rows, dicom.Columns = size[:2]
    dicom.SamplesPerPixel, dicom.PhotometricInterpretation = (3, "RGB") if coloured else (1, "MONOCHROME2")
    if coloured:
        dicom.PlanarConfiguration = 0
    dicom.BitsAllocated = dicom.BitsStored = 8 * stored.itemsize
    dicom.HighBit, dicom.PixelRepresentation = dicom.BitsStored - 1, int(stored.dtype.kind == "i")
    dicom.PixelData = stored.astype(stored.dtype.newbyteorder("<" if little else ">")).tobytes()
    dicom["PixelData"].VR = "OW"
    for name, value in {"Modality": "CT", "PatientID": "p", "SeriesInstanceUID": "1.2.3", **tags}.items():
        if value is not None:
            setattr(dicom, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dicom.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    volume: np.ndarray,
    *,
    origin=(-30.0, 20.0, 5.0),
    rows=(1.0, 0.0, 0.0),
    columns=(0.0, 1.0, 0.0),
    spacing=(0.7, 0.5),
    step=None,
    **tags,
) -> Path:
    """Writes slices ``volume`` (slices, rows, columns), 2.5 mm apart unless ``step`` says otherwise.

    The order of file names and of instance numbers is not that of the positions.
    """
    if step is None:
        step = 2.5 * np.cross(rows, columns)
    order = np.random.default_rng(len(volume)).permutation(len(volume))
    for index, stored in enumerate(volume):
        geometry = {
            "ImagePositionPatient": [round(float(v), 6) for v in np.add(origin, np.multiply(step, index))],
            "ImageOrientationPatient": [*map(float, rows), *map(float, columns)],
            "PixelSpacing": list(spacing),
            "InstanceNumber": int(order[index]),
        }
        write_dicom(folder / f"{order[index]:03d}.dcm", stored, **{**geometry, **tags})
    return folder


def write_ct(path: Path, hounsfield: np.ndarray, **tags) -> Path:
    """A CT slice (rows, columns) in HU, stored with offset 1024, of pixels 0.5 mm high and 1.5 mm wide."""
    rescale = {"RescaleSlope": "1", "RescaleIntercept": "-1024", "PixelSpacing": [0.5, 1.5]}
    return write_dicom(path, (hounsfield + 1024).astype(np.uint16), **rescale | tags)


def write_picture(path: Path, stored: np.ndarray, **tags) -> Path:
    """An 8-bit picture (rows, columns) of no modality in particular."""
    return write_dicom(path, stored.astype(np.uint8), **{"Modality": "OT"} | tags)
