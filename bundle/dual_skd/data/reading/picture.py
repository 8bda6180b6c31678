# SPDX-License-Identifier: Apache-2.0
"""The picture that every reader returns, and what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dual_skd.errors import InputError

AIR = -300.0  # HU: values below are air, which only CT has

Frame = int | Literal["middle"]


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
