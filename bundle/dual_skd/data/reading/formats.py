# SPDX-License-Identifier: Apache-2.0
"""File formats: the table of those that are read, what a file is by its content, and whether its end is missing."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from itertools import chain
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from dual_skd.data.reading.picture import Picture, ReadOptions

HEAD_BYTES = 2**16  # bytes that are looked at: the mark of every format, and most DICOM headers as a whole
DICOM, NIFTI, NPY, NPZ = "DICOM", "NIfTI", "NPY", "NPZ"
PIXEL_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")


class Format(NamedTuple):
    """How files of a format are known, and what reads them.

    Args:
        suffixes: of their names, in small letters, the usual one first.
        marks: how they begin; () where :func:`format_of` has to look deeper.
        reader: a function from a path and :class:`~dual_skd.data.reading.picture.ReadOptions` to a
            :class:`~dual_skd.data.reading.picture.Picture`, or "module:function", which the first file loads.
    """

    suffixes: tuple[str, ...]
    marks: tuple[bytes, ...]
    reader: Callable[[Path, ReadOptions], Picture] | str


_READING = __package__
_TIFF_MARKS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
# every format that is read; a new row is a new format
FORMATS = {
    "PNG": Format((".png",), (b"\x89PNG\r\n\x1a\n",), f"{_READING}.pictures:read_picture"),
    "JPEG": Format((".jpg", ".jpeg"), (b"\xff\xd8\xff",), f"{_READING}.pictures:read_picture"),
    "BMP": Format((".bmp",), (), f"{_READING}.pictures:read_picture"),
    "TIFF": Format((".tif", ".tiff"), _TIFF_MARKS, f"{_READING}.pictures:read_picture"),
    NIFTI: Format((".nii", ".nii.gz"), (), f"{_READING}.nifti:read_nifti"),
    NPY: Format((".npy",), (b"\x93NUMPY",), f"{_READING}.numpy_files:read_npy"),
    NPZ: Format((".npz",), (), f"{_READING}.numpy_files:read_npz"),
    DICOM: Format((".dcm", ".dicom"), (), f"{_READING}.dicom_pixels:read_dicom"),  # also without a known suffix
}
UNKNOWN, TEXT = "no known format", "plain text"  # "the content is ..." goes before every name

# how files begin that stand in an image's place -> what they are
_OTHER_MARKS = {
    b"GIF8": "GIF",
    **dict.fromkeys((b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51"), "JPEG 2000"),
    b"8BPS": "a Photoshop picture",
    b"NRRD000": "NRRD",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"MATLAB 5.0 MAT-file": "a MATLAB file",
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript document",
    b"{\\rtf": "an RTF document",
    b"version https://git-lfs": "a Git LFS pointer",
    b"L\x00\x00\x00\x01\x14\x02\x00": "a Windows shortcut",
    b"[InternetShortcut]": "an Internet shortcut",
    b"\x00\x05\x16\x07": "a side file of macOS",
    b"SQLite format 3": "a database",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    **dict.fromkeys((b"\x1aE\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"0&\xb2u\x8ef\xcf\x11"), "a video"),
}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # lengths of the second header, one for each version of the format
_ZIP, _GZIP, _OLE = b"PK\x03\x04", b"\x1f\x8b", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# start of a member's name -> what the zip archive is (ECMA-376); arrays and OpenDocument are looked for before
_OF_ZIP = (("xl/", "an Excel workbook"), ("word/", "a Word document"), ("ppt/", "a PowerPoint presentation"))
_OF_OPENDOCUMENT = {
    b"oasis.opendocument.text": "an OpenDocument text",
    b"oasis.opendocument.spreadsheet": "an OpenDocument spreadsheet",
    b"oasis.opendocument.presentation": "an OpenDocument presentation",
    b"oasis.opendocument.": "an OpenDocument file",
}
# stream of an OLE compound file (MS-CFB) -> what the file is
_OF_OLE = (
    ("EncryptedPackage", "an Office file with a password"),
    ("Workbook", "an Excel workbook"),
    ("WordDocument", "a Word document"),
    ("PowerPoint Document", "a PowerPoint presentation"),
    ("__properties_version1.0", "an e-mail"),
)
_OFFICE = "a file of an old Office program"
_MAIL = re.compile(rb"(received|return-path|delivered-to|mime-version|message-id|from|to|subject|date): ")

# kinds that hold an image all the same: what they can be converted to
CONVERTIBLE = {
    **dict.fromkeys(("GIF", "WebP", "JPEG 2000", "HEIC", "AVIF", "a Photoshop picture", "an SVG drawing"), "PNG"),
    **dict.fromkeys(("NRRD", "MetaImage", "HDF5", "a MATLAB file"), "NIfTI"),
}
# endings of volumes that other programs read, where one name has several contents or a file of its own for the header
_VOLUMES = (".hdr", ".img", ".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd", ".mnc")
WORKBOOKS = ("an Excel workbook", "an OpenDocument spreadsheet")
_DOCUMENTS = (
    *("a PDF document", "a PostScript document", "a Word document", "an OpenDocument text", "an RTF document"),
    *("a PowerPoint presentation", "an OpenDocument presentation", "a video"),
)
_REMEDIES = {
    **{kind: f"convert it to {target}, or leave it out" for kind, target in CONVERTIBLE.items()},
    **dict.fromkeys(_DOCUMENTS, "save the images in it as PNG files, or leave it out"),
    **dict.fromkeys(WORKBOOKS, "save the sheet as CSV UTF-8 where it is the table of the data set, or leave it out"),
    "an Office file with a password": "save it without the password and in a form that is read, or leave it out",
    "a web page": "download the file again, since a server has sent a page in its place, or leave it out",
    "a Git LFS pointer": "fetch the file itself with `git lfs pull`",
    **dict.fromkeys(("a Windows shortcut", "an Internet shortcut"), "put the file that it leads to in its place"),
}

# Marks of programs. The 128 bytes before "DICM" are free (PS3.10, 7.1), so that one file can be both (CVE-2019-11687).
_PROGRAMS = {
    b"MZ": "Windows program",
    b"\x7fELF": "Linux program",
    **dict.fromkeys(
        (b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe"), "macOS program"
    ),
    b"\xca\xfe\xba\xbe": "macOS or Java program",
    b"#!": "script",
}
_PIXEL_DATA = b"\xe0\x7f\x10\x00"  # the tag (7FE0,0010), little endian


def format_of(head: bytes, path: Path | None = None) -> str:
    """The format of a file by its first bytes.

    Args:
        head: the first :data:`HEAD_BYTES` bytes, or all there are.
        path: of the file, whose end lists the members of an archive; without it, those at the beginning are known.

    Returns:
        One of :data:`FORMATS`; the name of something else that often stands in an image's place ("a PDF
        document", "a web page", :data:`TEXT`, ...); or :data:`UNKNOWN`.
    """
    if head[128:132] == b"DICM":  # whatever stands before it: the beginning of a TIFF file, too, may (PS3.10, 7.1)
        return DICOM
    if name := next((name for name, one in FORMATS.items() if head.startswith(one.marks)), ""):
        return name
    if name := next((name for mark, name in _OTHER_MARKS.items() if head.startswith(mark)), ""):
        return name
    if _nifti_header(head):
        return NIFTI
    if head[4:8] == b"ftyp" or head[:4] == b"RIFF":
        return _format_of_media(head)
    if head.startswith(_ZIP):
        return _format_of_zip(head, _members(head, path))
    if head.startswith(_OLE):
        return _format_of_ole(head)
    if head.startswith(_GZIP):
        return "a gzip archive"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[:2] in (b"\x08\x00", b"\x02\x00") and len(head) > 8:  # DICOM without the preamble, as old devices wrote it
        return DICOM
    if text := _text_of(head):
        return _format_of_text(text)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:  # "BM" alone begins many a text
        return "BMP"
    return next((f"a {name}" for mark, name in _PROGRAMS.items() if head.startswith(mark)), UNKNOWN)


def head_of(path: Path) -> bytes:
    """The first :data:`HEAD_BYTES` bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def content_of(path: Path) -> str | None:
    """The format of a file, see :func:`format_of`; None for a pipe, a broken link or one that can't be opened."""
    if not path.is_file():  # a pipe would never end
        return None
    try:
        return format_of(head_of(path), path)
    except OSError:
        return None


def not_read(kind: str) -> tuple[str, str]:
    """(problem, remedy) of a file that isn't read, by its :func:`format_of`; both "" for :data:`FORMATS`."""
    if kind in FORMATS:
        return "", ""
    remedy = "unpack it, or leave it out" if kind.endswith("archive") else "export the image again, or leave it out"
    return f"the content is {kind}, which isn't read", _REMEDIES.get(kind, remedy)


def misnamed(path: Path) -> str:
    """The message for a file whose content isn't what its name says; "" for others, and where it can't be opened."""
    kind, announced = content_of(path), format_of_suffix(path) or DICOM  # files without a known suffix count as DICOM
    if kind is None:
        return ""
    packed = kind == NIFTI and head_of(path).startswith(_GZIP)
    suffix = ".nii.gz" if packed else FORMATS[kind].suffixes[0] if kind in FORMATS else ""
    problem, remedy = not_read(kind)
    if path.name.lower().endswith(_VOLUMES) and not format_of_suffix(path):
        problem, remedy = problem or f"the content is {kind}, which isn't read by this name", "convert it to .nii.gz"
    elif kind in FORMATS and not same_reader(kind, announced):
        problem, remedy = f"the content is {kind}, its name says {announced}", f"let its name end with {suffix}"
    elif kind == NIFTI and packed != path.name.lower().endswith(".gz"):
        problem, remedy = f"it is {'' if packed else 'not '}compressed, against its name", f"let it end with {suffix}"
    return f"{path} can't be read: {problem}; {remedy}." if problem else ""


def same_reader(kind: str, announced: str) -> bool:
    """Whether one reader reads both formats: that of pictures looks at their content."""
    return kind == announced or (kind in PIXEL_FORMATS and announced in PIXEL_FORMATS)


def program_in(head: bytes) -> str:
    """The kind of program that a DICOM file is at the same time, by its first bytes; "" for none."""
    if head[128:132] != b"DICM":
        return ""
    return next((name for mark, name in _PROGRAMS.items() if head.startswith(mark)), "")


def format_of_suffix(path: str | Path) -> str:
    """The format that a file name announces, "" without a known suffix."""
    name = str(path).lower()
    return next((kind for kind, one in FORMATS.items() if name.endswith(one.suffixes)), "")


def seems_whole(path: Path, kind: str, head: bytes, size: int) -> bool:
    """Whether a file holds what its header promises, by its beginning and its end.

    It is a guess: decoding decides, and damage inside goes unseen. ``head`` are the first :data:`HEAD_BYTES` bytes,
    ``kind`` is their :func:`format_of`.
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
    return kind in FORMATS


def nifti_axes(head: bytes) -> int:
    """Number of axes longer than 1 that a NIfTI header announces, 0 when it can't be read."""
    header = _nifti_header(head)
    return sum(length > 1 for length in _nifti_layout(header)[0]) if _nifti_size(header) is not None else 0


def _text_of(head: bytes) -> bytes:
    """The beginning of a text in ASCII, UTF-8, UTF-16 with its mark, or an older code; nothing of other files."""
    start = head[:2048]
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        start = start.decode("utf-16", "ignore").encode()
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    plain = sum(32 <= byte < 127 or byte in b"\t\n\r" for byte in start)
    controls = sum(byte < 32 and byte not in b"\t\n\r\f" for byte in start)
    return start if len(start) > 3 and not controls and plain > 0.7 * len(start) else b""


def _format_of_text(text: bytes) -> str:
    start = text.lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if b"<svg" in start and start.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")):
        return "an SVG drawing"
    if start.startswith((b"objecttype", b"ndims")) and b"=" in start:
        return "MetaImage"
    return "an e-mail" if _MAIL.match(start) else TEXT


def _format_of_media(head: bytes) -> str:
    """Of a file in the containers of ISO (14496-12, "ftyp") or Microsoft ("RIFF")."""
    brand = head[8:12]
    if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
        return "AVIF" if b"avif" in head[12:64] else "HEIC"
    return {b"avif": "AVIF", b"avis": "AVIF", b"WEBP": "WebP", b"WAVE": "a sound"}.get(brand, "a video")


def _format_of_zip(head: bytes, members: Sequence[str]) -> str:
    if any(member.endswith(".npy") for member in members):
        return NPZ
    opendocument = (kind for mark, kind in _OF_OPENDOCUMENT.items() if mark in head[:256])  # the first member, stored
    others = (kind for start, kind in _OF_ZIP if any(name.startswith(start) for name in members))
    return next(chain(opendocument, others), "a zip archive")


def _members(head: bytes, path: Path | None) -> list[str]:
    """Names in a zip archive: of its directory, or where that is cut off or damaged, those in the first bytes."""
    if path is not None and (listed := _directory(path)):
        return listed
    places = [found.start() for found in re.finditer(re.escape(_ZIP), head)]
    lengths = [int.from_bytes(head[place + 26 : place + 28], "little") for place in places]
    return [head[at + 30 : at + 30 + count].decode("latin-1") for at, count in zip(places, lengths, strict=True)]


def _directory(path: Path) -> list[str]:
    """Names in the directory of a zip archive, none where it is cut off or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except Exception:  # damage makes zipfile raise anything from BadZipFile to NotImplementedError
        return []


def _format_of_ole(head: bytes) -> str:
    """Of a compound file, by the names of its streams, which are in UTF-16."""
    return next((kind for name, kind in _OF_OLE if name.encode("utf-16-le") in head), _OFFICE)


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
