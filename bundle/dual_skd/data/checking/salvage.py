# SPDX-License-Identifier: Apache-2.0
"""Loads a data set for the check, even one that training refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dual_skd.data.checking.outliers import Oddity
from dual_skd.data.records.datalist import SPLITS, DataList
from dual_skd.data.records.frames import rows_of_frames
from dual_skd.data.records.images_in import existing
from dual_skd.data.records.labels import LabelWords, in_order, record_of, refuse_no_classes
from dual_skd.data.records.patients import rows_with_patients
from dual_skd.data.records.record import Record
from dual_skd.data.records.rows import Source
from dual_skd.data.records.sources import find_table, id_column, read_source, with_notes_on
from dual_skd.data.records.table_images import OutsideError, locate_images
from dual_skd.data.records.table_rows import read_image_table
from dual_skd.data.records.training_records import load_records
from dual_skd.data.records.unknown_patients import unknown_patients
from dual_skd.data.records.unlabelled_records import Found, records_without_labels
from dual_skd.errors import InputError
from dual_skd.options import read
from dual_skd.options.data import DataOptions, ReadOptions
from dual_skd.options.shared import REST
from dual_skd.utils.files import expanded


def load_for_check(dataset_dir: str | Path, **options: Any) -> tuple[DataList, list[Oddity]]:
    """Reads a data set as given: nothing is divided, nothing left out.

    Args:
        dataset_dir: see :func:`dual_skd.data.load_records`.
        options: how images, labels and patients are found, see :func:`dual_skd.data.load_records`.

    Returns:
        (the data set, what was wrong on the way). A set that training refuses has all records that can be made; without
        any, its ``source`` is "".

    Raises:
        InputError: there is nothing at the place of the images without labels.
    """
    whole: dict[str, Any] = {"val_fraction": 0.0, "test_fraction": 0.0, "keep_twins": True, "on_bad_file": None}
    reading = read(DataOptions, options | whole)
    if reading.unlabelled and reading.unlabelled != REST:
        existing(reading.unlabelled)
    try:
        return load_records(dataset_dir, **options, **whole, refuse_shared_patients=False), []
    except InputError as error:
        refusal = Oddity("", "data_set", str(error))
    location = expanded(dataset_dir).absolute()
    try:
        source, missing = _present_part(location, reading)
    except InputError:
        nothing = DataList(location, (), {split: [] for split in SPLITS}, "", spatial_dims=reading.spatial_dims)
        return nothing, [refusal]
    data, others = _records_of(source, reading, dataset_dir)
    # the images behind a refusal explain it, where there are any
    return data, missing + others or [refusal]


def _present_part(location: Path, options: ReadOptions) -> tuple[Source, list[Oddity]]:
    """The source without the entries whose image is missing or outside the folder, and these entries."""
    words = LabelWords(options.class_map)
    table = find_table(location, options.image_column) if location.exists() else None
    if table is None or id_column(table) is not None or "image" not in table.columns:
        return read_source(location, options, words), []
    present, missing = [], []
    for number, entry in enumerate(table.entries, start=1):
        try:
            locate_images(table, [(number, entry)], allow_outside=options.allow_outside)
            present.append(entry)
        except OutsideError as error:
            missing.append(Oddity(str(table.path.parent / str(entry["image"]).strip()), "outside", str(error)))
        except InputError:
            name = str(entry.get("image") or "").strip()
            detail = f"entry {number} of {table.path.name} names a file that isn't there"
            missing.append(Oddity(str(table.path.parent / name), "missing", detail))
    kept = replace(table, entries=present)
    # the entries that are left may be outside, as each was checked
    source = read_image_table(kept, options.model_copy(update={"allow_outside": True}), words)
    return with_notes_on(words, source, is_table=True), missing


def _records_of(source: Source, options: DataOptions, dataset_dir: str | Path) -> tuple[DataList, list[Oddity]]:
    try:
        rows, notes = rows_with_patients(source, options.patient_pattern)
    except InputError:
        rows, notes = list(source.rows), []
    unknown, offered = unknown_patients(rows, source.root, options.patient_pattern)
    rows, of_frames = rows_of_frames(rows, options.frame_in_2d)
    names = source.class_names or tuple(in_order({label for row in rows for label in row.labels}))
    known, oddities = [], []
    try:
        refuse_no_classes(rows, source)
    except InputError as error:
        oddities.append(Oddity("", "data_set", str(error)))
    for row in rows:
        strange = [label for label in row.labels if label not in names]
        if strange:
            detail = f"the label {', '.join(strange)} is none of {', '.join(names)}"
            oddities.append(Oddity(str(row.image), "unknown_label", detail))
        else:
            known.append(replace(row, split=row.split or "train"))
    splits = {split: [record_of(row, names, source) for row in known if row.split == split] for split in SPLITS}
    unlabelled, refused = _without_labels(source, options, splits, dataset_dir)
    data = DataList(
        root=source.root,
        class_names=names,
        splits=splits,
        source=source.description,
        notes=[*source.notes, *notes, *unknown, *of_frames, *unlabelled.notes],
        doubts=[*source.doubts, *offered, *unlabelled.doubts],
        multi_label=source.multi_label,
        spatial_dims=options.spatial_dims,
        ignored=tuple(sorted({*source.ignored} - {record.image for record in unlabelled.records})),
        unlabelled=unlabelled.records,
    )
    return data, oddities + refused


def _without_labels(
    source: Source, options: DataOptions, splits: Mapping[str, Sequence[Record]], dataset_dir: str | Path
) -> tuple[Found, list[Oddity]]:
    """The images without labels; where those of another place are refused, why, and the others."""
    refused: list[Oddity] = []
    for place in dict.fromkeys((options.unlabelled, None)):
        asked = options.model_copy(update={"unlabelled": place})
        try:
            return records_without_labels(source, asked, splits, dataset_dir=dataset_dir), refused
        except InputError as error:
            refused.append(Oddity("", "data_set", str(error)))
    return Found(), refused
