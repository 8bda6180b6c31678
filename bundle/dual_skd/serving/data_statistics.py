# SPDX-License-Identifier: Apache-2.0
"""What MONAI's ``MonaiAlgoStats`` needs to describe the images of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.transforms import EnsureTyped, LoadImaged, MapTransform

from dual_skd.data.reading.preprocessing import MedicalReader


def statistics_transforms(spatial_dims: int = 2) -> list[MapTransform]:
    """Transforms for ``MonaiAlgoStats(data_stats_transform_list=...)``: each image as it is, with a map of its class.

    MONAI's analyser is made for segmentation, and wants a map of labels beside the image. Here it is one value in all
    pixels, the number of the class counted from 1, so that the label statistics are the intensities by class.

    Args:
        spatial_dims: 2 or 3.

    Returns:
        from "image" (a path) and "label" (an integer) to tensors (1, H, W[, D]) each.
    """
    return [
        LoadImaged("image", reader=MedicalReader(spatial_dims), ensure_channel_first=True, image_only=True),
        EnsureTyped("image", data_type="tensor", dtype=torch.float32),
        ClassMapd("label", like="image"),
    ]


class ClassMapd(MapTransform):
    """A map of the class: the label, counted from 1, in every pixel of the image.

    Args:
        keys: of the labels, integers.
        like: key of the image (1, H, W[, D]).
    """

    def __init__(self, keys: Any, like: str) -> None:
        super().__init__(keys)
        self.like = like

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        maps = {key: torch.full_like(data[self.like], int(data[key]) + 1) for key in self.key_iterator(dict(data))}
        return {**data, **maps}
