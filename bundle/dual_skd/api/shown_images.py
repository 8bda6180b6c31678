# SPDX-License-Identifier: Apache-2.0
"""Images as a network gets them, to be looked at before hours of training."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose

from dual_skd.data.reading.facts import spread
from dual_skd.data.records.datalist import SPLITS, DataList
from dual_skd.errors import InputError, choose
from dual_skd.evaluation.pages.rendering import image_file, render
from dual_skd.metrics.predictions import named
from dual_skd.runs.workflow import TRAIN
from dual_skd.utils.wording import counted

ENLARGED_HEIGHT = 128  # pixels on a screen, up to which small pictures are enlarged


@dataclass(frozen=True, repr=False)
class ShownImages:
    """Images as a network gets them; a notebook shows them as pictures with their classes.

    Args:
        images: (N, 1, H, W), or (N, 1, X, Y, Z) in RAS: left to right, back to front, feet to head.
        titles: the class of each; several are joined by "|".
    """

    images: torch.Tensor
    titles: list[str]

    def pictures(self) -> list[np.ndarray]:
        """Grey pictures (H, W), uint8; of a volume the middle axial, coronal and sagittal slice, side by side.

        The lowest value of the images is black, the highest white: -1 and 1, unless some go further. Slices are turned
        as radiologists see them: the patient's right on the left, the front or the head above.
        """
        low = min(float(self.images.min()), -1.0)
        high = max(float(self.images.max()), 1.0)
        grey = ((self.images[:, 0] - low) * (255 / (high - low))).round().to(torch.uint8).numpy()
        return [one if one.ndim == 2 else _slices(one) for one in grey]

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.images.shape[2:]))
        values = f"from {float(self.images.min()):.2f} to {float(self.images.max()):.2f}"
        return f"{counted(len(self.images), 'image')} of {size} pixels, values {values}; a notebook shows them"

    def _repr_html_(self) -> str:
        pictures = [
            (image_file(pixels), title, pixels.shape[1] * max(ENLARGED_HEIGHT // pixels.shape[0], 1))
            for pixels, title in zip(self.pictures(), self.titles, strict=True)
        ]
        return render("pictures.html", pictures=pictures)


def show_batch(
    dataset_dir: str | Path | None = None,
    *,
    split: str = "train",
    count: int = 12,
    preset: str | Sequence[str] | None = None,
    config: str | Path | Sequence[str | Path] | None = None,
    **options: Any,
) -> ShownImages:
    """Shows what the network will see, before any training: images read, scaled, sized and, for training, changed.

    Of the training images these are the first ones of a training with the same options, as its first step gets them.
    Of the others, which aren't changed at random, they are spread over the whole split. No run is started.

    Args:
        dataset_dir: your data, as for :func:`dual_skd.train`.
        split: "train", "val" or "test".
        count: how many images, at most.
        preset: as for :func:`dual_skd.train`, such as "volume".
        config: as for :func:`dual_skd.train`.
        options: those of a training, docs/options.md, such as ``image_size=96``, ``window="lung"``, ``rotate=20``.

    Raises:
        InputError: an option, ``split`` or ``count``, or the data can't be used.
    """
    choose(dict.fromkeys(SPLITS), split, "split")
    if not isinstance(count, int) or count < 1:
        raise InputError(f"count is {count}; expected a whole number of at least 1.")
    if split == "train":  # copies only leave the other splits
        options.setdefault("twin_search", "never")
    if dataset_dir is not None:
        options["dataset_dir"] = dataset_dir
    with _training_to_be(options, preset, config) as parser:
        data = parser.get_parsed_content("data")
        if split == "train":
            images, labels = _first_of_training(parser, count)
        else:
            transform = parser.get_parsed_content("preprocessing")
            chosen = [data.splits[split][place] for place in spread(len(data.splits[split]), count)]
            images, labels = [transform(one.as_dict())["image"] for one in chosen], [one.label for one in chosen]
    if not labels:
        raise InputError(f"{data.source} has no {split} images; choose another split.")
    return ShownImages(torch.stack(images), [named(label, data.class_names) for label in labels])


def preprocessing_for(data: DataList, options: Mapping[str, Any]) -> tuple[Compose, dict[str, Any]]:
    """What a training would make of images that are read already.

    Args:
        data: their list; the training images decide about intensities.
        options: those of :class:`dual_skd.options.training.Images` that were given; of volumes the others are those of
            the preset.

    Returns:
        (from a record to "image" and "label", the settings that it follows).
    """
    preset = "volume" if data.spatial_dims == 3 else None
    with _training_to_be({**options, "dataset_dir": str(data.root)}, preset, None) as parser:
        parser.globals["checked"] = data
        parser.update({"data": "$checked"})
        return parser.get_parsed_content("preprocessing"), parser.get_parsed_content("input_settings")


@contextmanager
def _training_to_be(options: Mapping[str, Any], preset: Any, config: Any) -> Iterator[Any]:
    """MONAI's parser of a training that doesn't start; the demo data it writes are gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        here = {"output_dir": folder, "cache": "none", "num_workers": 0}
        gathered = TRAIN.gather({**options, **here}, preset, config)
        with TRAIN.prepared(gathered.files, gathered.values) as workflow:
            yield workflow.parser


def _first_of_training(parser: Any, count: int) -> tuple[list[torch.Tensor], list[Any]]:
    """Images and labels of the first batches."""
    from monai.utils import set_determinism

    loader, prepare = (parser.get_parsed_content(f"train#{name}") for name in ("dataloader", "trainer#prepare_batch"))
    set_determinism(parser.get_parsed_content("options").seed)
    images: list[torch.Tensor] = []
    labels: list[Any] = []
    for batch in loader:
        batch_images, batch_labels = prepare(batch, torch.device("cpu"))
        images, labels = [*images, *batch_images], [*labels, *batch_labels.numpy()]
        if len(images) >= count:
            break
    return images[:count], labels[:count]


def _slices(volume: np.ndarray) -> np.ndarray:
    """The middle slices of a volume (X, Y, Z) in RAS, axial, coronal, sagittal, side by side above black."""
    middle = [volume.take(size // 2, axis).T[::-1, ::-1] for axis, size in enumerate(volume.shape)][::-1]
    height = max(len(one) for one in middle)
    return np.hstack([np.pad(one, ((0, height - len(one)), (0, 0))) for one in middle])
