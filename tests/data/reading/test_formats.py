# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from dual_skd.data.reading.formats import (
    NPZ,
    TEXT,
    UNKNOWN,
    content_of,
    format_of,
    format_of_suffix,
    nifti_axes,
    seems_whole,
)


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(stream, format=kind)
    return stream.getvalue()


def nifti(version: type = nib.Nifti1Image, shape=(4, 5, 6)) -> bytes:
    return version(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), np.eye(4)).to_bytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
def test_pictures_are_known_by_their_content(kind):
    assert format_of(encoded(kind)) == kind


def test_volumes_arrays_and_dicom_are_known_by_their_content():
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, np.zeros(3)), np.savez(npz, a=np.zeros(3))
    assert format_of(npy.getvalue()) == "NPY" and format_of(npz.getvalue()) == "NPZ"
    for volume in (nifti(), nifti(nib.Nifti2Image), gzip.compress(nifti())):
        assert format_of(volume) == "NIfTI" and nifti_axes(volume) == 3
    assert nifti_axes(nifti(shape=(4, 5, 1))) == 2
    assert format_of(b"\0" * 128 + b"DICM" + b"\2\0\0\0UL") == "DICOM"
    assert format_of(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100") == "DICOM"  # without the preamble


def test_what_often_stands_in_an_images_place_is_named():
    assert format_of(b"%PDF-1.7\n") == "a PDF document"
    assert format_of(b"\n<!DOCTYPE html><title>404") == "a web page"
    assert format_of(b"version https://git-lfs.github.com/spec/v1\n") == "a Git LFS pointer"
    assert format_of(b"see the other folder\n") == TEXT
    assert format_of(bytes(range(200, 256))) == UNKNOWN and format_of(b"B") == UNKNOWN


def test_a_name_announces_a_format():
    names = ["a.PNG", "b.jpeg", "c.nii.gz", "c.nii", "d.dcm", "e.gz", "IM0001", "f.tif"]
    expected = ["PNG", "JPEG", "NIfTI", "NIfTI", "DICOM", "", "", "TIFF"]
    assert [format_of_suffix(Path(name)) for name in names] == expected


@pytest.mark.parametrize(
    "content", [encoded("PNG"), encoded("JPEG"), nifti(), nifti(nib.Nifti2Image), gzip.compress(nifti())]
)
def test_a_missing_end_makes_suspicious(content, tmp_path):
    for length, expected in ((len(content), True), (len(content) - 20, False)):
        path = tmp_path / f"{length}.bin"
        path.write_bytes(content[:length])
        assert seems_whole(path, format_of(content), path.read_bytes(), length) is expected


def test_an_archive_whose_directory_is_damaged_is_known_by_its_beginning(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content.replace(b"PK\x01\x02", b"PK\x01\x03"))
    assert content_of(tmp_path / "a.npz") == NPZ
