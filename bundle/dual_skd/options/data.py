# SPDX-License-Identifier: Apache-2.0
"""The options of a training run and of an evaluation that decide which images are read, and how they are divided."""

from __future__ import annotations

from typing import Any

from dual_skd.options.choices import BadFile
from dual_skd.options.kinds import Dims, Frame, Place, Seed
from dual_skd.options.shared import Copies, Reading
from dual_skd.options.training import Course, Division, Images, Unlabelled

# the same fields as in the options of a run: same default, same meaning
_DIMS: Any = Images.model_fields["spatial_dims"]
_FRAME: Any = Images.model_fields["frame"]
_SEED: Any = Course.model_fields["seed"]
_UNLABELLED: Any = Unlabelled.model_fields["unlabelled"]
_ON_BAD_FILE: Any = Copies.model_fields["on_bad_file"]


class ReadOptions(Copies, Reading):
    """How images, labels and patients are found in a data set, and which images are left out."""

    spatial_dims: Dims = _DIMS
    frame: Frame | None = _FRAME
    unlabelled: Place | None = _UNLABELLED
    on_bad_file: BadFile | None = _ON_BAD_FILE  # type: ignore[assignment] # None: no file is looked at

    @property
    def frame_in_2d(self) -> int | str | None:
        """The frame that is taken of files with several; None for volumes, which take all."""
        return self.frame if self.spatial_dims == 2 else None


class DataOptions(Division, ReadOptions):
    """How a data set is read and divided."""

    seed: Seed = _SEED
