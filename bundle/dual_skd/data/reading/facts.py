# SPDX-License-Identifier: Apache-2.0
"""Facts of images that answers depend on (unit, modality, colour, size), and of a sample of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dual_skd.data.reading.dicom_header import Header, plane_of, read_header
from dual_skd.data.reading.formats import DICOM, format_of_suffix
from dual_skd.data.reading.locators import path_of, split_locator
from dual_skd.data.reading.reader import channels_first, hounsfield_of, read_image
from dual_skd.errors import InputError

SAMPLE_SIZE = 24  # images of a data set that are looked at
MAX_SAMPLE_SIZE = 48  # where there are many groups
MIN_COLOUR = 0.1  # mean distance of an image's channels, as a share of its range, from which it is in colour


@dataclass(frozen=True)
class ImageFacts:
    """What a header and the values say about an image.

    Args:
        image: its locator.
        format: by its name: "PNG", "DICOM" (also of a folder), ...; "" of an array.
        modality: DICOM Modality, "" for other formats.
        body_part: DICOM BodyPartExamined in capitals.
        hounsfield: whether its values are Hounsfield units, None where nothing decides, see
            :class:`~dual_skd.data.reading.picture.Picture`.
        colour: see :func:`in_colour`.
        plane: "axial", "coronal" or "sagittal" of DICOM slices, "" where that isn't known.
        size: columns and rows; of a volume those of its slices.
    """

    image: str
    format: str
    modality: str = ""
    body_part: str = ""
    hounsfield: bool | None = False
    colour: bool = False
    plane: str = ""
    size: tuple[int, int] = (0, 0)


def facts_of(image: str | Path, *, spatial_dims: int = 2) -> ImageFacts:
    """The facts of one file or series: by the header of grey DICOM, by the values of everything else.

    Raises:
        InputError: it can't be read.
    """
    path, fragment = split_locator(image)
    announced = _announced(path)
    header = _header(path, fragment) if announced == DICOM else None
    if header is not None and header.photometric.startswith("MONOCHROME") and header.hounsfield is not None:
        return ImageFacts(
            str(image), DICOM, header.modality, header.body_part.upper(), header.hounsfield,
            plane=plane_of(header.orientation), size=(header.columns, header.rows),
        )  # fmt: skip
    array, meta = read_image(image, spatial_dims=spatial_dims, frame="middle" if spatial_dims == 2 else None)
    facts = facts_in(channels_first(array, meta), meta)
    return facts if header is None else replace(facts, body_part=header.body_part.upper())


def facts_in(image: np.ndarray, meta: Mapping[str, Any]) -> ImageFacts:
    """The facts of an image (C, W, H) or (C, X, Y, Z) that is read already, by its meta data."""
    name = str(meta["filename_or_obj"])
    return ImageFacts(
        name,
        "" if meta["in_memory"] else _announced(path_of(name)),
        meta["modality"],
        hounsfield=hounsfield_of(meta),
        colour=in_colour(image),
        plane=meta["plane"],
        size=(int(image.shape[1]), int(image.shape[2])),
    )


def in_colour(image: np.ndarray) -> bool:
    """Whether the channels of an image (C, ...) really differ: on the mean by more than a tenth of its range.

    Grey that was stored as RGB isn't colour, nor is a picture with a small coloured mark: pictures of X-ray, CT and MR
    with such marks, tints and losses of compression differ by 0.055 at most (2,029 files of three public sets).
    """
    if image.shape[0] < 3:
        return False
    channels = image[:3].astype(np.float32, copy=False)  # a fourth is alpha
    with np.errstate(invalid="ignore"):  # values that aren't finite are refused later, and are no colour
        extent = channels.max() - channels.min()
        return bool((channels.max(0) - channels.min(0)).mean(dtype=float) > MIN_COLOUR * extent)


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` of the places 0 to ``count`` - 1, evenly over all of them, the first and the last included."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def look_at_sample(records: Sequence[Mapping[str, Any]], *, spatial_dims: int = 2) -> list[ImageFacts]:
    """Facts of a few images, spread over the whole data set, every class and every format, whatever their order.

    Args:
        records: with "image" and, where it is known, "label".
        spatial_dims: 2 for images, 3 for volumes.

    Returns:
        of :data:`SAMPLE_SIZE` images, or of up to :data:`MAX_SAMPLE_SIZE` where there are more groups; in their order.

    Raises:
        InputError: one of them can't be read.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for place, record in enumerate(records):
        key = str(record.get("label")), _announced(path_of(record["image"]))
        groups.setdefault(key, []).append(place)
    share = max(SAMPLE_SIZE // max(len(groups), 1), 1)
    places = [members[place] for members in groups.values() for place in spread(len(members), share)]
    chosen = sorted(places[place] for place in spread(len(places), MAX_SAMPLE_SIZE))
    return [facts_of(records[place]["image"], spatial_dims=spatial_dims) for place in chosen]


def _announced(path: Path) -> str:
    """The format that the reader takes a file for: one without a known suffix, or a folder, is DICOM."""
    return format_of_suffix(path) or DICOM


def _header(path: Path, fragment: str) -> Header | None:
    """The header of a DICOM file, or of a slice of the series in a folder; None where there is none."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        try:
            header = read_header(file)
        except InputError:
            continue  # not a DICOM file: reading the image decides
        if not path.is_dir() or header.series == (fragment or header.series):
            return header
    return None
