# SPDX-License-Identifier: Apache-2.0
"""What all readers refuse, in the same words: what is too large, cut short, or fails inside a library."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

from dual_skd.data.reading.formats import misnamed
from dual_skd.data.reading.locators import path_of
from dual_skd.errors import InputError

# Of the stored and the float32 values of one image. With nearly 0.9 GiB of libraries, a process that reads it stays
# under 2 GB. A DICOM series of 1,024 slices of 512 x 512 is the largest that fits: its files are read one by one.
MAX_BYTES = 2**30
MAX_FRAMES = 2**14  # frames or pages of one file, each of which takes a fraction of a millisecond
DEFLATE_RATIO = 1032  # zlib can't expand its input by more (zlib technical details, "maximum compression factor")
_UNNAMED = re.compile(r"<_io\.\w+[^>]*>")  # an open file, as Pillow shows it


def check_size(path: str | Path, shape: Sequence[int], bytes_stored: float) -> None:
    """Refuses an empty image, and one that would not fit into memory, before anything is allocated.

    The limit is :data:`MAX_BYTES` for the stored values, of ``bytes_stored`` each, and their float32 copy.
    """
    if not shape or min(shape) <= 0:
        raise InputError(f"{path} is damaged or empty: its header declares a size of {_by(shape)}; leave it out.")
    needed = prod(shape) * (bytes_stored + 4)
    if needed > MAX_BYTES:
        raise InputError(
            f"{path} declares a size of {_by(shape)}, which needs {needed / 2**30:.1f} GiB of at most "
            f"{MAX_BYTES / 2**30:.1f} GiB: the file is damaged, or has to be resampled or cut into parts."
        )


def check_stored(path: str | Path, expected: int, stored: int) -> None:
    """Refuses a file whose header declares more bytes than the file can hold."""
    if expected > stored:
        raise InputError(
            f"{path} is cut short or damaged: its header declares {expected} bytes of pixels, at most {stored} are "
            "there; copy the file again or leave it out."
        )


def check_frames(path: str | Path, count: int) -> None:
    """Refuses a file with more than :data:`MAX_FRAMES` frames or pages."""
    if count > MAX_FRAMES:
        raise InputError(f"{path} has more than {MAX_FRAMES} frames, too many for one image; cut it into parts.")


def too_many_frames(path: str | Path, count: int, example: str = "") -> InputError:
    """The error of a 2D task that meets a file or folder with several frames; ``example`` is a locator of one."""
    return InputError(
        f"Expected one image (spatial_dims 2), found {count} frames or slices in {path}: give --frame middle or a "
        "number, --preset volume (in check --spatial-dims 3), or name one of them in the record as "
        f"{example or f'{path}#frame=0'}."
    )


def not_finite(name: str, after: str = "") -> InputError:
    """The error of an image with values that no network takes, in the file or after a step of preprocessing."""
    return InputError(
        f"{name} has values that are NaN or infinite{after}; mend or remove it (the command check lists all such "
        "files)."
    )


def no_spacing(name: str) -> InputError:
    """The error of an image that is to be resampled and doesn't state the size of its pixels."""
    return InputError(f"{name} has no pixel spacing, so it can't be resampled to a spacing in mm; leave --spacing out.")


@contextmanager
def failures_named(path: str | Path) -> Iterator[None]:
    """Turns whatever a library raises while it reads a file into an InputError that names the file and its problem."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # damaged files make libraries raise anything from KeyError to MemoryError
        file = path_of(path)
        if refusal := misnamed(file):
            raise InputError(refusal) from error
        reason = " ".join(_UNNAMED.sub("", str(error)).replace(str(file), file.name).split()) or "no reason given"
        raise InputError(
            f"{path} can't be read, it is damaged or not what its name says ({type(error).__name__}: "
            f"{reason[:300]}); copy the file again or leave it out."
        ) from error


class OncePerKind(logging.Filter):
    """Lets each kind of message pass once per process: values and numbers in it don't make a new kind."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        kind = re.sub(r"'[^']*'|\"[^\"]*\"|[\d.,()]+", "#", record.getMessage())[:80]
        if kind in self._seen:
            return False
        self._seen.add(kind)
        return True


def quieten(logger: str, package: str) -> None:
    """Logs one of each kind of remark that a library makes file by file; its ``warnings``, which repeat them, go."""
    target = logging.getLogger(logger)
    if not any(isinstance(known, OncePerKind) for known in target.filters):
        target.addFilter(OncePerKind())
        warnings.filterwarnings("ignore", module=rf"{package}\.")


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "nothing"
