# SPDX-License-Identifier: Apache-2.0
"""Small files that expand without end, or declare more than they hold: refused before memory or disk is taken."""

from __future__ import annotations

import io
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import write_dicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from dual_skd.data.reading import numpy_files
from dual_skd.data.reading.numpy_files import npz_array
from dual_skd.data.reading.reader import read_image
from dual_skd.data.records.medmnist import list_medmnist, read_medmnist
from dual_skd.errors import InputError

PIXELS = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
MIB = 2**20


@pytest.fixture(autouse=True)
def little_memory(tmp_path, monkeypatch):
    """What Python and NumPy allocate in a test stays below 100 MiB, and the disk below 1 MiB."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    numpy_files._mapped.cache_clear()
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * MIB
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) < MIB


def npz(path: Path, **members: tuple[tuple[int, ...], int]) -> Path:
    """Writes arrays of declared shapes with so many MiB of zeros in them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, (shape, mebibytes) in members.items():
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
            with archive.open(f"{name}.npy", "w") as member:
                member.write(header.getvalue())
                for _ in range(mebibytes):
                    member.write(bytes(MIB))
    return path


@pytest.mark.parametrize("read", [read_medmnist, list_medmnist])
def test_labels_that_expand_without_end_are_refused(tmp_path, read):
    path = npz(tmp_path / "a.npz", train_images=((4, 8, 8), 1), train_labels=((200 * MIB,), 200))
    assert path.stat().st_size < 2 * MIB
    with pytest.raises(InputError, match="a.npz: train_labels has 209715200 values"):
        read(path)


@pytest.mark.parametrize("shape", [(10**12, 8, 8), (10**9, 0, 8), (2**40, 1, 1)])
def test_images_that_are_declared_and_not_there_are_refused(tmp_path, shape):
    path = npz(tmp_path / "a.npz", train_images=(shape, 1), train_labels=((4,), 0))
    for read in (read_medmnist, list_medmnist):
        with pytest.raises(InputError, match="a.npz"):
            read(path)


def test_images_that_would_fill_the_disk_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(numpy_files, "HARMLESS_BYTES", 10 * MIB)
    path = npz(tmp_path / "a.npz", train_images=((4, MIB, 16), 64), train_labels=((4,), 1))
    with pytest.raises(InputError, match="train_images of .*a.npz expands from 0.* MiB to 0.1 GiB"):
        npz_array(path, "train_images")
    with pytest.raises(InputError, match="a.npz expands"):
        read_image(f"{path}#train/0")


def compressed(path: Path, syntax: str, code: bytes) -> Path:
    dicom = pydicom.dcmread(write_dicom(path, PIXELS))
    dicom.file_meta.TransferSyntaxUID = syntax
    dicom.PixelData = encapsulate([code])
    dicom["PixelData"].is_undefined_length = True
    dicom.save_as(path, enforce_file_format=True)
    return path


def jpeg(rows: int, columns: int, **options) -> bytes:
    """A JPEG of zeros, which states another size than its 16 x 16 pixels where asked to."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(buffer, "JPEG", **options)
    code = bytearray(buffer.getvalue())
    start = code.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    code[start + 5 : start + 9] = rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    return bytes(code)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"\xff\xc0" * 9}])
def test_a_jpeg_of_another_size_than_the_header_is_refused_before_it_is_decoded(tmp_path, options):
    read_image(compressed(tmp_path / "good.dcm", JPEGBaseline8Bit, jpeg(16, 16)))
    options_without_comment = {k: v for k, v in options.items() if k != "comment"}
    code = jpeg(13000, 13000, **options_without_comment)
    if "comment" in options:  # a size in a comment is not the size
        comment = b"\xff\xfe" + (len(options["comment"]) + 2).to_bytes(2, "big") + options["comment"]
        code = code[:2] + comment + code[2:]
    path = compressed(tmp_path / "a.dcm", JPEGBaseline8Bit, code)
    with pytest.raises(InputError, match="a.dcm is damaged: .* 16 x 16 pixels, its compressed image 13000 x 13000"):
        read_image(path)


def test_a_jpeg_ls_of_another_size_than_the_header_is_refused_before_it_is_decoded(tmp_path):
    dicom = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", PIXELS))
    dicom.compress(JPEGLSLossless)
    dicom.save_as(tmp_path / "a.dcm")
    assert np.array_equal(read_image(tmp_path / "a.dcm")[0], PIXELS.T)
    code = bytearray((tmp_path / "a.dcm").read_bytes())
    start = code.index(b"\xff\xf7")
    code[start + 5 : start + 9] = b"\x75\x30\x75\x30"
    (tmp_path / "a.dcm").write_bytes(code)
    with pytest.raises(InputError, match="compressed image 30000 x 30000"):
        read_image(tmp_path / "a.dcm")


def test_run_lengths_beyond_the_image_take_no_memory(tmp_path):
    segment = b"\x81\x00" * 200_000  # 25.6 million zeros, where 256 belong
    code = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + segment
    array = read_image(compressed(tmp_path / "a.dcm", RLELossless, code))[0]
    assert array.shape == (16, 16) and not array.any()


@pytest.mark.parametrize("declared", [2**20, 2**28, 0xFFFFFFF0])
def test_a_dicom_element_that_declares_more_bytes_than_there_are_is_refused(tmp_path, declared):
    content = write_dicom(tmp_path / "a.dcm", PIXELS).read_bytes()
    start = content.index(b"\x10\x00\x20\x00LO")  # a text has 16 bits for its length, an element of unknown kind 32
    content = content[: start + 4] + b"UN\0\0" + declared.to_bytes(4, "little") + content[start + 8 :]
    (tmp_path / "a.dcm").write_bytes(content)
    tracemalloc.stop()  # the length is asked of the system at once, and given back unused
    with pytest.raises(InputError, match="a.dcm"):
        read_image(tmp_path / "a.dcm")
    tracemalloc.start()


@pytest.mark.parametrize("declared", [2**20, 2**28, 0xFFFFFFF0])
def test_pixels_that_declare_more_bytes_than_there_are_need_all_of_theirs(tmp_path, declared):
    content = write_dicom(tmp_path / "a.dcm", PIXELS).read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00OW") + 8
    content = content[:start] + declared.to_bytes(4, "little") + content[start + 4 :]
    tracemalloc.stop()
    (tmp_path / "a.dcm").write_bytes(content[:-1])
    with pytest.raises(InputError, match="a.dcm"):
        read_image(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(content)
    try:
        assert np.array_equal(read_image(tmp_path / "b.dcm")[0], PIXELS.T)
    except InputError as error:  # where the system gives no more than there is
        assert "b.dcm" in str(error)  # noqa: PT017 - either outcome is right
    tracemalloc.start()


def test_sequences_without_end_are_refused(tmp_path):
    opened = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    content = write_dicom(tmp_path / "a.dcm", PIXELS).read_bytes()
    start = content.index(b"\x08\x00\x60\x00CS")
    (tmp_path / "a.dcm").write_bytes(content[:start] + opened * sys.getrecursionlimit() * 2 + content[start:])
    with pytest.raises(InputError, match="a.dcm"):
        read_image(tmp_path / "a.dcm")
