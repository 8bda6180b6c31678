# SPDX-License-Identifier: Apache-2.0
"""Small DICOM files for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid


def write_ct(path: Path, hounsfield: np.ndarray, **tags: Any) -> Path:
    """A CT slice (rows, columns) in HU, stored with offset 1024 and slope 1, 0.5 mm x 1.5 mm pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dicom = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dicom.SOPClassUID, dicom.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dicom.Modality, dicom.PatientID, dicom.StudyInstanceUID = "CT", "p", "1.2.3"
    dicom.SeriesInstanceUID, dicom.InstanceNumber = "1.2.3.4", 1
    dicom.SamplesPerPixel, dicom.PhotometricInterpretation, dicom.PixelRepresentation = 1, "MONOCHROME2", 0
    dicom.Rows, dicom.Columns = hounsfield.shape
    dicom.BitsAllocated, dicom.BitsStored, dicom.HighBit = 16, 12, 11
    dicom.RescaleSlope, dicom.RescaleIntercept = "1", "-1024"
    dicom.PixelSpacing = [0.5, 1.5]  # between rows, between columns
    return _save(dicom, path, (hounsfield + 1024).astype("<u2").tobytes(), tags)


def write_picture(path: Path, stored: np.ndarray, **tags: Any) -> Path:
    """An 8-bit secondary capture (rows, columns), without spacing or position."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = SecondaryCaptureImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dicom = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dicom.SOPClassUID, dicom.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dicom.Modality, dicom.PatientID = "OT", "p"
    dicom.SamplesPerPixel, dicom.PhotometricInterpretation, dicom.PixelRepresentation = 1, "MONOCHROME2", 0
    dicom.Rows, dicom.Columns = stored.shape
    dicom.BitsAllocated, dicom.BitsStored, dicom.HighBit = 8, 8, 7
    return _save(dicom, path, stored.astype(np.uint8).tobytes(), tags)


def _save(dicom: FileDataset, path: Path, pixels: bytes, tags: dict[str, Any]) -> Path:
    dicom.PixelData = pixels + b"\0" * (len(pixels) % 2)  # an even number of bytes, says the standard
    for name, value in tags.items():
        setattr(dicom, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dicom.save_as(path, enforce_file_format=True)
    return path
