# SPDX-License-Identifier: Apache-2.0
"""The images of a place, whatever their labels."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from dual_skd.data.reading.formats import CONVERTIBLE, NIFTI, NPY, PIXEL_FORMATS, content_of, misnamed
from dual_skd.data.reading.locators import split_locator
from dual_skd.data.records.class_folders import ignored_note
from dual_skd.data.records.image_files import find_image_files, is_image, is_junk
from dual_skd.data.records.medmnist import list_medmnist
from dual_skd.data.records.sources import find_table, id_column, read_source
from dual_skd.data.records.table_images import locate_images
from dual_skd.data.records.tables import TABLE_SUFFIXES, require_columns
from dual_skd.errors import InputError
from dual_skd.utils.files import expanded

logger = logging.getLogger(__name__)

IMAGE_CONTENTS = {
    *PIXEL_FORMATS,
    NIFTI,
    NPY,
    *CONVERTIBLE,
}  # of files that aren't images by their names: these hold one


def images_in(
    place: str | Path, spatial_dims: int = 2, *, image_column: str | None = None, allow_outside: bool = False
) -> list[str]:
    """The locators of all images of a file, a folder at any depth, a table, or an .npz file in MedMNIST's layout.

    Args:
        place: what the user gave; a locator of one image too.
        spatial_dims: 2 for images, 3 for volumes (the slices of a DICOM series in one folder are one).
        image_column, allow_outside: see :func:`dual_skd.data.load_records`.

    Raises:
        InputError: there is no such path, or no image in it.
    """
    location, fragment = existing(place)
    if fragment:
        return [f"{location}#{fragment}"]
    if location.suffix.lower() == ".npz" and location.is_file():
        return list_medmnist(location, spatial_dims=spatial_dims)
    if location.is_dir() or location.suffix.lower() in TABLE_SUFFIXES:
        listed = find_table(location, image_column)
        if listed is not None and id_column(listed):  # labels of the DICOM files beside it
            location = listed.path.parent
        elif listed is not None:
            require_columns(listed, ["image"])
            numbered = list(enumerate(listed.entries, start=1))
            located = locate_images(listed, numbered, allow_outside=allow_outside, keep_missing=True)
            return list(dict.fromkeys(located))
    if location.is_file():
        found = [str(location)] if is_image(location) else []
    else:
        files = find_image_files(location, spatial_dims)
        # a picture of another format, or with an unusual name: reading it says what to do
        unread = [
            file
            for file in files.others
            if not is_junk(os.path.basename(file)) and content_of(Path(file)) in IMAGE_CONTENTS
        ]
        found = sorted([*(file.image for file in files.images), *unread])
        for note in ignored_note(sorted({*files.others} - {*unread}), location):
            logger.warning("%s%s.", note[0].upper(), note[1:])
    if not found:
        if refusal := misnamed(location):
            raise InputError(refusal)
        where = "is not an image" if location.is_file() else "holds no images"
        wanted = "volumes" if spatial_dims == 3 else "images"
        raise InputError(f"{location} {where}; expected {wanted} as PNG, JPEG, TIFF, DICOM, NIfTI or .npy files.")
    return found


def existing(place: str | Path) -> tuple[Path, str]:
    """Path and fragment of a locator; raises InputError where nothing is there."""
    location, fragment = split_locator(expanded(place).absolute())
    if not location.exists():
        read_source(location)  # says so, with the nearest name
    return location, fragment
