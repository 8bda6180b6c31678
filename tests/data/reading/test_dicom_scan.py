# SPDX-License-Identifier: Apache-2.0
"""The quick reader of headers against pydicom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dual_skd.data.reading import dicom_scan
from dual_skd.data.reading.dicom_file import open_dicom
from dual_skd.data.reading.dicom_header import header_of, read_header, read_headers
from dual_skd.data.reading.dicom_scan import read_beginning, scan
from dual_skd.data.reading.reader import read_image
from dual_skd.errors import InputError

PIXELS = np.arange(6 * 4, dtype=np.int16).reshape(6, 4)
FILES = """CT_small.dcm MR_small.dcm MR_small_implicit.dcm 693_J2KI.dcm JPEG2000.dcm SC_rgb_rle_2frame.dcm
SC_rgb_gdcm_KY.dcm examples_palette.dcm examples_overlay.dcm examples_rgb_color.dcm
JPEG-lossy.dcm MR_small_RLE.dcm""".split()


def quick(path: Path, *keywords: str):
    return scan(path, read_beginning(path), keywords or ("PatientID", "Rows", "SliceThickness"))


@pytest.mark.parametrize("name", FILES)
def test_the_header_is_the_one_that_pydicom_reads(name):
    path = get_testdata_file(name)
    whole, header = header_of(open_dicom(path), path), read_header(path)
    # only pydicom keeps spaces in the middle of a list
    assert [text.replace(" ", "") for text in header.acquisition] == [t.replace(" ", "") for t in whole.acquisition]
    assert replace(header, acquisition=()) == replace(whole, acquisition=())


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_ordinary_headers_are_read_without_pydicom(tmp_path, dicom_file, monkeypatch, syntax):
    paths = [dicom_file(tmp_path / f"{n}.dcm", PIXELS, syntax=syntax, InstanceNumber=n) for n in range(40)]
    monkeypatch.setattr(pydicom, "dcmread", lambda *_, **__: pytest.fail("pydicom was called"))
    assert [header.instance_number for header in read_headers(paths)] == list(range(40))


def nested(depth: int) -> Dataset:
    dataset = Dataset()
    dataset.CodeValue = "1"
    if depth:
        dataset.ContentSequence = [nested(depth - 1), nested(depth - 1)]
        dataset["ContentSequence"].is_undefined_length = depth % 2 == 1
        for item in dataset.ContentSequence:
            item.is_undefined_length_sequence_item = depth < 3
    return dataset


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("head", [160, 1000, 2**15])
def test_sequences_are_passed_over_and_long_headers_read_on(tmp_path, dicom_file, monkeypatch, implicit, head):
    monkeypatch.setattr(dicom_scan, "FIRST_BYTES", head)
    path = dicom_file(tmp_path / "a.dcm", PIXELS, SliceThickness=2.5)
    dicom = pydicom.dcmread(path)
    for depth in range(4):
        block = dicom.private_block(0x0009 + 2 * depth, "Maker", create=True)
        block.add_new(1, "SQ", [nested(depth), nested(2)])
        block.add_new(2, "OB", b"\0" * 50_000)
    dicom.RequestAttributesSequence = [nested(3)]
    dicom["RequestAttributesSequence"].is_undefined_length = True
    if implicit:
        dicom.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dicom.save_as(path)
    found = quick(path)
    assert (found.get("PatientID"), found.get("Rows"), found.get("SliceThickness")) == ("p", 6, "2.5")
    assert found.get("Columns") is None and "Columns" not in found
    assert path.stat().st_size - found.end == PIXELS.nbytes + (8 if implicit else 12)


def test_what_is_out_of_the_ordinary_is_left_to_pydicom(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", PIXELS, SliceThickness=2.5)
    content = path.read_bytes()
    assert quick(path) is not None
    assert quick(path, "PatientID", "PatientName") is not None
    for syntax in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
        assert quick(dicom_file(tmp_path / "b.dcm", PIXELS, syntax=syntax)) is None
    japanese = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientID": "\u5c71"}
    assert quick(dicom_file(tmp_path / "c.dcm", PIXELS, **japanese)) is None
    assert read_header(tmp_path / "c.dcm").patient == "\u5c71"
    latin = dicom_file(tmp_path / "d.dcm", PIXELS, SpecificCharacterSet="ISO_IR 100", InstitutionName="M\u00fcnchen")
    assert quick(latin, "InstitutionName") is None and read_header(latin).institution == "M\u00fcnchen"
    (tmp_path / "bare").write_bytes(content[132:])
    assert quick(tmp_path / "bare") is None
    shared = dicom_file(tmp_path / "e.dcm", PIXELS, SharedFunctionalGroupsSequence=[Dataset()])
    assert quick(shared, "SharedFunctionalGroupsSequence") is None and quick(shared) is not None


def test_a_file_that_is_cut_short_is_left_to_pydicom_wherever_it_ends(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", PIXELS, RequestAttributesSequence=[nested(2)])
    content = path.read_bytes()
    for length in range(0, len(content) - PIXELS.nbytes - 12, 7):
        path.write_bytes(content[:length])
        found = quick(path)
        assert found is None or "Rows" not in found or found.end == length
        with pytest.raises(InputError, match="a.dcm"):
            read_header(path)


@pytest.mark.parametrize("bright", [255, 224, 200])
@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192"])
def test_an_explicit_file_that_states_implicit_is_left_to_pydicom(tmp_path, dicom_file, bright, charset):
    stored = np.full((1024, 1024), bright, np.uint8)
    path = dicom_file(tmp_path / "a.dcm", stored, SpecificCharacterSet=charset)
    explicit, implicit = (uid.encode().ljust(20, b"\0") for uid in (ExplicitVRLittleEndian, ImplicitVRLittleEndian))
    path.write_bytes(path.read_bytes().replace(explicit, implicit, 1))
    whole = pydicom.dcmread(path)
    assert quick(path) is None
    header = read_header(path)
    assert (header.rows, header.columns, header.patient) == (whole.Rows, whole.Columns, whole.PatientID) and whole.Rows
    assert np.array_equal(read_image(path)[0].T, whole.pixel_array)


def test_elements_beyond_those_of_pixels_are_left_to_pydicom(tmp_path, dicom_file):
    dicom = pydicom.dcmread(dicom_file(tmp_path / "a.dcm", PIXELS, DataSetTrailingPadding=b"\0" * 64))
    assert quick(tmp_path / "a.dcm") is not None
    del dicom.PixelData
    dicom.save_as(tmp_path / "a.dcm")
    assert quick(tmp_path / "a.dcm") is None


@pytest.mark.parametrize(
    ("keyword", "text", "others"),
    [
        ("PixelAspectRatio", "12", {}),
        ("PixelSpacing", "12", {"ImagerPixelSpacing": [0.2, 0.1]}),
        ("ImagePositionPatient", "123", {}),
        ("ImageOrientationPatient", "100010", {}),
    ],
)
def test_one_value_where_several_belong_is_none_as_pydicom_reads_it(tmp_path, dicom_file, keyword, text, others):
    path = dicom_file(tmp_path / "a.dcm", PIXELS, **{keyword: text}, **others)
    assert quick(path, keyword).get(keyword) == text and pydicom.dcmread(path)[keyword].VM == 1
    assert read_header(path) == header_of(open_dicom(path), path)
    without = dicom_file(tmp_path / "b.dcm", PIXELS, SOPInstanceUID=pydicom.dcmread(path).SOPInstanceUID, **others)
    assert replace(read_header(without), path=str(path)) == read_header(path)
