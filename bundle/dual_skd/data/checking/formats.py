# SPDX-License-Identifier: Apache-2.0
"""What a file is by its content, and cheap signs that the end of it is missing."""

from __future__ import annotations

import struct
import zlib
from math import prod
from pathlib import Path

HEAD = 2**16  # bytes that are looked at: the mark of every format, and most DICOM headers as a whole
DICOM, NIFTI, NPY, NPZ = "DICOM", "NIfTI", "NPY", "NPZ"
IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", DICOM, NIFTI, NPY, NPZ)  # those that training reads

_MARKS = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x93NUMPY", NPY),
    (b"PK\x03\x04", NPZ),
    (b"GIF8", "GIF"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"%PDF", "PDF document"),
    (b"version https://git-lfs", "Git LFS pointer"),
    (b"BM", "BMP"),
)
_SUFFIXES = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".dcm": DICOM,
    ".dicom": DICOM,
    ".nii": NIFTI,
    ".nii.gz": NIFTI,
    ".npy": NPY,
    ".npz": NPZ,
}
# Marks of programs. The 128 bytes before "DICM" are free (PS3.10, 7.1), so that one file can be both (CVE-2019-11687).
_PROGRAMS = (
    (b"MZ", "Windows program"),
    (b"\x7fELF", "Linux program"),
    (b"\xfe\xed\xfa\xce", "macOS program"),
    (b"\xfe\xed\xfa\xcf", "macOS program"),
    (b"\xce\xfa\xed\xfe", "macOS program"),
    (b"\xcf\xfa\xed\xfe", "macOS program"),
    (b"\xca\xfe\xba\xbe", "macOS or Java program"),
    (b"#!", "script"),
)
_PIXEL_DATA = b"\xe0\x7f\x10\x00"  # the tag (7FE0,0010), little endian


def format_of(head: bytes) -> str:
    """Names the format that the first bytes of a file announce.

    Args:
        head: the first :data:`HEAD` bytes, or all there are.

    Returns:
        One of :data:`IMAGE_FORMATS`; the name of something else that often stands in an image's place ("PDF document",
        "web page", "text", ...); or "" when nothing is recognised.
    """
    if head[128:132] == b"DICM":  # whatever stands before it: the beginning of a TIFF file, too, may (PS3.10, 7.1)
        return DICOM
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if _nifti_header(head):
        return NIFTI
    start = head[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "web page"
    if head[:2] in (b"\x08\x00", b"\x02\x00") and len(head) > 8:  # DICOM without the preamble, as old devices wrote it
        return DICOM
    if start and all(32 <= byte < 127 or byte in b"\t\n\r" for byte in start):
        return "text"
    return ""


def program_in(head: bytes) -> str:
    """Names the kind of program that a file is beside a DICOM file, "" for none.

    Args:
        head: its first bytes.
    """
    return next((name for mark, name in _PROGRAMS if head.startswith(mark)), "") if head[128:132] == b"DICM" else ""


def format_of_suffix(path: Path) -> str:
    """Names the format that a file name announces, "" for names without a known suffix."""
    name = path.name.lower()
    return _SUFFIXES.get(".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower(), "")


def seems_whole(path: Path, kind: str, head: bytes, size: int) -> bool:
    """Tells cheaply, from header and end of file, whether a file holds what its header promises.

    False is a suspicion, not a verdict: decoding decides. True is no promise either: damage inside goes unseen.

    Args:
        path: the file.
        kind: its format, from :func:`format_of`.
        head: its first :data:`HEAD` bytes.
        size: its size in bytes.
    """
    if kind == "PNG":
        return head[12:16] == b"IHDR" and b"IEND" in _tail(path, 64)
    if kind == "JPEG":
        return b"\xff\xd9" in _tail(path, 1024)
    if kind == NPZ:
        return b"PK\x05\x06" in _tail(path, 2**16)
    if kind == DICOM:
        return _dicom_seems_whole(head, size)
    if kind == NIFTI:
        header = _nifti_header(head)
        expected = _nifti_size(header) if header else None
        if expected is None:
            return False
        # a gzip stream ends with the size of its content, modulo 2**32 (RFC 1952)
        if head[:2] == b"\x1f\x8b":
            return 0 <= struct.unpack("<I", _tail(path, 4))[0] - expected % 2**32 < 2**12
        return size >= expected
    return kind in IMAGE_FORMATS


def nifti_axes(head: bytes) -> int:
    """Number of axes longer than 1 that a NIfTI header announces, 0 when it can't be read."""
    header = _nifti_header(head)
    return sum(length > 1 for length in _nifti_layout(header)[0]) if _nifti_size(header) is not None else 0


def _tail(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - count, 0))
        return file.read()


def _dicom_seems_whole(head: bytes, size: int) -> bool:
    place = head.find(_PIXEL_DATA, 132)
    if place < 0:  # a long header, or none that can be searched: a decoder has to look
        return False
    explicit = head[place + 4 : place + 6] in (b"OW", b"OB")
    start = place + (12 if explicit else 8)
    if start > len(head):
        return False
    (length,) = struct.unpack("<I", head[start - 4 : start])
    if length == 0xFFFFFFFF:  # encapsulated (compressed) frames: no length is given
        return size > start + 16
    return start + length <= size


def _nifti_header(head: bytes) -> bytes:
    """The decompressed first 540 bytes of a NIfTI-1 or -2 file, or nothing for other files."""
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, 544)
        except zlib.error:
            return b""
    if head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2"):
        return head[:544]
    return b""


def _nifti_layout(header: bytes) -> tuple[tuple[int, ...], int, float]:
    """(length of each axis, bits per value, offset of the values) of NIfTI-1 (348 bytes) or NIfTI-2 (540)."""
    order = "<" if struct.unpack("<i", header[:4])[0] in (348, 540) else ">"
    first = header[344:347] in (b"n+1", b"ni1")
    # (format, first byte) of dim, bitpix and vox_offset
    places = (("8h", 40), ("h", 72), ("f", 108)) if first else (("8q", 16), ("h", 14), ("q", 168))
    dims, (bits,), (offset,) = (struct.unpack_from(order + code, header, place) for code, place in places)
    return dims[1 : dims[0] + 1], bits, offset


def _nifti_size(header: bytes) -> int | None:
    """Bytes that the header promises, None for a header that can't be right."""
    if len(header) < 348:
        return None
    try:
        axes, bits, offset = _nifti_layout(header)
    except struct.error:
        return None
    if not axes or len(axes) > 7 or min(axes) < 1 or bits <= 0 or not 0 <= offset < 2**40:
        return None
    return int(offset) + prod(axes) * bits // 8
