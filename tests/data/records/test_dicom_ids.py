# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import write_ct
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from dual_skd.data.reading.dicom_file import NotAnImage
from dual_skd.data.records import dicom_ids
from dual_skd.data.records.dicom_ids import Ids, read_ids
from dual_skd.errors import InputError


def write(path: Path, **tags) -> Path:
    tags = {"PatientID": " P1 ", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", **tags}
    return write_ct(path, np.zeros((4, 4)), **tags)


def one(path: Path) -> Ids | InputError:
    (found,) = read_ids([str(path)])
    return found


def test_the_ids_of_many_files_come_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_ids, "FILES_AHEAD", 2)
    paths = [str(write(tmp_path / f"{number}.dcm", PatientID=f"P{number}")) for number in range(5)]
    assert list(read_ids(paths)) == [Ids(path, f"P{number}", "1.2", "1.2.3") for number, path in enumerate(paths)]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_every_transfer_syntax_is_read(tmp_path, syntax):
    path = write(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    assert one(path) == Ids(str(path), "P1", "1.2", "1.2.3")


def test_ids_beyond_the_first_bytes_and_files_without_the_mark_are_found(tmp_path, monkeypatch):
    path = write(tmp_path / "a.dcm")
    (tmp_path / "bare").write_bytes(path.read_bytes()[132:])
    assert one(tmp_path / "bare") == Ids(str(tmp_path / "bare"), "P1", "1.2", "1.2.3")
    monkeypatch.setattr(dicom_ids, "HEADER_BYTES", 400)
    assert one(path) == Ids(str(path), "P1", "1.2", "1.2.3")


def test_missing_ids_are_empty(tmp_path):
    path = write(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    del dataset.PatientID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID
    dataset.save_as(path)
    assert one(path) == Ids(str(path))


def test_other_objects_and_files_that_can_not_be_read_are_errors_that_name_the_file(tmp_path):
    report = write(tmp_path / "report.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    assert isinstance(one(report), NotAnImage) and "Basic Text SR Storage" in str(one(report))
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "text.dcm").write_text("no DICOM " * 50)
    for name in ("empty.dcm", "text.dcm", "gone.dcm"):
        error = one(tmp_path / name)
        assert isinstance(error, InputError) and name in str(error), name
