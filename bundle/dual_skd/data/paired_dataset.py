# SPDX-License-Identifier: Apache-2.0
"""Labelled images, each with images without labels beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset


def paired(labelled: Any, unlabelled: Any) -> Any:
    """The labelled data set as it is, or paired with one of images without labels, if there are any."""
    return PairedDataset(labelled, unlabelled) if len(unlabelled) else labelled


class PairedDataset(Dataset):
    """Items of a labelled data set with ``unlabelled`` (R, C, H, W[, D]), images of another data set.

    So one loader reads both, in the same processes, and one order tells them all
    (:class:`dual_skd.runs.random_state.PairedSampler`).

    Args:
        labelled: items are dictionaries.
        unlabelled: items are dictionaries with ``image``.
    """

    def __init__(self, labelled: Any, unlabelled: Any) -> None:
        self.labelled = labelled
        self.unlabelled = unlabelled

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, places: tuple[int, Sequence[int]]) -> dict[str, Any]:
        """The labelled item of a place, with the images without labels of other places."""
        place, others = places
        images = [torch.as_tensor(self.unlabelled[other]["image"]) for other in others]
        return {**self.labelled[place], "unlabelled": torch.stack(images)}
