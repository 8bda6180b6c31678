# SPDX-License-Identifier: Apache-2.0
"""What PNG, JPEG, JPEG-LS and JPEG 2000 declare, before a decoder allocates it, or fills what is missing."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from dual_skd.data.reading.refusals import check_size
from dual_skd.errors import InputError

# start of frame: all processes of JPEG but the markers between them that mean other things, and JPEG-LS
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
# markers but those without a length (all below C0, restarts, start of image) and the fill byte FF
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
_END, _SCAN = 0xD9, 0xDA
MAX_SCANS = 500  # of a JPEG image; those of libjpeg's own tools have 10
MAX_SCANNED = 2**31  # values in all scans together: each scan of a progressive image goes over it once

# JPEG 2000 (ISO/IEC 15444-1, A.5 and A.6): start of codestream, and the size segment that has to follow at once
_CODESTREAM = b"\xff\x4f\xff\x51"
_STYLE, _STYLE_OF_COMPONENT, _TILE_PART = 0x52, 0x53, 0x90
MAX_TILES = 2**13
_VALUE_BYTES, _BLOCK_BYTES = 4, 300  # that OpenJPEG takes for a value, and for a code block with its precinct

# PNG (ISO/IEC 15948): values per pixel by colour type; first column and row of each pass of Adam7, and their distances
_PNG_VALUES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_INFLATED = 2**20  # bytes at a time


class Declared(NamedTuple):
    """Size of an image by the header of its code."""

    columns: int
    rows: int
    components: int


def png_bytes(code: bytes) -> tuple[int, int]:
    """Bytes that the header of a PNG declares for its rows, and those that are there, not counted further than that."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", code, 16)
    declared = 0
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-max(width - left, 0) // across), -(-max(height - top, 0) // down)
        declared += rows * (1 + -(-columns * _PNG_VALUES[colour] * depth // 8)) if columns else 0
    inflating, stored, place = zlib.decompressobj(), 0, 8
    while place + 8 <= len(code) and stored < declared:
        length = int.from_bytes(code[place : place + 4], "big")
        data = code[place + 8 : place + 8 + length] if code[place + 4 : place + 8] == b"IDAT" else b""
        place += 12 + length
        try:
            while data and stored < declared:
                stored += len(inflating.decompress(data, _INFLATED))
                data = inflating.unconsumed_tail
        except zlib.error:  # the decoder refuses it
            return declared, declared
    return declared, min(stored, declared)


def jpeg_code(frame: bytes) -> bytes:
    """A frame from its start of image on."""
    return frame[max(frame.find(b"\xff\xd8\xff"), 0) :]


def jpeg_header(code: bytes) -> Declared | None:
    """What the frame header declares (ISO/IEC 10918-1, B.2.2; 14495-1, C.2.2), found as libjpeg finds it.

    None where there is none before the first scan; 0 rows stand for a number that follows after it.
    """
    for marker, place in _segments(code):
        if marker in FRAME_MARKERS and place + 10 <= len(code):
            rows, columns = (int.from_bytes(code[place + at : place + at + 2], "big") for at in (5, 7))
            return Declared(columns, rows, code[place + 9])
        if marker == _SCAN:
            break
    return None


def _segments(code: bytes) -> Iterator[tuple[int, int]]:
    """Marker and place of the segments of a JPEG image up to its end; what is between scans' segments is skipped."""
    place = 2
    while (found := _MARKER.search(code, place)) and found[1][0] != _END:
        yield found[1][0], found.start()
        place = found.end() + max(int.from_bytes(code[found.end() : found.end() + 2], "big"), 2)


def check_scans(path: str | Path, code: bytes, values: int) -> None:
    """Refuses a JPEG image of ``values`` that takes minutes to decode because it has many scans."""
    scans = sum(marker == _SCAN for marker, _ in _segments(code))
    if scans > MAX_SCANS or scans * values > max(MAX_SCANNED, 4 * values):
        raise InputError(
            f"{path} has {scans} scans, far more than JPEG images have: it is damaged or made to take hours to decode; "
            "leave it out."
        )


def j2k_code(frame: bytes) -> bytes:
    """A frame from its codestream on, without the boxes of a .jp2 file; b"" where it has none."""
    place = frame.find(_CODESTREAM)
    return frame[place:] if place >= 0 else b""


def j2k_header(code: bytes) -> Declared:
    """What the size segment of a codestream declares."""
    right, bottom, left, top = struct.unpack_from(">4I", code, 8)
    return Declared(right - left, bottom - top, *struct.unpack_from(">H", code, 40))


def check_j2k(path: str | Path, code: bytes) -> None:
    """Refuses a codestream whose tiles, components or code blocks take a decoder more memory than there may be."""
    right, bottom, _, _, width, height = struct.unpack_from(">6I", code, 8)
    tiles = -(-right // max(width, 1)) * -(-bottom // max(height, 1))
    if tiles > MAX_TILES:
        raise InputError(
            f"{path} declares {tiles} tiles in its JPEG 2000 image, more than images have: it is damaged or made to "
            "fill memory; leave it out."
        )
    block = min((_block_size(style) for style in _coding_styles(code)), default=2**12)
    check_size(path, j2k_header(code), _VALUE_BYTES + _BLOCK_BYTES / block)


def is_lossy_j2k(code: bytes) -> bool:
    """Whether the wavelet isn't reversible."""
    return any(style[5:6] == b"\0" for style in islice(_coding_styles(code), 1))


def _coding_styles(code: bytes) -> Iterator[bytes]:
    """Scod or Scoc and the SPcod or SPcoc parameters after it, of the segments in the main header."""
    place = 2
    while place + 4 <= len(code) and code[place] == 0xFF and code[place + 1] != _TILE_PART:
        marker, end = code[place + 1], place + 2 + int.from_bytes(code[place + 2 : place + 4], "big")
        if marker == _STYLE:  # the progression, layers and transformation of components are between both
            yield code[place + 4 : place + 5] + code[place + 9 : end]
        elif marker == _STYLE_OF_COMPONENT:
            yield code[place + (5 if code[40:42] < b"\1\1" else 6) : end]
        place = end if end > place + 2 else len(code)


def _block_size(style: bytes) -> int:
    """Values in the smallest code block of a coding style: precincts may cut blocks."""
    if len(style) < 4:
        return 2**12
    width, height = (exponent % 16 + 2 for exponent in style[2:4])
    if style[0] & 1:
        for level, precinct in enumerate(style[6:]):
            width, height = min(width, precinct % 16 - (level > 0)), min(height, precinct // 16 - (level > 0))
    return 1 << max(width, 0) + max(height, 0)
