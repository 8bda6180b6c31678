# SPDX-License-Identifier: Apache-2.0
"""Reads a tree of DICOM files with a table that labels patients, studies or series by their ids."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dual_skd.data.records.class_folders import ignored_note, single_slice_note
from dual_skd.data.records.image_files import ImageFile, headers_of, is_dicom, list_files, volumes
from dual_skd.data.records.labels import LabelWords
from dual_skd.data.records.rows import Row, Source, cell_text, first_few
from dual_skd.data.records.table_rows import labelled_entries, refuse_contradiction
from dual_skd.data.records.tables import Table, require_columns
from dual_skd.errors import InputError
from dual_skd.options.data import ReadOptions
from dual_skd.options.shared import REST
from dual_skd.utils.spelling import bare, key_of, known_patient
from dual_skd.utils.wording import counted

if TYPE_CHECKING:
    from dual_skd.data.reading.dicom_header import Header
    from dual_skd.data.records.dicom_ids import Ids

logger = logging.getLogger(__name__)

# attribute of a header -> how a column of its ids may be called, finest first
ID_COLUMNS = {
    "series": ("seriesinstanceuid", "seriesuid"),
    "study": ("studyinstanceuid", "studyuid"),
    "patient": ("patientid", "patient"),
}
SAMPLED_FILES = 64  # files whose ids tell which column has them


def key_column(table: Table) -> tuple[str, str] | None:
    """Returns (attribute of a header, column) that a table labels DICOM files by, or None; the finest id wins."""
    columns = {bare(name): name for name in table.columns}
    for attribute, names in ID_COLUMNS.items():
        for name in names:
            if name in columns:
                return attribute, columns[name]
    return None


def key_by_content(table: Table) -> tuple[str, str] | None:
    """Returns the same for a table whose column of ids has another name: it has most ids of the files, or None.

    Raises:
        InputError: several columns have them.
    """
    files = [file for file in list_files(table.path.parent)[0] if is_dicom(file)]
    if not files:
        return None
    headers = headers_of(files[:: -(-len(files) // SAMPLED_FILES)], only_ids=True)[0]
    words = {name: {key_of(cell_text(entry.get(name))) for entry in table.entries} for name in table.columns}
    for attribute in ID_COLUMNS:
        ids = {key_of(known_patient(getattr(header, attribute))) for header in headers} - {""}
        found = [name for name, cells in words.items() if ids and 2 * len(ids & cells) > len(ids)]
        if len(found) > 1:
            raise InputError(
                f"{table.path} has several columns with the {attribute} ids of the DICOM files beside it "
                f"({', '.join(found)}); rename the right one to {ID_COLUMNS[attribute][0]}."
            )
        if found:
            return attribute, found[0]
    return None


def read_dicom_tree(table: Table, key: tuple[str, str], options: ReadOptions, words: LabelWords) -> Source:
    """Gives every DICOM file (2D) or series (3D) beside a table the label that the table has for its id.

    Args:
        table: in the folder that holds the DICOM files, at any depth.
        key: from :func:`key_column`.
        options: with ``spatial_dims``, ``label_column`` and ``unlabelled``.
        words: what labels stand for.

    Raises:
        InputError: entries contradict each other, or no file matches any of them.
    """
    attribute, column = key
    root = table.path.parent
    files, others = list_files(root)
    dicom = [file for file in files if is_dicom(file)]
    if not dicom:  # so the table names no patients of DICOM files, but images of another kind
        require_columns(table, ["image"])
    labelled = labelled_entries(table, options, words)
    by_id = _rows_by_id(table, column, labelled.entries)
    asked = _rows_by_id(table, column, labelled.unlabelled)
    ignored = [file for file in [*others, *set(files).difference(dicom)] if Path(file) != table.path]
    logger.debug("Reading the headers of %d DICOM files in %s.", len(dicom), root)
    headers, broken, no_images = headers_of(dicom, only_ids=options.spatial_dims == 2)
    images, single_slices = _images(headers, options.spatial_dims)
    ignored += no_images
    rows: list[Row] = []
    to_use: list[Row] = []
    unlabelled: list[str] = []
    for image, header in images:
        identity = key_of(getattr(header, attribute))
        if identity in by_id:
            rows.append(replace(by_id[identity][1][1], image=image.image, header=header.patient))
        elif identity in asked or options.unlabelled == REST:
            row = asked[identity][1][1] if identity in asked else Row("", ())
            to_use.append(replace(row, image=image.image, header=header.patient))
        else:
            unlabelled.append(image.image)
    if not rows:
        found = f"the files have, for example, {getattr(images[0][1], attribute)!r}" if images else "there are none"
        raise InputError(
            f"No DICOM image below {root} has a {column} of {table.path.name}: the table has, for example, "
            f"{next(iter(by_id.values()))[0]!r}, {found}; correct the ids or the folder."
        )
    matched = {key_of(getattr(header, attribute)) for _, header in images}
    unmatched = [written for identity, (written, _) in by_id.items() if identity not in matched]
    notes = [*labelled.notes, *ignored_note(ignored, root), *single_slice_note(single_slices)]
    notes += _notes(table, broken, unmatched, len(by_id), unlabelled)
    return Source(
        root=root,
        description=f"DICOM files in {root}, labelled by {column} in {table.path.name}",
        rows=tuple(rows),
        class_names=labelled.class_names,
        multi_label=labelled.multi_label,
        notes=tuple(notes),
        ignored=tuple(ignored + single_slices + unlabelled + [file for file, _ in broken]),
        unlabelled=tuple(to_use),
    )


def _notes(
    table: Table, broken: Sequence[tuple[str, InputError]], unmatched: list[str], ids: int, unlabelled: list[str]
) -> list[str]:
    """Sentences on files that can't be read, ids without files, and images without a label."""
    notes, name = [], table.path.name
    if broken:
        unread = counted(len(broken), "DICOM file can't be read and was", "DICOM files can't be read and were")
        notes.append(f"{unread} left out: {broken[0][1]}".rstrip("."))
    if unmatched:
        notes.append(
            f"{len(unmatched)} of {ids} ids in {name} match no DICOM image, for example {first_few(unmatched)}"
        )
    if unlabelled:
        names = [os.path.relpath(image, table.path.parent) for image in sorted(unlabelled)]
        of = f"without a label in {name}"
        subject = counted(len(names), f"DICOM image {of} was", f"DICOM images {of} were")
        notes.append(f"{subject} left out, for example {first_few(names)}")
    return notes


def _rows_by_id(
    table: Table, column: str, entries: Sequence[tuple[int, dict, Row]]
) -> dict[str, tuple[str, tuple[int, Row]]]:
    """Key of an id -> (the id as the table has it, (number of the entry, its row))."""
    by_id: dict[str, tuple[str, tuple[int, Row]]] = {}
    for number, entry, row in entries:
        identity = cell_text(entry.get(column))
        if not known_patient(identity):
            found = f"{identity!r}, which names nobody" if identity else "empty"
            raise InputError(f"{table.path}, entry {number}: the {column} is {found}; fill it in or remove the entry.")
        _, before = by_id.setdefault(key_of(identity), (identity, (number, row)))
        refuse_contradiction(f"{table.path} has the {column} {identity} twice", before, (number, row))
    return by_id


def _images(headers: list[Header | Ids], spatial_dims: int) -> tuple[list[tuple[ImageFile, Header | Ids]], list[str]]:
    """(every image with a header of it, single slices that were left out in 3D)."""
    if spatial_dims == 2:
        return [(ImageFile(header.path, header.patient), header) for header in headers], []
    found, single_slices = volumes(headers)
    of_locator: dict[str, Header | Ids] = {}
    for header in headers:
        folder = os.path.dirname(header.path)
        for locator in (header.path, folder, f"{folder}#{header.series}"):
            of_locator.setdefault(locator, header)
    return [(image, of_locator[image.image]) for image in found], single_slices
