# SPDX-License-Identifier: Apache-2.0
"""What every reader returns, and the limits and messages that all of them share."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np

from dual_skd.data.reading.formats import misnamed
from dual_skd.data.reading.locators import path_of
from dual_skd.errors import InputError

# Of the stored and the float32 values of one image. With nearly 0.9 GiB of libraries, a process that reads it stays
# under 2 GB. A DICOM series of 1,024 slices of 512 x 512 is the largest that fits: its files are read one by one.
MAX_BYTES = 2**30
AIR = -300.0  # HU: values below are air, which only CT has
DEFLATE_RATIO = 1032  # zlib can't expand its input by more (zlib technical details, "maximum compression factor")

Frame = int | Literal["middle"]
_UNNAMED = re.compile(r"<_io\.\w+[^>]*>")  # an open file, as Pillow shows it


@dataclass(frozen=True)
class ReadOptions:
    """What to read of a file; a reader ignores what its format doesn't have.

    Args:
        spatial_dims: 2 to insist on an image, 3 on a volume; None takes what the file holds.
        frame: which frame, page or slice of several: "middle" or a number from 0; None takes all.
        voi_lut: whether to apply the VOI LUT or window of DICOM files.
        part: what stands behind the "#" of a locator: a series in a folder, an image in an .npz file.
    """

    spatial_dims: int | None = None
    frame: Frame | None = None
    voi_lut: bool = False
    part: str = ""


@dataclass(frozen=True)
class Picture:
    """One decoded image or volume.

    Args:
        array: (W, H) or (X, Y, Z); colours (3) or grey and alpha (2, 4) in one more, last axis.
        affine: (4, 4) from array indices to mm: to the patient's RAS axes for volumes, and only the pixel spacing for
            images, because a plane in a 2D task has no third axis to be turned about.
        spacing_known: whether the file states its spacing; else the affine counts pixels, in a plane widths of them.
        coloured: whether the last axis holds channels.
        photometric: DICOM PhotometricInterpretation of ``array``, "" for other formats.
        modality: DICOM Modality, "" for other formats.
        hounsfield: whether the file says that its values are Hounsfield units; None where it says nothing, and values
            below :data:`AIR` decide.
        plane: "axial", "coronal" or "sagittal" of DICOM slices, "" where that isn't known.
        voi_range: lowest and highest value that the VOI LUT or window of the file can give, where it was applied.
    """

    array: np.ndarray
    affine: np.ndarray
    spacing_known: bool = False
    coloured: bool = False
    photometric: str = ""
    modality: str = ""
    hounsfield: bool | None = None
    plane: str = ""
    voi_range: tuple[float, float] = (np.nan, np.nan)

    @property
    def spatial_dims(self) -> int:
        return self.array.ndim - self.coloured

    @property
    def in_hounsfield(self) -> bool | None:
        """As the file says, else True where there is air; None where nothing decides: CT need not show any."""
        if self.hounsfield is not None or self.array.dtype.kind not in "if":  # unsigned values are none
            return bool(self.hounsfield)
        return bool(np.fmin.reduce(self.array, axis=None) < AIR) or None

    def slice(self, number: int) -> Picture:
        """One slice of a volume along its last axis, as an image."""
        spacing = np.linalg.norm(self.affine[:3, :2], axis=0)
        array = np.ascontiguousarray(self.array[:, :, number])
        return Picture(array, plane_affine(*spacing), self.spacing_known, self.coloured)


def plane_affine(column: float = 1.0, row: float = 1.0) -> np.ndarray:
    """Affine of a 2D image from the distances, in mm, of its columns and of its rows."""
    return np.diag([column, row, 1.0, 1.0])


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


class NamedFrame(int):
    """The number of a frame that a record names. The file must have it; a number for all files need not apply."""


def chosen_frame(frame: Frame, count: int, path: str | Path) -> int:
    """The number of a frame, from 0, by "middle" or a number; one for all files leaves single pictures as they are."""
    if frame == "middle":
        return count // 2
    number = -1 if isinstance(frame, bool) or not isinstance(frame, int) else frame
    if count == 1 and number >= 0 and not isinstance(frame, NamedFrame):
        return 0
    if not 0 <= number < count:
        raise InputError(f'Expected frame "middle" or a number from 0 to {count - 1}, found {frame!r} for {path}.')
    return number


def too_many_frames(path: str | Path, count: int, example: str = "") -> InputError:
    """The error of a 2D task that meets a file or folder with several frames; ``example`` is a locator of one."""
    return InputError(
        f"Expected one image (spatial_dims 2), found {count} frames or slices in {path}: give --frame middle or a "
        "number, --preset volume (in check --spatial-dims 3), or name one of them in the record as "
        f"{example or f'{path}#frame=0'}."
    )


def not_finite(name: str) -> InputError:
    """The error of an image with values that no network takes."""
    return InputError(
        f"{name} has values that are NaN or infinite; mend or remove it (the command check lists all such files)."
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
