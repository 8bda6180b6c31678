# SPDX-License-Identifier: Apache-2.0
"""Reads what a user has (class folders, a table, a DICOM tree, an .npz file) into one kind of row."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from dual_skd.data.records.class_folders import read_class_folders
from dual_skd.data.records.dicom_tree import key_column, read_dicom_tree
from dual_skd.data.records.medmnist import read_medmnist
from dual_skd.data.records.rows import Source
from dual_skd.data.records.tables import Table, bare, other_names, read_image_table, read_table
from dual_skd.errors import InputError

TABLE_NAMES = ("datalist.csv", "datalist.json", "dataset.json", "labels.csv")
WORKBOOK_NAMES = tuple(f"{name}{end}" for name in ("datalist", "labels") for end in (".xlsx", ".xls", ".ods"))


def read_source(
    location: Path,
    *,
    spatial_dims: int = 2,
    label_column: str | Sequence[str] = "label",
    allow_outside: bool = False,
) -> Source:
    """Reads a data set in any of its forms.

    Args:
        location: a folder of class folders; a folder with a table of one of :data:`TABLE_NAMES`; a .csv, .tsv or .json
            table of images, or of ids beside a DICOM tree; or an .npz file in MedMNIST's layout.
        spatial_dims: with 3, the slices of a DICOM series are one image.
        label_column: the column (CSV) or key (JSON) of the label; several names mean one 0/1 column per label.
        allow_outside: take images outside the folder of a table, see :func:`dual_skd.data.load_records`.

    Raises:
        InputError: when the path is absent, holds no images, or a table can't be understood.
    """
    if not location.exists():
        raise InputError(f"The data set {location} does not exist{_near_match(location)}")
    if location.suffix.lower() == ".npz" and location.is_file():
        return read_medmnist(location, spatial_dims=spatial_dims)
    table = find_table(location)
    if table is None:
        for name in filter(lambda name: (location / name).is_file(), WORKBOOK_NAMES):
            read_table(location / name)  # refuses it: labels of the folders' names may not be what is meant
        return read_class_folders(location, spatial_dims)
    key = id_column(table)
    if key is not None:
        return read_dicom_tree(table, key, spatial_dims=spatial_dims, label_column=label_column)
    return read_image_table(table, label_column, allow_outside=allow_outside)


def find_table(location: Path) -> Table | None:
    """Reads the table at a path or in a folder; None for a folder without one.

    Raises:
        InputError: the table can't be understood, or a file is no table.
    """
    if location.is_file():
        return read_table(location)
    for name in TABLE_NAMES:
        if (location / name).is_file():
            table = read_table(location / name)
            # a labels.csv of another kind doesn't keep class folders from being read
            if name != "labels.csv" or "image" in table.columns or key_column(table):
                return table
    return None


def id_column(table: Table) -> tuple[str, str] | None:
    """Returns what :func:`key_column` finds in a table without a column of images, else None.

    A column such as ``filename`` is meant for images too, and labels one of perhaps several files of a patient; a
    ``name`` may be the patient's.
    """
    of_images = [name for name in other_names("image", table.columns) if bare(name) != "name"]
    return None if "image" in table.columns or of_images else key_column(table)


def _near_match(location: Path) -> str:
    """The end of a sentence that names the most similar existing neighbour of a path that doesn't exist."""
    parent = location.parent
    while not parent.is_dir() and parent != parent.parent:
        parent, location = parent.parent, parent
    near = difflib.get_close_matches(location.name, [entry.name for entry in parent.iterdir()], n=1, cutoff=0.6)
    if near:
        return f"; did you mean {parent / near[0]}?"
    return f", and {parent} has nothing of a similar name; give a folder of images, a table of them or an .npz file."
