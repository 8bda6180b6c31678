# SPDX-License-Identifier: Apache-2.0
"""A data set that skips files that can't be used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from monai.data import Dataset
from monai.transforms import Compose

from dual_skd.data.records.bad_files import require_policy
from dual_skd.errors import input_error_behind

logger = logging.getLogger(__name__)


class TolerantDataset(Dataset):
    """MONAI's data set, in which a file that can't be used becomes an image of zeros with a "problem".

    Every item has this key: "" for good files, else a sentence on what is wrong.
    :class:`dual_skd.serving.writers.PredictionWriter` leaves images with a problem out of the results.

    Args:
        data: records.
        transform: of every record.
        shape: (C, H, W[, D]) of a transformed image.
        on_bad_file: "skip"; or "error" to end the run at the first bad file.

    Raises:
        InputError: for another ``on_bad_file``; with "error", on a file that can't be used.
    """

    def __init__(
        self, data: Sequence[dict], transform: Compose, *, shape: Sequence[int], on_bad_file: str = "skip"
    ) -> None:
        require_policy(on_bad_file)
        super().__init__(data, transform)
        self.shape = tuple(shape)
        self.on_bad_file = on_bad_file

    def _transform(self, index: int) -> dict[str, Any]:
        try:
            return {**super()._transform(index), "problem": ""}
        except Exception as error:
            cause = input_error_behind(error)
            # an error that isn't about the file, such as a bug or a full memory, must not look like a bad file
            if cause is None or self.on_bad_file == "error":
                raise
            logger.warning("Skipped: %s", cause)
            return {**self.data[index], "image": torch.zeros(self.shape), "problem": str(cause)}
