# SPDX-License-Identifier: Apache-2.0
"""Opens DICOM files: refuses what is no image or doesn't fit into memory, and reads tags."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from math import isfinite
from pathlib import Path
from struct import pack, unpack
from typing import TypeVar

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
)
from pydicom.valuerep import ALLOW_BACKSLASH, STR_VR, VR

from dual_skd.data.reading.dicom_scan import Beginning, Elements, read_beginning, scan
from dual_skd.data.reading.formats import misnamed
from dual_skd.data.reading.metered import MeteredFile, inflated
from dual_skd.data.reading.refusals import MAX_BYTES, check_frames, check_size, check_stored, quieten
from dual_skd.errors import InputError

# of pixels in both byte orders, and of items: what is in an element of pixels is never parsed
_PIXELS = [pack(f"{order}HH", 0x7FE0, number) for order in "<>" for number in (0x08, 0x09, 0x10)]
_ITEMS = [pack(f"{order}HH", 0xFFFE, 0xE000) for order in "<>"]
_TAG_BYTES, _ELEMENT_BYTES = 8, 16  # of a tag with its length; of an element that is parsed later, on average
_READS_PER_ITEM = 4
_OF_SEVERAL_VALUES = STR_VR - ALLOW_BACKSLASH

Opened = TypeVar("Opened", bound=Dataset | Elements)

quieten("pydicom", "pydicom")


class NotAnImage(InputError):
    """A readable DICOM object without pixels (a report, a presentation state, an index), or no DICOM file at all."""


def open_dicom(path: str | Path, tags: Sequence[str] | None = None) -> Dataset:
    """Parses a DICOM file: all of it, or only ``tags``.

    A file without the "DICM" mark is taken when its first bytes look like DICOM elements.

    Raises:
        NotAnImage: for other files, DICOMDIR and objects without pixels.
        InputError: if it is empty, or too large for memory.
    """
    size = os.stat(path).st_size
    if size > MAX_BYTES:
        check_size(path, (size,), 0)
        raise InputError(f"{path} has {size / 2**30:.1f} GiB, more than can be read as one image; cut it into parts.")
    with open(path, "rb") as file:
        start = file.read(1024)
    if not start:
        raise InputError(f"{path} is empty (0 bytes); copy the file again or leave it out.")
    if start[128:132] != b"DICM" and start[:2] not in (b"\x02\x00", b"\x08\x00"):
        raise NotAnImage(misnamed(Path(path)))
    dataset, left = _parsed(path, tags)
    _require_image(dataset, path)
    if "PhotometricInterpretation" in dataset:  # some write small letters
        dataset.PhotometricInterpretation = str(dataset.PhotometricInterpretation or "").strip().upper()
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _guessed_syntax(dataset)
    if "PixelData" in dataset:
        left = len(dataset.PixelData or b"")
    _check_pixels(dataset, path, left)
    return dataset


def open_header(path: str | Path, tags: Sequence[str], beginning: Beginning | None = None) -> Dataset | Elements:
    """Reads ``tags`` as :func:`open_dicom` does, of most files without pydicom, which is several times faster.

    ``beginning`` are the first bytes of the file, where they were read before.
    """
    beginning = beginning or read_beginning(path)
    elements = scan(path, beginning, tags) if beginning.size <= MAX_BYTES else None
    if elements is None:
        return open_dicom(path, tags)
    _require_image(elements, path)
    _check_pixels(elements, path, beginning.size - elements.end)
    return elements


def syntax_of(dataset: Dataset | Elements) -> str:
    """The UID of the transfer syntax."""
    return str(dataset.file_meta.get("TransferSyntaxUID"))


def frames_of(dataset: Dataset | Elements) -> int:
    return int(number(dataset, "NumberOfFrames") or 1)


def first_item(dataset: Dataset | Elements, keyword: str) -> Dataset:
    items = dataset.get(keyword)
    return items[0] if items else Dataset()


def groups_first(dataset: Opened, group: str, frame: int | None) -> Iterator[Dataset | Opened]:
    """The data sets that may hold an attribute of a functional group, the most special first.

    These are the group of the frame, that of all frames, and the top level. There, other objects have the attribute,
    and converters leave one that no longer holds (PS3.3, C.7.6.16).

    Args:
        dataset: a parsed file.
        group: keyword of the group's sequence, "" for what is none.
        frame: number of the frame from 0; None for what all frames share.
    """
    if group:
        frames = () if frame is None else dataset.get("PerFrameFunctionalGroupsSequence") or ()
        if frame is not None and frame < len(frames):
            yield first_item(frames[frame], group)
        if dataset.get("SharedFunctionalGroupsSequence"):
            yield first_item(first_item(dataset, "SharedFunctionalGroupsSequence"), group)
    yield dataset


def text(dataset: Dataset | Elements, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def number(dataset: Dataset | Elements, keyword: str) -> float | None:
    values = numbers(dataset, keyword, 1)
    return values[0] if values else None


def numbers(dataset: Dataset | Elements, keyword: str, count: int) -> tuple[float, ...] | None:
    """The values of an optional tag; None unless there are ``count`` finite ones (hospital files hold anything)."""
    try:
        value = dataset.get(keyword)
        values = tuple(float(part) for part in ([value] if count == 1 or isinstance(value, str) else value))
    except (TypeError, ValueError, OverflowError):
        return None
    return values if len(values) == count and all(map(isfinite, values)) else None


@cache
def _name_of_kind(uid: str) -> str:
    return UID(uid).name


def _require_image(dataset: Dataset | Elements, path: str | Path) -> None:
    kind = str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    name = _name_of_kind(kind)
    if kind == MediaStorageDirectoryStorage:
        raise NotAnImage(f"{path} is a DICOMDIR, an index of other files; name the folders with the images instead.")
    if "Rows" not in dataset or "Columns" not in dataset:
        is_whole = scan(path, read_beginning(path), ("Rows",)) is not None
        if name.endswith("Image Storage") and is_whole:
            raise InputError(f"{path} has no image size in its header, as if its image was removed; leave it out.")
        if name.endswith("Image Storage") or not (kind or is_whole):
            raise InputError(
                f"{path} is cut short or damaged: its header has no image size; copy it again or leave it out."
            )
        raise NotAnImage(f"{path} is a DICOM object without pixels ({name or 'of no stated kind'}); leave it out.")
    if name.endswith("Storage") and "Image" not in name:  # a segmentation or a dose has rows and columns, too
        raise NotAnImage(f"{path} is a DICOM object of another kind ({name}); leave it out.")


def _check_pixels(dataset: Dataset | Elements, path: str | Path, stored: int) -> None:
    """Compares the declared size of the pixels with memory and with the bytes ``stored`` for them."""
    columns, rows = int(dataset.get("Columns")), int(dataset.get("Rows"))
    shape = (columns, rows, frames_of(dataset), int(number(dataset, "SamplesPerPixel") or 1))
    bits = int(number(dataset, "BitsAllocated") or 8)
    check_size(path, shape, bits / 8)
    check_frames(path, shape[2])
    syntax = UID(syntax_of(dataset))
    if not syntax.is_private and not syntax.is_transfer_syntax:
        raise unreadable_syntax(path, syntax)
    count = shape[0] * shape[1] * shape[2]
    if syntax.is_encapsulated:
        expected = 8 * shape[2]  # every frame is an item with 8 bytes before it
    elif dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
        expected = count * 2 * bits // 8
    else:
        expected = count * shape[3] * bits // 8
    check_stored(path, expected, stored)


def unreadable_syntax(path: str | Path, syntax: UID) -> InputError:
    """The error of a compression that nothing here can read."""
    return InputError(
        f"{path} is compressed as {syntax.name}, which can't be read; convert it to plain or JPEG 2000 DICOM."
    )


class _DeflatedError(InputError):
    """pydicom asks for the rest of a file in one piece, which it does of a deflated data set alone."""


class _DicomFile(MeteredFile):
    """A DICOM file as pydicom parses it: elements, items and values count, also those that are parsed later."""

    _tag = bytes(_TAG_BYTES)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise _DeflatedError(f"{self.name} has a deflated data set in a deflated data set; leave it out.")
        block = super().read(size)
        if size == _TAG_BYTES:
            self._tag = block
        elif self._tag[:4] not in _PIXELS and len(block) > _TAG_BYTES:
            kinds = self._kinds()
            if VR.SQ in kinds and (items := sum(map(block.count, _ITEMS))):
                self.take(_READS_PER_ITEM * items + len(block) // _ELEMENT_BYTES)
            if kinds & _OF_SEVERAL_VALUES:
                self.take(block.count(b"\\"))
        return block

    def _kinds(self) -> set[str]:
        """The value representations that the element may have: the one stated, if any, and those of the dictionary."""
        kinds = {self._tag[4:6].decode("latin-1")}
        for order in "<>":
            with suppress(KeyError):
                group, number = unpack(f"{order}HH", self._tag[:4])
                kinds.add(dictionary_VR((group, number)))
        return kinds


def _parsed(path: str | Path, tags: Sequence[str] | None) -> tuple[Dataset, int]:
    """The elements of a file, and how many bytes its pixels may have."""

    def parse(file: _DicomFile) -> tuple[Dataset, int]:
        only = None if tags is None else list(tags)
        dataset = pydicom.dcmread(file, force=True, stop_before_pixels=tags is not None, specific_tags=only)
        return dataset, file.size if tags is None else file.size - file.tell()

    with _DicomFile(path) as file:
        try:
            return parse(file)
        except _DeflatedError:  # the file is where pydicom began to read the data set
            content = inflated(path, file)
    with _DicomFile(path, content) as file:
        dataset, left = parse(file)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return dataset, left


def _guessed_syntax(dataset: Dataset) -> UID:
    """The syntax of a file without file meta information, as pydicom found it while parsing."""
    implicit, little = dataset.original_encoding
    if not little:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
