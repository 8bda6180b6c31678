# SPDX-License-Identifier: Apache-2.0
"""The reader of pictures: PNG, JPEG, BMP, TIFF."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dual_skd.data.reading.codestreams import check_scans, png_bytes
from dual_skd.data.reading.formats import PIXEL_FORMATS
from dual_skd.data.reading.metered import MeteredFile
from dual_skd.data.reading.picture import Picture, ReadOptions, chosen_frame, plane_affine
from dual_skd.data.reading.refusals import (
    DEFLATE_RATIO,
    MAX_FRAMES,
    check_frames,
    check_size,
    check_stored,
    too_many_frames,
)
from dual_skd.errors import InputError

KEPT_MODES = ("L", "LA", "RGB", "RGBA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # others become RGB
DENSITIES = ("dpi", "aspect", "jfif_density")  # pixels per length across and down, as Pillow calls them
MAX_PIXEL_ASPECT = 4.0  # of height and width: beyond it a stated density is taken for a mistake
QUARTER_TURNS = (5, 6, 7, 8)  # values of Orientation in EXIF and TIFF
# tags of TIFF
BITS_PER_SAMPLE, PHOTOMETRIC_INTERPRETATION, ORIENTATION, SAMPLE_FORMAT = 258, 262, 274, 339
TILE_WIDTH, TILE_HEIGHT = 322, 323
RESOLUTIONS = (282, 283)  # across and down
WHITE_IS_ZERO, UNSIGNED = 0, 1  # values of PhotometricInterpretation and SampleFormat


def read_picture(path: Path, options: ReadOptions) -> Picture:
    """Reads a picture, or the pages of a TIFF as frames.

    EXIF orientation is applied, as viewers do. Of the density of pixels only the quotient of both directions counts.
    Palettes, CMYK and bi-level pictures become RGB or grey.
    """
    frame = options.frame
    with opened(path) as image:
        pages = pages_of(image, path)
        if frame is None and pages > 1:
            if options.spatial_dims == 2:
                raise too_many_frames(path, pages)
            layers, heights = zip(*(_page(image, index, path, pages) for index in range(pages)), strict=True)
            if len({layer.shape for layer in layers}) > 1:
                raise InputError(
                    f"{path} has pages of different sizes, which make no volume; give --frame and a number."
                )
            array, height = np.stack(layers, axis=2), heights[0]
        else:
            array, height = _page(image, chosen_frame(0 if frame is None else frame, pages, path), path, 1)
    affine = plane_affine(row=height)
    return Picture(np.ascontiguousarray(array), affine, coloured=array.ndim > (3 if pages > 1 and frame is None else 2))


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture whose header has been read.

    It is an open file, and not a name: a TIFF by its name is mapped into memory, where Pillow doesn't turn it as its
    orientation says.
    """
    with MeteredFile(path) as file, Image.open(file, formats=PIXEL_FORMATS) as image:
        yield image


def pages_of(image: Image.Image, path: Path) -> int:
    """Number of pages of a TIFF, 1 for others; raises InputError for more than can be looked through."""
    if image.format != "TIFF":
        return 1
    for page in range(1, MAX_FRAMES + 1):  # n_frames would take hours for a million
        try:
            image.seek(page)
        except EOFError:
            image.seek(0)
            return page
    check_frames(path, MAX_FRAMES + 1)
    return MAX_FRAMES


def _pixel_height(image: Image.Image) -> float:
    """Height of a pixel, as viewed, divided by its width: the quotient of the pixels per length across and down."""
    stated = next((image.info[name] for name in DENSITIES if name in image.info), (1, 1))
    tags = getattr(image, "tag_v2", None)
    if tags is not None:  # of a TIFF, in whose info Pillow puts 1 where one of the two is missing
        stated = [tags.get(tag) for tag in RESOLUTIONS]
    try:
        across, down = map(float, stated)
    except (TypeError, ValueError):  # none, or no numbers: tags hold anything
        return 1.0
    if not (0 < across < np.inf and 0 < down < np.inf and 1 / MAX_PIXEL_ASPECT <= across / down <= MAX_PIXEL_ASPECT):
        return 1.0
    turned = image.getexif().get(ORIENTATION, 1) in QUARTER_TURNS
    return down / across if turned else across / down


def _decode(image: Image.Image) -> None:
    """Reads the pixels, whose size was checked; the parts of a PNG still count, as chunks may follow its pixels."""
    file = getattr(image, "fp", None)
    with file.unmetered() if isinstance(file, MeteredFile) and image.format != "PNG" else nullcontext():
        image.load()


def _page(image: Image.Image, index: int, path: Path, pages: int) -> tuple[np.ndarray, float]:
    """Values (W, H[, channels]) of a page, and the height of its pixels divided by their width."""
    if index:
        image.seek(index)
    bands = len(image.getbands())
    check_size(path, (*image.size, pages, bands), 4 if image.mode in ("I", "F") else 2)
    # compression of PNG and JPEG has limits; plain TIFF has none of it
    ratio = {"PNG": DEFLATE_RATIO, "JPEG": DEFLATE_RATIO}.get(image.format or "", 0)
    if image.format == "TIFF" and image.info.get("compression") == "raw":
        ratio = 1
    if ratio:
        bits = 1 if image.mode in ("1", "P", "L") else 8  # at least; grey of 1, 2 and 4 bits is opened as 8
        check_stored(path, image.width * image.height * bands * bits // 8, os.path.getsize(path) * ratio)
    tags = getattr(image, "tag_v2", {})
    check_size(path, (tags.get(TILE_WIDTH, 1), tags.get(TILE_HEIGHT, 1), bands), 4)  # a tile is decoded whole
    if image.format in ("JPEG", "MPO"):
        check_scans(path, path.read_bytes(), image.width * image.height * bands)
    unsigned = tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == UNSIGNED
    if not unsigned and tags.get(BITS_PER_SAMPLE, (1,))[0] == 8:  # Pillow takes them for unsigned
        raise InputError(f"{path} has signed values of 8 bits, which can't be read; write it with 16 bits.")
    height = _pixel_height(image)  # while Pillow knows the orientation: it turns a TIFF by itself, and forgets
    _decode(image)
    if image.format == "PNG":  # Pillow leaves rows black that aren't there
        check_stored(path, *png_bytes(path.read_bytes()))
    page = ImageOps.exif_transpose(image)
    if page.mode == "1":
        page = page.convert("L")
    values = np.asarray(page if page.mode in KEPT_MODES else page.convert("RGB")).swapaxes(0, 1)
    if page.mode == "I" and image.format == "TIFF" and unsigned:
        values = values.view(np.uint32)  # Pillow knows 32 bits with a sign only
    if page.mode.startswith("I;16") and tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        values = np.iinfo(np.uint16).max - values  # Pillow does so for eight bits
    return values, height
