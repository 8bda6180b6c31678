# SPDX-License-Identifier: Apache-2.0
"""The images that a trained model is measured on: its own test images, or an external data set that it hasn't seen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dual_skd.data.demo import DEMO_NAMES
from dual_skd.data.reading.locators import real_place
from dual_skd.data.records.asked_images import refuse_demo
from dual_skd.data.records.bad_files import usable_rows
from dual_skd.data.records.datalist import SPLITS, DataList
from dual_skd.data.records.labels import LabelWords, as_option, record_of, refuse_unknown
from dual_skd.data.records.near_duplicate_filter import NearDuplicateFilter
from dual_skd.data.records.patients import rows_with_patients
from dual_skd.data.records.record import Record
from dual_skd.data.records.rows import Row, Source, first_few
from dual_skd.data.records.sources import read_source
from dual_skd.data.records.split_file import load_split
from dual_skd.errors import InputError
from dual_skd.options import read
from dual_skd.options.data import ReadOptions
from dual_skd.utils.files import expanded
from dual_skd.utils.spelling import key_of
from dual_skd.utils.wording import check_command, counted


def load_evaluation_records(
    trained_on: str | Path,
    dataset_dir: str | Path | None = None,
    *,
    class_names: Sequence[str],
    split: str = "test",
    **options: Any,
) -> DataList:
    """Returns the images to evaluate on, under ``splits[split]``, and those with a twin in training in ``left_out``.

    Without ``dataset_dir``, or with one that holds all that the model was trained on, these are the images of ``split``
    as the training run divided them. Any other data set is external: its test split where it has one, else all its
    images, less the training and validation images of the run themselves, labelled or not, and those with a twin among
    them.

    Args:
        trained_on: ``datalist.json`` in the ``output_dir`` of the training run.
        dataset_dir: another data set, in any form that training takes.
        class_names: the model's classes; the labels have to be among them, numbers too.
        split: "test" or "val".
        options: of an external data set, see docs/options.md: ``spatial_dims``, ``frame``, ``label_column``,
            ``class_map``, ``image_column``, ``allow_outside``, ``patient_pattern``, ``keep_twins``, ``twin_search``,
            ``twin_similarity``, ``on_bad_file``. The class map of the run holds for the run's own data only.

    Raises:
        InputError: there are no such images, or they share patients with the training data.
    """
    asked = read(ReadOptions, options)
    trained = load_split(trained_on)
    if trained.class_names != tuple(class_names):
        raise InputError(
            f"The model's classes are {', '.join(class_names)}, those of the run in {Path(trained_on).parent} "
            f"{', '.join(trained.class_names)}: it isn't the model of that run; give the folder of a finished run "
            "as output_dir."
        )
    if split not in SPLITS[1:]:
        raise InputError(f"split is {split!r}; evaluate on 'test' or 'val'.")
    if dataset_dir is None:
        return _own_images(trained, split)
    if str(dataset_dir) in DEMO_NAMES:
        refuse_demo(trained, trained_on)
        return _own_images(trained, split)
    given = asked.class_map is not None
    words = LabelWords(asked.class_map if given else trained.class_map, trained.class_names, given=given)
    source = read_source(expanded(dataset_dir).absolute(), asked, words)
    if _holds(source, trained.train):
        return _own_images(trained, split)
    _refuse_other_labels(source, words, trained)
    external = replace(source, multi_label=trained.multi_label)
    return replace(_external_images(external, split, trained, asked, dataset_dir), class_map=words.used)


def _refuse_other_labels(source: Source, words: LabelWords, trained: DataList) -> None:
    """Raises :class:`InputError` for labels of an external data set that the model doesn't answer with."""
    if not words.given and words.used:
        raise InputError(
            f"{source.description} isn't the data of this run, and has labels that the run's class_map names; if they "
            f"mean the same here, say so: {as_option(words.used)}."
        )
    refuse_unknown(source, trained.class_names, words.class_map if words.given else None)
    if source.multi_label and not trained.multi_label:
        raise InputError(
            f"{source.description} has images with several labels, but this model gives one; give one label per image."
        )


def _external_images(
    source: Source, split: str, trained: DataList, options: ReadOptions, dataset_dir: str | Path
) -> DataList:
    """The images of an external data set that are new to the model, less near duplicates of its training images."""
    divided = any(row.split for row in source.rows)
    rows, of_patients = rows_with_patients(source, options.patient_pattern)
    rows = [row for row in rows if row.split == split or not divided]
    rows, unusable, of_files = usable_rows(rows, options, dataset_dir)
    if not rows:
        raise InputError(f"{source.description} has splits but no {split} images; add some or choose another split.")
    seen = trained.train + trained.val + trained.unlabelled
    _refuse_known_patients(rows, seen, source)
    notes = [*source.notes, *of_patients, *of_files]
    records = _new([record_of(row, trained.class_names, source) for row in rows], seen, source, notes)
    images = [record.image for record in records + seen]
    copies = NearDuplicateFilter(images, options, check_command(dataset_dir), notes)
    records = copies.without_copies(records, seen, split)
    data = replace(
        trained,
        root=source.root,
        splits={**{name: [] for name in SPLITS}, split: records},
        source=source.description,
        notes=notes,
        doubts=list(source.doubts),
        left_out=copies.left_out,
        twins_searched=copies.searched,
        ignored=source.ignored,
        unusable=unusable,
    )
    notes += data.absent_classes()
    return data


def _refuse_known_patients(rows: Sequence[Row], seen: Sequence[Record], source: Source) -> None:
    """Raises :class:`InputError` when a patient, in any spelling, is among those that the model was trained on."""
    trained = {key_of(record.patient): record.patient for record in seen if record.patient}
    here = {row.patient: trained[key_of(row.patient)] for row in rows if key_of(row.patient) in trained}
    if here:
        people = [name if name == known else f"{name}, there {known}" for name, known in sorted(here.items())]
        those = f"(for example {first_few(people)})"
        raise InputError(
            f"{source.description}: {counted(len(here), f'patient {those} was', f'patients {those} were')} in the "
            "training data of this model; remove their images, or, if they are other people, rename the ids or pass "
            'over those of DICOM headers and folders with --patient-pattern "".'
        )


def _holds(source: Source, records: Sequence[Record]) -> bool:
    """Tells whether a source has the images of all records, or the files and series that they are frames of."""
    listed = {real_place(row.image) for row in source.rows}
    paths = {path for path, _ in listed}
    images = (real_place(record.image) for record in records)
    return all(
        (path, fragment) in listed or (path, "") in listed or os.path.dirname(path) in paths
        for path, fragment in images
    )


def _new(records: list[Record], seen: Sequence[Record], source: Source, notes: list[str]) -> list[Record]:
    """The records of files that the model wasn't trained on."""
    known = {real_place(record.image) for record in seen}
    own: list[str] = []
    new: list[Record] = []
    for record in records:
        if real_place(record.image) in known:
            own.append(record.image)
        else:
            new.append(record)
    if not new:
        raise InputError(f"{source.description} has only images that this model was trained on; give others.")
    if own:
        seen_before = ("image was left out, as this model was trained on it",
                       "images were left out, as this model was trained on them")  # fmt: skip
        notes.append(f"{counted(len(own), *seen_before)}, for example {first_few(own)}")
    return new


def paths_of(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the images of records, in order."""
    return [record["image"] for record in records]


def patients_of(records: Sequence[Mapping]) -> dict[str, str]:
    """Returns the patient of each image of records, "" where it isn't known."""
    return {record["image"]: str(record.get("patient") or "") for record in records}


def _own_images(trained: DataList, split: str) -> DataList:
    if not trained.splits[split]:
        raise InputError(
            f"The data of this run has no {split} images; give another data set as --dataset_dir, "
            "or --split val for the images that chose the model (an optimistic number)."
        )
    return replace(trained, left_out=[record for record in trained.left_out if record.split == split])
