# SPDX-License-Identifier: Apache-2.0
"""Small files that take much memory or time to read: each is written by a function from a path."""

from __future__ import annotations

import bz2
import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from dicom_files import write_dicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

MIB = 2**20
PIXELS = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
ITEM, END_OF_SEQUENCE = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0" + bytes(4)
UNDEFINED = b"\xff" * 4

# ----------------------------------------------------------------------------------------------------------- streams


def deflated(parts: Iterable[tuple[bytes, int]], wbits: int = -zlib.MAX_WBITS) -> bytes:
    """A stream of blocks, each so many times: a block is compressed once, and its code repeated."""
    code = [b""]
    for block, times in parts:
        compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        code.append((compressor.compress(block) + compressor.flush(zlib.Z_FULL_FLUSH)) * times)
    end = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    code.append(end.flush())
    return b"".join(code) if wbits < 0 else b"\x1f\x8b\x08" + bytes(7) + b"".join(code) + bytes(8)


# ------------------------------------------------------------------------------------------------------------- DICOM


def element(tag: int, vr: str, value: bytes) -> bytes:
    """An element in explicit little endian."""
    value += b"\0" * (len(value) % 2)
    is_long = vr in ("OB", "OW", "SQ", "UN", "UT")
    length = struct.pack("<2xI" if is_long else "<H", len(value))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode() + length + value


def parts_of(path: Path, **tags) -> tuple[bytes, bytes, bytes]:
    """(all before the data set, elements before the pixels, pixels) of a small file."""
    content = write_dicom(path, PIXELS, **tags).read_bytes()
    start, pixels = 144 + int.from_bytes(content[140:144], "little"), content.index(b"\xe0\x7f\x10\x00OW")
    return content[:start], content[start:pixels], content[pixels:]


def deflated_dicom(
    path: Path,
    mebibytes: int,
    *,
    before: bytes = b"",
    group_length: int | None = None,
    preamble: bool = True,
    implicit_meta: bool = False,
    command: bytes = b"",
    uid: bytes = DeflatedExplicitVRLittleEndian.encode(),
) -> Path:
    """A deflated file whose data set ends with so many MiB of zeros in the pixels.

    Args:
        path: of the file.
        mebibytes: of zeros; 0 leaves the pixels as they are.
        before: elements of the meta group before the transfer syntax.
        group_length: what (0002,0000) says; None: nothing.
        preamble: whether the file begins with it.
        implicit_meta: whether the meta group has implicit VRs.
        command: elements between the meta group and the data set.
        uid: value of the transfer syntax.
    """
    _, header, pixels = parts_of(path)
    if implicit_meta:
        meta = struct.pack("<HHI", 2, 0x10, len(uid)) + uid
    else:
        meta = before + element(0x00020010, "UI", uid)
        if group_length is not None:
            meta = element(0x00020000, "UL", struct.pack("<I", group_length)) + meta
    if mebibytes:
        pixels = b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", min(mebibytes, 4095) * MIB)
    code = deflated([(header + pixels, 1), (bytes(MIB), mebibytes)])
    path.write_bytes((bytes(128) + b"DICM" if preamble else b"") + meta + command + code)
    return path


def deflated_elements(path: Path, elements: int) -> Path:
    """A deflated file with many private elements of no length."""
    start, header, pixels = parts_of(path)
    plain = element(0x00020010, "UI", ExplicitVRLittleEndian.encode())
    start = start.replace(plain, element(0x00020010, "UI", DeflatedExplicitVRLittleEndian.encode()))
    code = deflated([(header + private_elements(elements) + pixels, 1)])
    path.write_bytes(start + code)
    return path


def private_elements(count: int) -> bytes:
    """Elements of no length with growing tags, in explicit little endian."""
    numbers = np.arange(count, dtype=np.uint32)
    rows = np.zeros(count, np.dtype([("group", "<u2"), ("element", "<u2"), ("vr", "S2"), ("length", "<u2")]))
    rows["group"], rows["element"], rows["vr"] = 0x1001 + 2 * (numbers >> 16), numbers & 0xFFFF, b"LO"
    return rows.tobytes()


def items(path: Path, content: bytes, keyword: int = 0x00081140, *, end: bytes = END_OF_SEQUENCE) -> Path:
    """A file with a sequence that holds ``content``; ``end`` b"" gives it a length."""
    start, header, pixels = parts_of(path)
    tag = struct.pack("<HH", keyword >> 16, keyword & 0xFFFF)
    length = UNDEFINED if end else struct.pack("<I", len(content))
    sequence = tag + b"SQ\0\0" + length + content + end
    if keyword < 0x00100000:  # elements are in the order of their tags
        place = header.index(b"\x10\x00\x20\x00LO")
        header = header[:place] + sequence + header[place:]
    else:
        header += sequence
    path.write_bytes(start + header + pixels)
    return path


def elements(path: Path, count: int) -> Path:
    start, header, pixels = parts_of(path)
    path.write_bytes(start + header + private_elements(count) + pixels)
    return path


def decimals(path: Path, mebibytes: int, keyword: str = "PixelSpacing") -> Path:
    """A file in implicit VR, where a text may be as long as it likes."""
    content = write_dicom(path, PIXELS, syntax=ImplicitVRLittleEndian, **{keyword: [1, 1]}).read_bytes()
    tag = int(pydicom.datadict.tag_for_keyword(keyword))
    place = content.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
    length = int.from_bytes(content[place + 4 : place + 8], "little")
    value = b"1\\" * (mebibytes * MIB // 2)
    path.write_bytes(content[: place + 4] + struct.pack("<I", len(value)) + value + content[place + 8 + length :])
    return path


def frames(path: Path, count: int) -> Path:
    """Frames of one pixel."""
    return write_dicom(path, np.zeros((count, 1, 1), np.uint8), NumberOfFrames=count)


def compressed(
    path: Path, syntax: str, fragments: Sequence[bytes] | bytes, *, pixels: np.ndarray = PIXELS, **tags
) -> Path:
    """A file with these fragments, or with this value of PixelData."""
    dicom = pydicom.dcmread(write_dicom(path, pixels, **tags))
    dicom.file_meta.TransferSyntaxUID = syntax
    if not isinstance(fragments, bytes):
        fragments = encapsulate(list(fragments), has_bot=False)
    dicom.PixelData = fragments
    dicom["PixelData"].is_undefined_length = True
    dicom["PixelData"].VR = "OB"
    dicom.save_as(path, enforce_file_format=True)
    return path


def fragments(codes: Iterable[bytes]) -> bytes:
    return b"".join(ITEM + struct.pack("<I", len(code)) + code for code in codes)


def jpeg(rows: int = 16, columns: int = 16, **options) -> bytes:
    """A JPEG of zeros, which states another size than its 16 x 16 pixels where asked to."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(buffer, "JPEG", **options)
    code = bytearray(buffer.getvalue())
    start = code.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    code[start + 5 : start + 9] = rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    return bytes(code)


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG with many scans, of which every one goes over the whole image."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(buffer, "JPEG", progressive=True)
    code = buffer.getvalue()
    last = code.rindex(b"\xff\xda")
    table = code.rindex(b"\xff\xc4", 0, last)
    return code[:table] + code[table:-2] * scans + b"\xff\xd9"


def codestream(**options) -> bytes:
    """JPEG 2000 of zeros, 64 x 64."""
    from openjpeg.utils import encode_array

    return encode_array(np.zeros(options.pop("shape", (64, 64)), np.uint8), **options)


def resized(code: bytes, rows: int, columns: int) -> bytes:
    place = code.index(b"\xff\x4f\xff\x51") + 8
    size = struct.pack(">II", columns, rows)
    return code[:place] + size + code[place + 8 : place + 16] + size + code[place + 24 :]


def with_components(code: bytes, count: int) -> bytes:
    """The same codestream, which states so many components."""
    place = code.index(b"\xff\x4f\xff\x51") + 4
    segment = code[place + 2 : place + 36] + struct.pack(">H", count) + b"\x07\x01\x01" * count
    length = int.from_bytes(code[place : place + 2], "big")
    return code[:place] + struct.pack(">H", len(segment) + 2) + segment + code[place + length :]


def with_tiles(code: bytes, side: int) -> bytes:
    place = code.index(b"\xff\x4f\xff\x51") + 24
    return code[:place] + struct.pack(">II", side, side) + code[place + 8 :]


def rle(code: bytes) -> bytes:
    return (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + code


# ------------------------------------------------------------------------------------------------------------- NIfTI


def nifti_header(shape: Sequence[int] = (8, 8, 8), offset: float = 352, *, extended: bool = False) -> bytes:
    """The header of a volume of bytes and the 4 bytes that say whether extensions follow."""
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header["vox_offset"], header["magic"], header["sform_code"] = offset, b"n+1", 1
    header["srow_x"], header["srow_y"], header["srow_z"] = (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)
    return header.binaryblock + (b"\1" if extended else b"\0") + bytes(3)


def nifti_with_extension(path: Path, mebibytes: int) -> Path:
    """A compressed file with an extension of so many MiB."""
    start = nifti_header(offset=352 + mebibytes * MIB, extended=True)
    extension = struct.pack("<II", mebibytes * MIB, 6)
    parts = [(start + extension + bytes(MIB - 8), 1), (bytes(MIB), mebibytes - 1), (bytes(512), 1)]
    path.write_bytes(deflated(parts, 31))
    return path


def nifti_with_extensions(path: Path, count: int) -> Path:
    """A file with so many extensions of 16 bytes."""
    block = struct.pack("<II", 16, 6) + b"a" * 8
    path.write_bytes(nifti_header(offset=352 + 16 * count, extended=True) + block * count + bytes(512))
    return path


def nifti_far(path: Path, mebibytes: int) -> Path:
    """A compressed file whose values begin late."""
    path.write_bytes(
        deflated([(nifti_header(offset=mebibytes * MIB), 1), (bytes(MIB), mebibytes), (bytes(512), 1)], 31)
    )
    return path


# ---------------------------------------------------------------------------------------------------------- pictures


def tiff(path: Path, tags: Iterable[tuple[int, int, int, int]], tail: bytes = b"", following: int = 0) -> Path:
    """A TIFF with these (tag, type, count, value); the ``tail`` begins after them."""
    tags = sorted(tags)
    content = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags))
    content += b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", following)
    path.write_bytes(content + tail)
    return path


def grey_tags(width: int, height: int, compression: int, start: int, length: int) -> list[tuple[int, int, int, int]]:
    """Tags of a picture of bytes in one strip."""
    sizes = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    return [*sizes, (277, 3, 1, 1), (278, 4, 1, height), (273, 4, 1, start), (279, 4, 1, length)]


def tiff_of_real_pages(path: Path, count: int, side: int = 1) -> Path:
    """A TIFF with whole pages that share their pixels."""
    size = 2 + 9 * 12 + 4
    content = [b"II*\0\x08\0\0\0"]
    for page in range(count):
        tags = sorted(grey_tags(side, side, 1, 8 + count * size, side * side))
        content.append(struct.pack("<H", 9) + b"".join(struct.pack("<HHII", *tag) for tag in tags))
        content.append(struct.pack("<I", 8 + (page + 1) * size if page + 1 < count else 0))
    path.write_bytes(b"".join(content) + bytes(side * side))
    return path


def tiff_of_tiles(path: Path, side: int, mebibytes: int) -> Path:
    """A deflated TIFF of 16 x 16 pixels in one tile of side x side."""
    tags = [tag for tag in grey_tags(16, 16, 8, 0, 0) if tag[0] not in (273, 278, 279)]
    start = 8 + 2 + (len(tags) + 4) * 12 + 4
    code = b"\x78\xda" + deflated([(bytes(MIB), mebibytes)])
    tags += [(322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, start), (325, 4, 1, len(code))]
    return tiff(path, tags, code)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(path: Path, chunks: Iterable[bytes] = (), width: int = 1, height: int = 1, code: bytes = b"") -> Path:
    """A grey PNG with chunks before its pixels."""
    code = code or zlib.compress((b"\0" + bytes(width)) * height)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = [b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", head), *chunks, png_chunk(b"IDAT", code)]
    path.write_bytes(b"".join([*content, png_chunk(b"IEND", b"")]))
    return path


def jpeg_with_segments(path: Path, segments: Iterable[bytes]) -> Path:
    code = jpeg()
    path.write_bytes(code[:2] + b"".join(segments) + code[2:])
    return path


# ------------------------------------------------------------------------------------------------------------- NumPy


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


def npz_of_bzip2(path: Path, mebibytes: int) -> Path:
    """An archive whose arrays state few bytes and expand to many."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (4, 8, 8)})
    start = header.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name in ("train_images", "train_labels"):
            archive.writestr(f"{name}.npy", start + bytes(256))
    compressor = bz2.BZ2Compressor()
    code = b"".join([compressor.compress(start), *(compressor.compress(bytes(MIB)) for _ in range(mebibytes))])
    code += compressor.flush()
    small = bz2.compress(start + bytes(256))
    content, added = path.read_bytes(), len(code) - len(small)
    with zipfile.ZipFile(path) as archive:
        places = [info.header_offset for info in archive.infolist()]
    body = content.replace(small, code)
    entries, directory = body.index(b"PK\1\2"), body.rindex(b"PK\5\6")
    body = bytearray(body)
    for place in (entries, body.index(b"PK\1\2", entries + 4)):
        struct.pack_into("<I", body, place + 20, len(code))
    struct.pack_into("<I", body, body.index(b"PK\1\2", entries + 4) + 42, places[1] + added)
    for place in (0, places[1] + added):
        struct.pack_into("<I", body, place + 18, len(code))
    struct.pack_into("<I", body, directory + 16, entries)
    path.write_bytes(body)
    return path
