# SPDX-License-Identifier: Apache-2.0
"""Files that a library reads within limits: how many parts it may take, and how far their content may expand."""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from dual_skd.data.reading.refusals import MAX_BYTES
from dual_skd.errors import InputError

MAX_PARTS = 2**20  # elements, values, tags, chunks of one file; a library makes objects of up to 1 KiB of each
MAX_EXPANDED = MAX_BYTES // 2  # bytes of a stream that has to be in memory twice
BLOCK = 2**16


class MeteredFile(io.BufferedReader):
    """An open file that refuses a library that takes too many parts of it.

    No read asks for more memory than the rest of the file needs, whatever length was declared.

    Args:
        path: of the file.
        content: of the file, where it isn't what is stored under the path.
    """

    def __init__(self, path: str | Path, content: io.BytesIO | None = None) -> None:
        super().__init__(content or io.FileIO(path))  # type: ignore[arg-type]
        self._path = path
        self.size = self.seek(0, 2)
        self.seek(0)
        self.parts_left = MAX_PARTS

    @property
    def name(self) -> str:
        return str(self._path)

    def read(self, size: int | None = -1, /) -> bytes:
        self.take(1)
        if size is not None and size > BLOCK:
            size = min(size, max(self.size - self.tell(), 0))
        return super().read(size)

    def take(self, parts: int) -> None:
        self.parts_left -= parts
        if self.parts_left < 0:
            raise self._refusal()

    @contextmanager
    def unmetered(self) -> Iterator[None]:
        """Counts no part of what is read meanwhile: pixels of a known size, which some decoders take byte by byte."""
        left, self.parts_left = self.parts_left, sys.maxsize
        try:
            yield
        finally:
            self.parts_left = left

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self.parts_left < 0 and not isinstance(error, InputError):  # libraries exchange errors for theirs
            raise self._refusal() from None

    def _refusal(self) -> InputError:
        return InputError(
            f"{self._path} consists of more than {MAX_PARTS} parts (elements, tags or chunks), more than images have: "
            "it is damaged or made to fill memory; leave it out."
        )


def inflated(path: str | Path, file: io.BufferedReader) -> io.BytesIO:
    """The content of the deflated rest of an open file (without a header, as in DICOM), expanded in bounded steps.

    Raises:
        InputError: there is more of it than :data:`MAX_EXPANDED`.
    """
    content, inflater, block = io.BytesIO(), zlib.decompressobj(-zlib.MAX_WBITS), file.read1(BLOCK)
    while block and not inflater.eof:
        content.write(inflater.decompress(block, 2**20))
        check_expanded(path, content.tell(), MAX_EXPANDED)
        block = inflater.unconsumed_tail or file.read1(BLOCK)
    content.seek(0)
    return content


def check_expanded(path: str | Path, expanded: int, most: int) -> None:
    """Refuses compressed content of more than ``most`` bytes."""
    if expanded > most:
        raise InputError(
            f"{path} expands to more than {most / 2**30:.1f} GiB, more than can be read as one image: it is damaged "
            "or made to fill memory; leave it out."
        )
