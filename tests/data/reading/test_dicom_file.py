# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zlib

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, SegmentationStorage, generate_uid

from dual_skd.data.reading import metered
from dual_skd.data.reading.dicom_file import NotAnImage
from dual_skd.data.reading.dicom_header import read_header
from dual_skd.data.reading.reader import read_image
from dual_skd.errors import InputError

PIXELS = np.arange(20 * 16, dtype=np.int16).reshape(20, 16)


def write_object(path, kind: str, **tags):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = kind, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dicom = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dicom.SOPClassUID, dicom.PatientID = kind, "p"
    for name, value in tags.items():
        setattr(dicom, name, value)
    dicom.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.11", "without pixels \\(Basic Text SR Storage\\)"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "without pixels \\(RT Structure Set Storage\\)"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "without pixels \\(Grayscale Softcopy Presentation State Storage\\)"),
        ("1.2.840.10008.1.3.10", "DICOMDIR, an index of other files"),
    ],
)
def test_objects_that_are_no_images_are_named_for_what_they_are(tmp_path, kind, words):
    path = write_object(tmp_path / "object.dcm", kind)
    for read in (read_header, read_image):
        with pytest.raises(NotAnImage, match=words) as caught:
            read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"Dear colleague", b"\x89PNG\r\n\x1a\n" + b"\0" * 300, b"DICM" * 3])
def test_files_of_another_kind_are_not_taken_for_dicom(tmp_path, content):
    (tmp_path / "letter").write_bytes(content)
    with pytest.raises(NotAnImage, match="letter can't be read: the content is (plain text|PNG), "):
        read_header(tmp_path / "letter")


def test_an_image_whose_pixels_were_removed_says_so(tmp_path):
    path = write_object(
        tmp_path / "a.dcm", "1.2.840.10008.5.1.4.1.1.2", Rows=2, Columns=2, BitsAllocated=16, SamplesPerPixel=1
    )
    with pytest.raises(InputError, match="no pixel data.*removed") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("implicit", [True, False])
def test_a_file_without_preamble_and_meta_information_is_read(tmp_path, dicom_file, implicit):
    dicom = pydicom.dcmread(dicom_file(tmp_path / "whole.dcm", PIXELS))
    bare = Dataset({tag: dicom[tag] for tag in dicom.keys()})  # noqa: SIM118 - it iterates over elements
    bare.save_as(tmp_path / "bare", implicit_vr=implicit, little_endian=True)
    assert (tmp_path / "bare").read_bytes()[:2] == b"\x08\x00"
    assert np.array_equal(read_image(tmp_path / "bare")[0], PIXELS.T)


def test_an_empty_file_says_so(tmp_path):
    (tmp_path / "a.dcm").touch()
    with pytest.raises(InputError, match="a.dcm is empty \\(0 bytes\\)"):
        read_header(tmp_path / "a.dcm")


def test_a_file_cut_short_is_found_by_its_header_alone(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", PIXELS)
    path.write_bytes(path.read_bytes()[:-500])
    for read in (read_header, read_image):
        with pytest.raises(InputError, match="a.dcm is cut short or damaged: its header declares 640 bytes"):
            read(path)


@pytest.mark.parametrize("tags", [{"Rows": 60000, "Columns": 60000}, {"NumberOfFrames": 2_000_000}])
def test_sizes_that_fill_the_memory_are_refused_before_it_is_taken(tmp_path, dicom_file, tags):
    path = dicom_file(tmp_path / "a.dcm", PIXELS)
    dicom = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(dicom, name, value)
    dicom.save_as(path)
    for read in (read_header, read_image):
        with pytest.raises(InputError, match="a.dcm declares a size of .* GiB"):
            read(path)


def test_no_rows_at_all_is_refused(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", PIXELS, Rows=0)
    with pytest.raises(InputError, match="a.dcm is damaged or empty: its header declares a size of 16 x 0"):
        read_header(path)


def test_a_deflated_file_that_expands_without_end_is_refused(tmp_path, dicom_file, monkeypatch):
    path = dicom_file(tmp_path / "a.dcm", PIXELS, syntax=DeflatedExplicitVRLittleEndian)
    assert np.array_equal(read_image(path)[0], PIXELS.T)
    plain = path.read_bytes()
    start = 144 + int.from_bytes(plain[140:144], "little")
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    inflated = zlib.decompress(plain[start:], -zlib.MAX_WBITS)
    bomb = deflate.compress(inflated + b"\0" * 3_000_000) + deflate.flush()
    path.write_bytes(plain[:start] + bomb)
    monkeypatch.setattr(metered, "MAX_EXPANDED", 2_000_000)
    with pytest.raises(InputError, match="a.dcm expands to more than"):
        read_image(path)


def test_the_header_of_a_deflated_file_is_read(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", np.arange(400, dtype=np.uint16).reshape(20, 20))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    assert read_header(path).rows == 20
    assert read_image(path)[0][3, 2] == 43


def test_a_segmentation_is_no_image_although_it_has_rows(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", np.zeros((4, 4), np.uint8), SOPClassUID=SegmentationStorage)
    with pytest.raises(NotAnImage, match="Segmentation Storage"):
        read_header(path)


def test_an_object_that_is_whole_and_no_image_is_not_called_cut_short(tmp_path):
    bare = write_object(tmp_path / "bare.dcm", "1.2.840.10008.5.1.4.1.1.88.11")
    dicom = pydicom.dcmread(bare)
    del dicom.SOPClassUID
    dicom.file_meta.MediaStorageSOPClassUID = ""
    dicom.save_as(bare, enforce_file_format=False)
    removed = write_object(tmp_path / "removed.dcm", "1.2.840.10008.5.1.4.1.1.2")
    for read in (read_header, read_image):
        with pytest.raises(NotAnImage, match="bare.dcm is a DICOM object without pixels"):
            read(bare)
        with pytest.raises(InputError, match="removed.dcm has no image size in its header") as caught:
            read(removed)
        assert "cut short" not in str(caught.value)
    removed.write_bytes(removed.read_bytes()[:-3])
    with pytest.raises(InputError, match="removed.dcm is cut short or damaged"):
        read_header(removed)


@pytest.mark.parametrize("name", ["a.hdr", "a.img", "a.mgz", "a.nrrd", "a.mha"])
def test_volumes_of_other_formats_are_to_be_converted(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x5c\x01\0\0" + b"\0" * 600)
    with pytest.raises(NotAnImage, match=f"{name} can't be read: .*, which isn't read; convert it to .nii.gz"):
        read_image(tmp_path / name)
