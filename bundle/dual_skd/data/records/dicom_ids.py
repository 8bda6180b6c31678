# SPDX-License-Identifier: Apache-2.0
"""Ids of patient, study and series of DICOM files, from the beginning of their headers: faster than whole headers."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dual_skd.data.reading.dicom_file import NotAnImage, open_dicom
from dual_skd.data.reading.refusals import failures_named
from dual_skd.errors import InputError

HEADER_BYTES = 2**16  # bytes that are read at first; most headers are shorter
FILES_AHEAD = 256  # files that are read while others are parsed
_TAGS = ["SOPClassUID", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber"]
_WANTED: list[Any] = [Tag(name) for name in _TAGS]
_LAST = Tag("SeriesInstanceUID")  # of them; elements come in the order of their tags


@dataclass(frozen=True)
class Ids:
    """PatientID, StudyInstanceUID, SeriesInstanceUID and AccessionNumber of a DICOM image; "" where it is silent."""

    path: str
    patient: str = ""
    study: str = ""
    series: str = ""
    accession: str = ""


def read_ids(paths: Iterable[str]) -> Iterator[Ids | InputError]:
    """Reads the ids of many DICOM files; errors come in the place of their file.

    Threads read ahead, and one parses: two that parse would wait for each other.

    Args:
        paths: DICOM files.

    Yields:
        :class:`Ids`; :class:`NotAnImage` for objects such as reports; InputError for files that can't be read.
    """
    paths = list(paths)
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), FILES_AHEAD):
            batch = paths[start : start + FILES_AHEAD]
            for path, head in zip(batch, pool.map(_head, batch), strict=True):
                yield _ids(path, head)


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(HEADER_BYTES)
    except OSError:  # opening it as a whole says what is wrong
        return b""


def _ids(path: str, head: bytes) -> Ids | InputError:
    try:
        with failures_named(path):
            dataset = _beginning(head)
            if dataset is None:  # an unusual or a damaged file
                dataset = open_dicom(path)
            kind = UID(str(dataset.get("SOPClassUID") or ""))
            if kind.name.endswith("Storage") and "Image" not in kind.name:
                raise NotAnImage(f"{path} is a DICOM object of another kind ({kind.name}); leave it out.")
            values = [dataset.get(name) for name in _TAGS[1:]]
            return Ids(path, *("" if value is None else str(value).strip() for value in values))
    except InputError as error:
        return error


def _beginning(head: bytes) -> Dataset | None:
    """Elements up to the last wanted one, None if they can't be taken from the first bytes of the file."""
    if head[128:132] != b"DICM" or DeflatedExplicitVRLittleEndian.encode() in head[:1024]:
        return None
    beyond = False

    def stop(tag: int, vr: str | None, length: int) -> bool:
        nonlocal beyond
        beyond = tag > _LAST
        return beyond

    try:
        dataset = read_partial(io.BytesIO(head), stop_when=stop, specific_tags=_WANTED)
    except Exception:  # whatever a damaged file makes of it, reading it as a whole says what is wrong
        return None
    return dataset if beyond else None
