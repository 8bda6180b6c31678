# SPDX-License-Identifier: Apache-2.0
"""Small files that expand without end, or declare more than they hold: refused before memory or disk is taken."""

from __future__ import annotations

import gzip
import itertools
import struct
import sys
import tracemalloc

import bombs
import numpy as np
import pydicom
import pytest
from bombs import ITEM, MIB, PIXELS, UNDEFINED, codestream, compressed, deflated_dicom, fragments, jpeg, npz, rle
from dicom_files import refused, write_dicom
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from dual_skd.data.reading import codestreams, metered, numpy_files, pictures, refusals
from dual_skd.data.reading.dicom_header import read_header
from dual_skd.data.reading.nifti import read_nifti_header
from dual_skd.data.reading.numpy_files import npz_array
from dual_skd.data.reading.reader import read_image
from dual_skd.data.records.medmnist import list_medmnist, read_medmnist
from dual_skd.errors import InputError


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


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"\xff\xc0" * 9}])
def test_a_jpeg_of_another_size_than_the_header_is_refused_before_it_is_decoded(tmp_path, options):
    read_image(compressed(tmp_path / "good.dcm", JPEGBaseline8Bit, [jpeg(16, 16)]))
    options_without_comment = {k: v for k, v in options.items() if k != "comment"}
    code = jpeg(13000, 13000, **options_without_comment)
    if "comment" in options:  # a size in a comment is not the size
        comment = b"\xff\xfe" + (len(options["comment"]) + 2).to_bytes(2, "big") + options["comment"]
        code = code[:2] + comment + code[2:]
    path = compressed(tmp_path / "a.dcm", JPEGBaseline8Bit, [code])
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
    array = read_image(compressed(tmp_path / "a.dcm", RLELossless, [rle(segment)]))[0]
    assert array.shape == (16, 16) and not array.any()


@pytest.mark.parametrize("declared", [2**20, 2**28, 0xFFFFFFF0])
def test_a_dicom_element_that_declares_more_bytes_than_there_are_is_refused(tmp_path, declared):
    content = write_dicom(tmp_path / "a.dcm", PIXELS).read_bytes()
    start = content.index(b"\x10\x00\x20\x00LO")  # a text has 16 bits for its length, an element of unknown kind 32
    content = content[: start + 4] + b"UN\0\0" + declared.to_bytes(4, "little") + content[start + 8 :]
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(InputError, match="a.dcm"):
        read_image(tmp_path / "a.dcm")


@pytest.mark.parametrize("declared", [2**20, 2**28, 0xFFFFFFF0])
def test_pixels_that_declare_more_bytes_than_there_are_need_all_of_theirs(tmp_path, declared):
    content = write_dicom(tmp_path / "a.dcm", PIXELS).read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00OW") + 8
    content = content[:start] + declared.to_bytes(4, "little") + content[start + 4 :]
    (tmp_path / "a.dcm").write_bytes(content[:-1])
    with pytest.raises(InputError, match="a.dcm"):
        read_image(tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_bytes(content)
    assert np.array_equal(read_image(tmp_path / "b.dcm")[0], PIXELS.T)


def test_sequences_without_end_are_refused(tmp_path):
    opened = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    content = write_dicom(tmp_path / "a.dcm", PIXELS).read_bytes()
    start = content.index(b"\x08\x00\x60\x00CS")
    (tmp_path / "a.dcm").write_bytes(content[:start] + opened * sys.getrecursionlimit() * 2 + content[start:])
    with pytest.raises(InputError, match="a.dcm"):
        read_image(tmp_path / "a.dcm")


# ----------------------------------------------------------------------------------------------------- DICOM: deflated


@pytest.mark.parametrize(
    "trick",
    [
        {"group_length": 30},
        {"before": bombs.element(0x00020001, "OB", bytes(2000))},
        {"group_length": 10**8},
        {"group_length": 0},
        {"group_length": None},
        {"preamble": False},
        {"implicit_meta": True},
        {"command": struct.pack("<HHI", 0, 2, 4) + b"1.2\0"},
        {"uid": b"1.2.840.10008.1.2.1.99  "},
    ],
    ids=[
        "plain",
        "long element",
        "long group",
        "empty group",
        "no length",
        "no preamble",
        "implicit",
        "command",
        "spaces",
    ],
)
def test_a_deflated_data_set_is_measured_where_pydicom_begins_to_read_it(tmp_path, monkeypatch, trick):
    assert np.array_equal(read_image(deflated_dicom(tmp_path / "good.dcm", 0, **trick))[0], PIXELS.T)
    monkeypatch.setattr(metered, "MAX_EXPANDED", 8 * MIB)
    refused(deflated_dicom(tmp_path / "a.dcm", 200, **trick), "a.dcm expands to more than")


# ------------------------------------------------------------------------------------------ DICOM: items and elements


def hold_a_sequence(length: bool, tag: int):
    return lambda path: bombs.items(path, (ITEM + bytes(4)) * 10_000, tag, end=b"" if length else bombs.END_OF_SEQUENCE)


@pytest.mark.parametrize(
    "bomb",
    [
        hold_a_sequence(False, 0x00081140),
        hold_a_sequence(True, 0x52009230),
        lambda path: bombs.items(path, ITEM + UNDEFINED + bombs.private_elements(40_000), 0x52009229, end=b""),
        lambda path: bombs.elements(path, 20_000),
        lambda path: bombs.deflated_elements(path, 20_000),
        lambda path: bombs.decimals(path, 1),
        lambda path: bombs.decimals(path, 1, "ImagePositionPatient"),
        lambda path: compressed(path, RLELossless, ITEM + bytes(4) + fragments([rle(b"")] + [b""] * 20_000)),
    ],
)
def test_a_flood_of_small_parts_is_refused(tmp_path, monkeypatch, bomb):
    bomb(tmp_path / "a.dcm")
    monkeypatch.setattr(metered, "MAX_PARTS", 2**14)
    refused(tmp_path / "a.dcm", "a.dcm consists of more than 16384 parts")


def test_a_header_with_a_million_values_is_left_to_the_parser_that_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(metered, "MAX_PARTS", 2**14)
    with pytest.raises(InputError, match="consists of more than 16384 parts"):
        read_header(bombs.decimals(tmp_path / "a.dcm", 1))


def test_pixels_that_look_like_items_and_values_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(metered, "MAX_PARTS", 2**10)
    stored = np.frombuffer((ITEM + b"\\" * 4) * 8192, np.uint8).reshape(256, 256)
    assert np.array_equal(read_image(write_dicom(tmp_path / "a.dcm", stored))[0], stored.T)


def test_a_million_frames_are_refused(tmp_path):
    refused(bombs.frames(tmp_path / "a.dcm", 1_000_000), "a.dcm has more than 16384 frames")


# ---------------------------------------------------------------------------------------------- DICOM: encapsulated


def in_two(code: bytes, mark: bytes) -> list[bytes]:
    place = code.index(mark)
    return [code[:place], code[place:]]


def test_frame_headers_are_found_in_fragments(tmp_path):
    said = "compressed image 30000 x 30000"
    refused(compressed(tmp_path / "a.dcm", JPEGBaseline8Bit, in_two(jpeg(30000, 30000), b"\xff\xc0")), said)
    refused(
        compressed(
            tmp_path / "b.dcm",
            JPEGBaseline8Bit,
            in_two(jpeg(30000, 30000)[:2] + b"a" + jpeg(30000, 30000)[2:], b"\xff\xc0"),
        ),
        said,
    )
    whole = pydicom.dcmread(write_dicom(tmp_path / "whole.dcm", PIXELS))
    whole.compress(JPEGLSLossless)
    code = bytearray(next(pydicom.encaps.generate_frames(whole.PixelData, number_of_frames=1)))
    start = code.index(b"\xff\xf7")
    code[start + 5 : start + 9] = struct.pack(">HH", 30000, 30000)
    refused(compressed(tmp_path / "c.dcm", JPEGLSLossless, [code[:2], code[2:]]), said)


def test_frames_in_fragments_are_read(tmp_path):
    for number, parts in enumerate((in_two(jpeg(), b"\xff\xc0"), [jpeg()[:2], jpeg()[2:]], [b"\0\0" + jpeg()])):
        assert read_image(compressed(tmp_path / f"{number}.dcm", JPEGBaseline8Bit, parts))[0].shape == (16, 16)


def test_many_frames_are_not_looked_for_from_the_beginning(tmp_path, monkeypatch):
    codes = [rle(bytes((0, number % 256))) for number in range(300)]
    path = compressed(
        tmp_path / "a.dcm",
        RLELossless,
        ITEM + bytes(4) + fragments(codes),
        pixels=np.zeros((300, 1, 1), np.uint8),
        NumberOfFrames=300,
    )
    reads = itertools.count()
    whole = pydicom.encaps.parse_fragments
    monkeypatch.setattr(pydicom.encaps, "parse_fragments", lambda *all_, **more: next(reads) or whole(*all_, **more))
    assert np.array_equal(read_image(path)[0][0, 0], np.arange(300) % 256)
    assert next(reads) < 10


def test_frames_that_overlap_are_refused(tmp_path):
    code = rle(b"\0\0" * 5000)
    tables = {
        "ExtendedOffsetTable": bytes(8 * 1000),
        "ExtendedOffsetTableLengths": struct.pack("<Q", len(code)) * 1000,
    }
    path = compressed(
        tmp_path / "a.dcm",
        RLELossless,
        ITEM + bytes(4) + fragments([code]),
        pixels=np.zeros((1000, 1, 1), np.uint8),
        NumberOfFrames=1000,
        **tables,
    )
    refused(path, "a.dcm is cut short or damaged")


def test_jpeg_2000_is_refused_by_what_it_declares(tmp_path):
    pytest.importorskip("openjpeg", reason="writes JPEG 2000; of the extra dicom")
    pixels, code = np.zeros((64, 64), np.uint8), codestream()
    assert not read_image(compressed(tmp_path / "good.dcm", JPEG2000Lossless, [code[:4], code[4:]], pixels=pixels))[
        0
    ].any()
    large = bombs.resized(code, 20000, 20000)
    path = compressed(tmp_path / "a.dcm", JPEG2000Lossless, [large[:2], large[2:]], pixels=pixels)
    refused(path, "compressed image 20000 x 20000")
    path = compressed(tmp_path / "b.dcm", JPEG2000Lossless, [bombs.with_components(code, 16384)], pixels=pixels)
    refused(path, "16384 components")
    many = np.zeros((255, 255), np.uint8)
    tiles = bombs.with_tiles(codestream(shape=many.shape), 1)
    refused(compressed(tmp_path / "c.dcm", JPEG2000Lossless, [tiles], pixels=many), "65025 tiles")


@pytest.mark.parametrize(
    ("style", "block"), [(b"\0\5\4\4\0\1", 64 * 64), (b"\0\5\0\0\0\1", 16), (b"\1\1\4\4\0\1\x77\x22", 4)]
)
def test_the_smallest_code_block_of_a_coding_style(style, block):
    assert codestreams._block_size(style) == block


# -------------------------------------------------------------------------------------------------- NIfTI, pictures


def test_extensions_of_nifti_are_not_read(tmp_path):
    path = bombs.nifti_with_extension(tmp_path / "a.nii.gz", 300)
    assert read_nifti_header(path).get_data_shape() == (8, 8, 8)
    assert read_image(bombs.nifti_with_extensions(tmp_path / "b.nii", 1000))[0].shape == (8, 8, 8)


def test_nifti_values_that_begin_late_are_refused_before_they_are_looked_for(tmp_path):
    refused(bombs.nifti_far(tmp_path / "a.nii.gz", 1100), "a.nii.gz expands to more than 1.0 GiB")
    whole = bombs.nifti_header(offset=3 * MIB).ljust(3 * MIB, b"\0") + bytes(range(256)) * 2
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(whole, 1))
    assert read_image(tmp_path / "b.nii.gz")[0].ravel(order="F").tolist() == [*range(256)] * 2


def test_tiffs_of_many_pages_and_large_tiles_are_refused(tmp_path, monkeypatch):
    refused(bombs.tiff_of_tiles(tmp_path / "a.tif", 32768, 1), "a.tif declares a size of 32768 x 32768 x 1")
    monkeypatch.setattr(pictures, "MAX_FRAMES", 20)
    monkeypatch.setattr(refusals, "MAX_FRAMES", 20)
    assert read_image(bombs.tiff_of_real_pages(tmp_path / "b.tif", 20))[0].shape == (1, 1, 20)
    refused(bombs.tiff_of_real_pages(tmp_path / "c.tif", 21), "c.tif has more than 20 frames")


def test_a_flood_of_chunks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(metered, "MAX_PARTS", 2**12)
    bombs.png(tmp_path / "a.png", [bombs.png_chunk(b"abCd", b"")] * 4000)
    bombs.jpeg_with_segments(tmp_path / "a.jpg", [b"\xff\xe9\0\2"] * 4000)
    for name in ("a.png", "a.jpg"):
        refused(tmp_path / name, f"{name} consists of more than 4096 parts")


def test_text_in_a_png_that_expands_without_end_is_refused(tmp_path):
    chunk = bombs.png_chunk(b"zTXt", b"a\0\0" + b"\x78\xda" + bombs.deflated([(bytes(MIB), 200)]))
    refused(bombs.png(tmp_path / "a.png", [chunk]), "a.png")


def test_a_jpeg_of_many_scans_is_refused_in_every_file(tmp_path):
    read_image(compressed(tmp_path / "good.dcm", JPEGBaseline8Bit, [bombs.jpeg_of_scans(16, 5)]))
    code = bombs.jpeg_of_scans(16, 1000)
    refused(compressed(tmp_path / "a.dcm", JPEGBaseline8Bit, [code]), "a.dcm has 10", "scans")
    (tmp_path / "a.jpg").write_bytes(code)
    refused(tmp_path / "a.jpg", "a.jpg has 10", "scans")


def test_pixels_that_a_decoder_takes_byte_by_byte_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(metered, "MAX_PARTS", 2**10)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    rows = b"".join(b"".join(bytes((1, value)) for value in row) + b"\0\0" for row in pixels[::-1]) + b"\0\1"
    palette = b"".join(bytes((grey, grey, grey, 0)) for grey in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, 64, 64, 1, 8, 1, len(rows), 0, 0, 256, 0) + palette
    place = 14 + len(header)
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", place + len(rows), 0, 0, place) + header + rows)
    image = read_image(tmp_path / "a.bmp")[0]
    assert np.array_equal(image.reshape(64, 64, -1)[..., 0], pixels.T)


def test_chunks_after_the_pixels_count(tmp_path, monkeypatch):
    monkeypatch.setattr(metered, "MAX_PARTS", 2**12)
    whole = bombs.png(tmp_path / "a.png", []).read_bytes()
    place = whole.rindex(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(whole[:place] + bombs.png_chunk(b"abCd", b"") * 4000 + whole[place:])
    refused(tmp_path / "a.png", "a.png consists of more than 4096 parts")


def test_what_follows_a_jpeg_or_stands_in_its_segments_is_no_scan(tmp_path):
    scans = b"\xff\xda" * 1000
    (tmp_path / "film.jpg").write_bytes(jpeg() + b"film" + scans)
    (tmp_path / "note.jpg").write_bytes(
        jpeg()[:2] + b"\xff\xe9" + struct.pack(">H", 2 + len(scans)) + scans + jpeg()[2:]
    )
    for name in ("film.jpg", "note.jpg"):
        assert read_image(tmp_path / name)[0].shape[:2] == (16, 16)


def test_what_a_decoder_skips_hides_no_scans(tmp_path):
    code = bombs.jpeg_of_scans(16, 1000)
    place = code.rindex(b"\xff\xd9", 0, len(code))
    start = code.index(b"\xff\xda")
    for number, hidden in enumerate((b"\xff\0", b"\xff\2\xff\xff", b"\xff\xd0", b"\xff\xff")):  # in the first scan
        inside = start + 2 + int.from_bytes(code[start + 2 : start + 4], "big")
        (tmp_path / f"{number}.jpg").write_bytes(code[:inside] + hidden + code[inside:place] + code[place:])
        refused(tmp_path / f"{number}.jpg", f"{number}.jpg has 10", "scans")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_bytes_of_a_private_element_are_no_values_and_no_items(tmp_path, monkeypatch, syntax):
    monkeypatch.setattr(metered, "MAX_PARTS", 2**10)
    path = write_dicom(tmp_path / "a.dcm", PIXELS, syntax=syntax)
    dataset = pydicom.dcmread(path)
    dataset.private_block(0x0021, "MAKER", create=True).add_new(1, "OB", (ITEM + b"\\" * 4) * 8192)
    dataset.save_as(path)
    assert np.array_equal(read_image(path)[0], PIXELS.T)


@pytest.mark.parametrize("vr", [b"DS", b"UN"])
def test_values_of_a_text_count_whatever_is_stated(tmp_path, monkeypatch, vr):
    monkeypatch.setattr(metered, "MAX_PARTS", 2**10)
    content = write_dicom(tmp_path / "a.dcm", PIXELS, PixelSpacing=[1, 1]).read_bytes()
    place = content.index(struct.pack("<HH", 0x28, 0x30))
    end = place + 8 + int.from_bytes(content[place + 6 : place + 8], "little")
    value = b"1\\" * 8192
    length = struct.pack("<H", len(value)) if vr == b"DS" else struct.pack("<HI", 0, len(value))
    (tmp_path / "a.dcm").write_bytes(content[: place + 4] + vr + length + value + content[end:])
    refused(tmp_path / "a.dcm", "a.dcm consists of more than 1024 parts")


def test_other_compressions_than_numpys_are_refused(tmp_path):
    path = bombs.npz_of_bzip2(tmp_path / "a.npz", 200)
    refused(f"{path}#train/0", "train_images.npy of", "isn't compressed as NumPy does it")
    for read in (read_medmnist, list_medmnist):
        with pytest.raises(InputError, match="isn't compressed as NumPy does it"):
            read(path)
