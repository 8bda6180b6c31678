# SPDX-License-Identifier: Apache-2.0
"""Pictures of single images with the map of what spoke for the network's answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from dual_skd.data import image_transforms
from dual_skd.data.reading.locators import path_of
from dual_skd.errors import InputError, input_error_behind
from dual_skd.evaluation.explanation import choose_cases, explain, panels
from dual_skd.evaluation.pages.rendering import image_file
from dual_skd.evaluation.run_files import RunFiles
from dual_skd.metrics.predictions import named
from dual_skd.utils.progress import bar

KINDS = {  # in the order of the page
    "confident_wrong": "Surest, and wrong",
    "least_certain": "Least certain",
    "confident_right": "Surest, and right",
}
PICTURE_SIDE = 256  # pixels along the longer side of a picture in the page


class Case(NamedTuple):
    """One image with its explanation.

    Attributes:
        kind: key of :data:`KINDS`.
        row: of the table of predictions, the first image being 1.
        name: of the file, only for pages that may show it.
        true: name of the label, or of several.
        predicted: the same of the prediction.
        target: class that the map is of.
        probability: of that class.
        pictures: (name, PNG of the image, PNG of the overlay); three slices of a volume.
    """

    kind: str
    row: int
    name: str
    true: str
    predicted: str
    target: str
    probability: float
    pictures: tuple[tuple[str, bytes, bytes], ...]


def explained_cases(
    files: RunFiles, network: nn.Module, preprocessing: dict[str, Any], *, count: int = 3
) -> tuple[list[Case], str]:
    """Chooses images by their predictions and explains them.

    Args:
        files: with the predictions and the places of the images.
        network: the student.
        preprocessing: what the network needs, from :func:`dual_skd.load_model`.
        count: images of each kind.

    Returns:
        the cases, and a sentence about those that could not be explained; "" where all could.
    """
    table = files.table
    failed: dict[int, str] = {}
    images: dict[int, Any] = {}
    chosen = choose_cases(table.probabilities, table.labels, count=count, multi_label=files.multi_label)
    transform = image_transforms(**preprocessing | {"expected": None})  # they were measured
    map_of = partial(explain, network, multi_label=files.multi_label)
    for row in bar(list(dict.fromkeys(chain.from_iterable(chosen.values()))), "Maps of images"):
        found = _explained(table.images[row], map_of, transform, int(table.probabilities[row].argmax()))
        if isinstance(found, str):
            failed[row] = found
        else:
            images[row] = found
    cases = [_case(files, kind, row, images[row]) for kind, rows in chosen.items() for row in rows if row in images]
    if not failed:
        return cases, ""
    reasons = ", ".join(dict.fromkeys(failed.values()))
    return cases, f"{len(failed)} of {len(failed) + len(images)} chosen images could not be explained: {reasons}."


def _explained(image: str, map_of: Callable, transform: Callable, target: int) -> tuple | str:
    """Pictures of an image, or why there are none, without its name."""
    if not path_of(image).exists():
        return "their files are gone"
    try:
        pixels = transform({"image": image})["image"]
    except (InputError, RuntimeError, OSError, ValueError) as error:  # RuntimeError: MONAI's own around any of them
        kind = type(input_error_behind(error) or error.__cause__ or error).__name__
        return f"their files can't be read ({kind})"
    try:
        found = panels(pixels, map_of(pixels, target))
    except InputError:  # a network without maps
        return "the network has no layer that a map could be made of"
    return tuple(
        (panel.name, *(image_file(one, side=PICTURE_SIDE) for one in (panel.picture, panel.overlay))) for panel in found
    )


def _case(files: RunFiles, kind: str, row: int, pictures: tuple) -> Case:
    table, p = files.table, files.table.probabilities[row]
    called = (p > 0.5).astype(int) if files.multi_label else int(p.argmax())
    target = int(p.argmax())
    return Case(
        kind, row + 1, Path(table.images[row]).name, named(table.labels[row], table.class_names) or "none",
        named(called, table.class_names) or "none", table.class_names[target], float(p[target]), pictures,
    )  # fmt: skip
