# SPDX-License-Identifier: Apache-2.0
"""The page of ``dual-skd suggest``: the images to label as the network sees them, the first one first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from dual_skd.api.shown_images import ShownImages
from dual_skd.data.reading.locators import split_locator
from dual_skd.evaluation.pages.rendering import image_file, render
from dual_skd.options import Suggestion
from dual_skd.serving.prediction import Prediction
from dual_skd.serving.suggestions.pool import Pool
from dual_skd.serving.suggestions.strategies import Choice
from dual_skd.serving.torch_predictor import TorchPredictor
from dual_skd.utils.wording import counted

PICTURES = 240  # on a page; the table has all
PICTURE_SIDE = 128  # pixels along the longer side; of a volume's slices together three times as many
ORDERS = {
    "badge": "The networks are unsure about these images, and they are unlike each other (BADGE).",
    "disagreement": "The two networks disagree most about these images.",
    "uncertainty": "The student is least sure about these images.",
    "random": "These images were drawn at random.",
}


def suggestion_page(
    predictor: TorchPredictor,
    pool: Pool,
    chosen: Sequence[Choice],
    predictions: Sequence[Prediction],
    together: Sequence[Sequence[int]],
    asked: Suggestion,
) -> str:
    """The HTML document.

    Args:
        predictor: reads the images again.
        pool: that they were chosen from.
        chosen: the images, in their order.
        predictions: of each.
        together: places of the images that each stands for.
        asked: the options.
    """
    folder = os.path.commonpath([os.path.dirname(split_locator(one.image)[0]) for one in pool.records])
    cases: list[dict[str, Any]] = []
    for number, (one, found, members) in enumerate(
        zip(chosen[:PICTURES], predictions[:PICTURES], together[:PICTURES], strict=True), 1
    ):
        record = pool.records[one.image]
        image = predictor.prepare(record.image)
        name = os.path.relpath(record.image, folder)
        (pixels,) = ShownImages(image[None], [name]).pictures()
        wide = image.ndim == 4
        picture = image_file(pixels, side=PICTURE_SIDE * (3 if wide else 1), kind="JPEG")
        cases.append({
            "rank": number, "name": name, "patient": record.patient, "others": len(members) - 1, "found": found,
            "nearest": one.nearest, "picture": picture, "wide": wide,
        })  # fmt: skip
    return render(
        "suggestions.html",
        cases=cases,
        total=len(chosen),
        source=os.path.basename(folder),
        order=ORDERS[asked.strategy],
        pool=counted(len(pool.records), "image"),
        notes=pool.notes,
        unit=asked.per,
    )
