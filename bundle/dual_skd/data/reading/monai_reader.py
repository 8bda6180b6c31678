# SPDX-License-Identifier: Apache-2.0
"""The one reader of all formats, as MONAI's ``LoadImage`` takes readers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader

from dual_skd.data.reading.picture import Frame
from dual_skd.data.reading.reader import read_image
from dual_skd.errors import InputError

# LoadImage makes every reader that MONAI has, and one of them warns each time; none of them is used beside this one
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")


class MedicalReader(ImageReader):
    """Reads every format of :func:`read_image` for MONAI's ``LoadImage``.

    ``read`` only remembers the name: ``LoadImage`` swallows what it raises, and ``get_data`` may speak. The reader
    has no state, so that the threads of a caching data set can share it.

    Args:
        spatial_dims: 2 for images, 3 for volumes; None takes what the file holds.
        frame: which frame or slice of several to take as an image: "middle" or a number from 0.
        voi_lut: whether to apply the VOI LUT or window of DICOM files; other formats have none.
    """

    def __init__(self, spatial_dims: int | None = None, *, frame: Frame | None = None, voi_lut: bool = False) -> None:
        self.options: dict[str, Any] = {"spatial_dims": spatial_dims, "frame": frame, "voi_lut": voi_lut}

    def verify_suffix(self, filename: str | Path | Sequence[str | Path]) -> bool:
        return True

    def read(self, data: str | Path | Sequence[str | Path], **kwargs: Any) -> list[str]:
        return [str(data)] if isinstance(data, (str, Path)) else [str(name) for name in data]

    def get_data(self, img: list[str]) -> tuple[np.ndarray, dict[str, Any]]:
        if len(img) != 1:
            raise InputError(f"Expected one file or folder per image, found {len(img)}: {', '.join(img)}.")
        return read_image(img[0], **self.options)
