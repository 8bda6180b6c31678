# SPDX-License-Identifier: Apache-2.0
"""The images without labels of a training run: found, read, and kept apart from validation and test images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dual_skd.data.demo import DEMO_NAMES
from dual_skd.data.reading.locators import real_place, split_locator
from dual_skd.data.records.bad_files import usable_rows
from dual_skd.data.records.images_in import images_in
from dual_skd.data.records.near_duplicate_filter import NearDuplicateFilter
from dual_skd.data.records.patients import rows_with_patients, with_pattern
from dual_skd.data.records.record import LeftOut, Record
from dual_skd.data.records.rows import SPLIT_WORDS, UNLABELLED, Row, Source, cell_text, first_few
from dual_skd.data.records.sources import find_table, id_column, read_source
from dual_skd.data.records.table_images import locate_images
from dual_skd.data.records.tables import TABLE_SUFFIXES, Table, other_names
from dual_skd.errors import InputError
from dual_skd.options.data import DataOptions, ReadOptions
from dual_skd.options.shared import REST
from dual_skd.utils.files import expanded
from dual_skd.utils.spelling import key_of, known, known_patient
from dual_skd.utils.wording import check_command, counted

HELD_OUT = ("val", "test")
ALL_KNOWN = (
    "Each image without a label is a training, validation or test image, a copy of one, or of the same patient; give "
    "others, or none."
)


@dataclass(frozen=True)
class Found:
    """The images without labels that a run uses, and what became of the others.

    Args:
        records: without labels.
        left_out: near duplicates of validation and test images.
        unusable: "image", "problem" and "remedy" of files that were skipped.
        notes: decisions in plain sentences.
        doubts: those that the user should look at.
    """

    records: list[Record] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    unusable: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def records_without_labels(
    source: Source,
    options: DataOptions,
    splits: Mapping[str, Sequence[Record]],
    rest: Sequence[Record] = (),
    *,
    dataset_dir: str | Path,
) -> Found:
    """Finds the images without labels, and leaves out those that validation or test know.

    These are images of ``source.unlabelled``, of the place that the option ``unlabelled`` names, and ``rest``. Left out
    are images that are in a split already, all images of patients of the validation and test images, and near
    duplicates of those images. So the validation and test sets are the same with and without them.

    Args:
        source: the data set with labels.
        options: with ``unlabelled`` and how images are read and compared.
        splits: "train", "val" and "test" -> records.
        rest: training images that aren't used with their labels; taken if the option asks for the rest.
        dataset_dir: what the user gave, for remedies.

    Raises:
        InputError: images are asked for, and none can be used; of the rest there may be none.
    """
    place = None if options.unlabelled in (None, REST) else str(options.unlabelled)
    strange = _rows_of_place(place, options) if place else []
    given = [*source.unlabelled, *strange]
    found = Found()
    if given:
        found.records.extend(_read(source.unlabelled, strange, source, options, dataset_dir, found))
    if options.unlabelled == REST:
        found.records.extend(record.without_label() for record in rest)
    candidates = len(found.records)
    _keep(found, _new(found.records, splits))
    _keep(found, _of_other_patients(found.records, splits, found.notes))
    leave_out_copies(found, splits, options, dataset_dir)
    if options.unlabelled == REST and not candidates:
        found.doubts.append(
            f"{source.description} has a label for every image, and train_fraction leaves none out, so there is no "
            "rest: only labelled images are used"
        )
    elif not found.records and (options.unlabelled or given):
        where = f"{options.unlabelled or source.description} has no image without a label that can be used."
        raise InputError(ALL_KNOWN if candidates else where)
    return found


def _keep(found: Found, records: list[Record]) -> None:
    found.records[:] = records


def _rows_of_place(place: str, options: DataOptions) -> list[Row]:
    """The images of a folder, a table or a file; those that it calls validation or test images are passed over."""
    if place in DEMO_NAMES:
        raise InputError(
            f"unlabelled is {place}, whose images all have labels; to try images without labels, use --unlabelled "
            f"{REST} --train-fraction 0.2, or give a folder of images."
        )
    location = expanded(place).absolute()
    table = None
    if location.is_dir() or (location.is_file() and location.suffix.lower() in TABLE_SUFFIXES):
        table = find_table(location, options.image_column)
    if table is not None and "image" in table.columns:
        return _rows_of_table(table, options)
    if table is not None and (key := id_column(table)) is not None:
        return _rows_of_dicom_tree(location, key[1], options)
    images = images_in(
        place, options.spatial_dims, image_column=options.image_column, allow_outside=options.allow_outside
    )
    rows = [Row(image, (), UNLABELLED) for image in images]
    return [row for row in rows if _split_in_path(str(location), row.image) not in HELD_OUT]


def _split_in_path(root: str, image: str) -> str:
    """The split that the first folder below a root, or the section of an .npz file, is named after; "" for none."""
    path, fragment = split_locator(image)
    first = fragment.split("/")[0] if "/" in fragment else os.path.relpath(path, root).split(os.sep)[0]
    return SPLIT_WORDS.get(key_of(first), "")


def _rows_of_table(table: Table, options: DataOptions) -> list[Row]:
    """The rows of a table of images: their patients and sites, and no labels."""
    columns = {name: _column(name, table) for name in ("patient", "site", "split")}
    numbered, rows = [], []
    for number, entry in enumerate(table.entries, start=1):
        cells = {name: cell_text(entry.get(column)) for name, column in columns.items()}
        if SPLIT_WORDS.get(key_of(cells["split"])) not in HELD_OUT:
            numbered.append((number, entry))
            rows.append(Row("", (), UNLABELLED, known_patient(cells["patient"]), known(cells["site"])))
    located = locate_images(table, numbered, allow_outside=options.allow_outside)
    return [replace(row, image=image) for row, image in zip(rows, located, strict=True)]


def _rows_of_dicom_tree(location: Path, column: str, options: DataOptions) -> list[Row]:
    """The DICOM files beside a table of ids, listed there or not; the ids stand in for labels, which aren't needed."""
    as_labels = options.model_copy(update={"label_column": column, "unlabelled": REST})
    source = read_source(location, as_labels)
    rows = [replace(row, labels=(), split=row.split or UNLABELLED) for row in (*source.rows, *source.unlabelled)]
    return [row for row in rows if row.split not in HELD_OUT]


def _column(name: str, table: Table) -> str:
    return name if name in table.columns else next(iter(other_names(name, table.columns)), name)


def _read(
    inside: Sequence[Row],
    strange: Sequence[Row],
    source: Source,
    options: DataOptions,
    dataset_dir: str | Path,
    found: Found,
) -> list[Record]:
    """The records of the images that can be used, with their patients: those of the data set, and of another place."""
    pattern = options.patient_pattern
    if pattern:
        own = _by_pattern([*source.rows, *inside], source.root, pattern)
        source, inside = replace(source, rows=tuple(own[: len(source.rows)])), own[len(source.rows) :]
        if strange:
            stated = any(row.patient for row in strange)
            strange = _by_pattern(strange, expanded(str(options.unlabelled)).absolute().parent, pattern)
            count = sum(bool(row.patient) for row in strange)
            matched = count > 0 and not stated
            if not stated:
                found.notes.append(f"the pattern finds a patient in {count} of {len(strange)} images without labels")
        else:
            matched = any(row.patient for row in inside)
        pattern = "" if matched else None  # a strange place may have patients by other rules
    rows = [*inside, *strange]
    together = replace(source, rows=(*source.rows, *rows))  # so that one patient has one name
    known_rows, _ = rows_with_patients(together, pattern)
    wanted = {row.image for row in rows}
    usable, unusable, notes = usable_rows(
        [row for row in known_rows if row.image in wanted and not row.labels], options, dataset_dir
    )
    found.unusable.extend(unusable)
    found.notes.extend(notes)
    return [Record(row.image, None, row.patient, row.site) for row in usable]


def _by_pattern(rows: Sequence[Row], root: Path, pattern: str) -> list[Row]:
    """The rows of one place, with the patients of a pattern unless the place names some itself."""
    return list(rows) if any(row.patient for row in rows) else with_pattern(rows, root, pattern)


def _new(records: Sequence[Record], splits: Mapping[str, Sequence[Record]]) -> list[Record]:
    """The records of images that are in no split, each once; links are followed."""
    seen = {real_place(record.image) for members in splits.values() for record in members}
    new = []
    for record in records:
        place = real_place(record.image)
        if place not in seen:
            seen.add(place)
            new.append(record)
    return new


def _of_other_patients(
    records: Sequence[Record], splits: Mapping[str, Sequence[Record]], notes: list[str]
) -> list[Record]:
    """The records of patients who have no validation and test images."""
    held_out = _patients(record for split in HELD_OUT for record in splits[split])
    shared = [record for record in records if record.patient and key_of(record.patient) in held_out]
    if shared:
        people = sorted({record.patient for record in shared})
        subject = counted(len(shared), "image without a label was", "images without labels were")
        notes.append(
            f"{subject} left out, as {counted(len(people), 'patient')} of them (for example {first_few(people)}) "
            "have validation or test images"
        )
    dropped = set(map(id, shared))
    return [record for record in records if id(record) not in dropped]


def _patients(records: Iterable[Record]) -> set[str]:
    return {key_of(record.patient) for record in records if record.patient}


def leave_out_copies(
    found: Found, splits: Mapping[str, Sequence[Record]], options: ReadOptions, dataset_dir: str | Path
) -> None:
    """Leaves out near duplicates of validation and test images."""
    held_out = [record for split in HELD_OUT for record in splits[split]]
    if not found.records or not held_out:
        return
    images = [record.image for record in [*found.records, *held_out]]
    copies = NearDuplicateFilter(images, options, check_command(dataset_dir, options.unlabelled), found.notes)
    _keep(found, copies.without_copies(found.records, held_out, UNLABELLED, among="the validation and test images"))
    found.left_out.extend(copies.left_out)
