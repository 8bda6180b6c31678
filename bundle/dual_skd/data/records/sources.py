# SPDX-License-Identifier: Apache-2.0
"""Reads class folders, a table, a DICOM tree or an .npz file into one kind of row."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from dual_skd.data.demo import DEMO_NAMES
from dual_skd.data.records.class_folders import read_class_folders
from dual_skd.data.records.dicom_tree import key_by_content, key_column, read_dicom_tree
from dual_skd.data.records.labels import LabelWords
from dual_skd.data.records.medmnist import read_medmnist
from dual_skd.data.records.rows import Source
from dual_skd.data.records.table_rows import read_image_table
from dual_skd.data.records.tables import Table, other_names, read_table
from dual_skd.errors import InputError
from dual_skd.options.data import ReadOptions
from dual_skd.utils.spelling import bare
from dual_skd.utils.wording import counted

TABLE_NAMES = ("datalist.csv", "datalist.json", "dataset.json", "labels.csv")
WORKBOOK_NAMES = tuple(f"{name}{end}" for name in ("datalist", "labels") for end in (".xlsx", ".xls", ".ods"))


def read_source(location: Path, options: ReadOptions | None = None, words: LabelWords | None = None) -> Source:
    """Reads a data set in any of its forms.

    Args:
        location: a folder of class folders; a folder with a table of one of :data:`TABLE_NAMES`; a .csv, .tsv or .json
            table of images, or of ids beside a DICOM tree; or an .npz file in MedMNIST's layout.
        options: default: those of a training.
        words: what labels stand for; default: themselves.

    Raises:
        InputError: when the path is absent, holds no images, or a table can't be understood.
    """
    options, words = options or ReadOptions(), words or LabelWords()
    if not location.exists():
        raise InputError(f"The data set {location} does not exist{_near_match(location)}")
    is_npz = location.suffix.lower() == ".npz" and location.is_file()
    table = None if is_npz else find_table(location, options.image_column)
    if table is None:
        for name in filter(lambda name: (location / name).is_file(), WORKBOOK_NAMES):
            read_table(location / name)  # refuses it: labels of the folders' names may not be what is meant
        if location.is_file():
            source = read_medmnist(location, spatial_dims=options.spatial_dims)
        else:
            source = read_class_folders(location, options.spatial_dims)
            source = replace(source, notes=(*source.notes, *_tables_beside(location)))
        source = _named(source, words)
    elif (key := id_column(table)) is not None:
        source = read_dicom_tree(table, key, options, words)
    else:
        source = read_image_table(table, options, words)
    return with_notes_on(words, source, is_table=table is not None)


def with_notes_on(words: LabelWords, source: Source, *, is_table: bool) -> Source:
    """The source with notes on its labels; doubtful ones are those of tables, as a folder "unknown" is a class.

    Raises:
        InputError: see :meth:`LabelWords.notes`.
    """
    doubts = words.doubts(source.description) if is_table else []
    notes = (*source.notes, *words.notes(source.description), *doubts)
    return replace(source, notes=notes, doubts=(*source.doubts, *doubts))


def _tables_beside(folder: Path) -> list[str]:
    """A sentence on tables of other names beside class folders, which aren't read."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
    return [f"{name} is not read, as the folders' names are the labels; give its path if it has them" for name in names]


def _named(source: Source, words: LabelWords) -> Source:
    """The source with the names that labels stand for, without the images of labels that stand for none."""
    rows = []
    for row in source.rows:
        names = tuple(dict.fromkeys(filter(None, map(words.name, row.labels))))
        if names or source.multi_label:
            rows.append(replace(row, labels=names))
    class_names = dict.fromkeys(filter(None, map(words.name, source.class_names)))
    left_out = len(source.rows) - len(rows)
    note = counted(left_out, "image without a label was left out", "images without a label were left out")
    notes = (*source.notes, note) if left_out else source.notes
    return replace(source, rows=tuple(rows), class_names=tuple(class_names), notes=notes)


def find_table(location: Path, image_column: str | None = None) -> Table | None:
    """Reads the table at a path or in a folder; None for a folder without one.

    Raises:
        InputError: the table can't be understood, or a file is no table.
    """
    if location.is_file():
        return read_table(location, image_column)
    for name in TABLE_NAMES:
        if (location / name).is_file():
            table = read_table(location / name, image_column)
            # a labels.csv of another kind doesn't keep class folders from being read
            if name != "labels.csv" or "image" in table.columns or key_column(table) or id_column(table):
                return table
    return None


def id_column(table: Table) -> tuple[str, str] | None:
    """Returns (attribute of a header, column) by which a table without a column of images labels DICOM files, or None.

    A column such as ``filename`` counts as one of images; a ``name`` may be the patient's.
    """
    of_images = [name for name in other_names("image", table.columns) if bare(name) != "name"]
    if "image" in table.columns or of_images:
        return None
    return key_column(table) or key_by_content(table)


def _near_match(location: Path) -> str:
    """The end of a sentence on a missing path, with the most similar neighbour or word for demo data."""
    named = location.name
    parent = location.parent
    while not parent.is_dir() and parent != parent.parent:
        parent, location = parent.parent, parent
    near = difflib.get_close_matches(location.name, [entry.name for entry in parent.iterdir()], n=1, cutoff=0.6)
    if near:
        return f"; did you mean {parent / near[0]}?"
    if word := difflib.get_close_matches(named, DEMO_NAMES, n=1, cutoff=0.7):
        return f"; did you mean {word[0]}, the generated images?"
    return f", and {parent} has nothing of a similar name; give a folder of images, a table of them or an .npz file."
