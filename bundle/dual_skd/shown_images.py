# SPDX-License-Identifier: Apache-2.0
"""Images as a network gets them, to be looked at before hours of training."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dual_skd.data.reading.facts import spread
from dual_skd.data.records.datalist import SPLITS
from dual_skd.errors import InputError, choose
from dual_skd.evaluation.predictions import named
from dual_skd.evaluation.report.markup import element, picture
from dual_skd.wording import counted
from dual_skd.workflow import TRAIN

SHOWN_WIDTH = 128  # pixels on a screen up to which small pictures are enlarged


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
        figures = []
        for pixels, title in zip(self.pictures(), self.titles, strict=True):
            width = pixels.shape[1] * max(SHOWN_WIDTH // pixels.shape[0], 1)
            shown = picture(png(pixels), title, width)
            figures.append(element("figure", shown, element("figcaption", title), style="margin:0"))
        return element("div", *figures, style="display:flex;flex-wrap:wrap;gap:.75rem")


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
    if count < 1:
        raise InputError(f"count is {count}; expected a whole number of at least 1.")
    if split == "train":  # copies only leave the other splits
        options.setdefault("twin_search", "never")
    if dataset_dir is not None:
        options["dataset_dir"] = dataset_dir
    with tempfile.TemporaryDirectory() as folder:  # the demo data are written to it
        here = {"output_dir": folder, "cache": "none", "num_workers": 0}
        gathered = TRAIN.gather(options | here, preset, config)
        with TRAIN.prepared(gathered.files, gathered.values) as workflow:
            parser = workflow.parser
            data = parser.get_parsed_content("datalist")
            batches = _training(parser, count) if split == "train" else _others(parser, data.splits[split], count)
    if not batches:
        raise InputError(f"{data.source} has no {split} images; choose another split.")
    images, labels = (torch.cat(parts)[:count] for parts in zip(*batches, strict=True))
    return ShownImages(images, [named(label, data.class_names) for label in labels.numpy()])


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of a picture (H, W) or (H, W, 3), uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _training(parser: Any, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The first batches of a training."""
    from monai.utils import set_determinism

    loader, prepare = (parser.get_parsed_content(f"train#{name}") for name in ("dataloader", "trainer#prepare_batch"))
    set_determinism(parser.get_parsed_content("options").seed)
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []
    for batch in loader:
        batches.append(prepare(batch, torch.device("cpu")))
        if sum(len(labels) for _, labels in batches) >= count:
            break
    return batches


def _others(parser: Any, records: list[dict[str, Any]], count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Images of another split as validation and test see them."""
    transform = parser.get_parsed_content("preprocessing")
    items = [transform(dict(records[place])) for place in spread(len(records), count)] if records else []
    return [(item["image"][None], torch.as_tensor(item["label"])[None]) for item in items]


def _slices(volume: np.ndarray) -> np.ndarray:
    """The middle slices of a volume (X, Y, Z) in RAS, axial, coronal, sagittal, side by side above black."""
    middle = [volume.take(size // 2, axis).T[::-1, ::-1] for axis, size in enumerate(volume.shape)][::-1]
    height = max(len(one) for one in middle)
    return np.hstack([np.pad(one, ((0, height - len(one)), (0, 0))) for one in middle])
