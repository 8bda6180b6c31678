# SPDX-License-Identifier: Apache-2.0
"""Which images a trained model is measured on, or asked about, and that it has not seen them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dual_skd.data.bad_files import skipped, usable_rows
from dual_skd.data.demo import DEMO_NAMES, of_demo, write_demo
from dual_skd.data.reading.formats import CONVERTIBLE, NIFTI, NPY, PIXEL_FORMATS, content_of, misnamed
from dual_skd.data.reading.locators import expanded, split_locator
from dual_skd.data.records.class_folders import ignored_note
from dual_skd.data.records.datalist import SPLITS, DataList, absent_classes
from dual_skd.data.records.frames import frames_of, rows_of_frames
from dual_skd.data.records.image_files import find_image_files, is_image, is_junk
from dual_skd.data.records.labels import LabelWords, as_option, record_of, refuse_unknown
from dual_skd.data.records.medmnist import list_medmnist
from dual_skd.data.records.patients import rows_with_patients
from dual_skd.data.records.rows import Row, Source, some
from dual_skd.data.records.sources import find_table, id_column, read_source
from dual_skd.data.records.spelling import key_of
from dual_skd.data.records.split_file import load_split
from dual_skd.data.records.table_images import locate_images
from dual_skd.data.records.tables import TABLE_SUFFIXES, require_columns
from dual_skd.data.twins.search import find_twins, leave_out_twins
from dual_skd.errors import InputError
from dual_skd.wording import counted, quoted

logger = logging.getLogger(__name__)

UNREAD = {*PIXEL_FORMATS, NIFTI, NPY, *CONVERTIBLE}  # of files that aren't images by their names: these hold one


def load_evaluation_records(
    trained_on: str | Path,
    dataset_dir: str | Path | None = None,
    *,
    class_names: Sequence[str],
    split: str = "test",
    spatial_dims: int = 2,
    class_map: Mapping[Any, Any] | str | None = None,
    label_column: str | Sequence[str] = "label",
    image_column: str | None = None,
    patient_pattern: str | None = None,
    keep_twins: bool = False,
    twin_search: str = "auto",
    twin_similarity: float = 0.93,
    on_bad_file: str = "error",
    frame: int | str | None = None,
    allow_outside: bool = False,
) -> DataList:
    """Returns the images to evaluate on, under ``splits[split]``, and those with a twin in training in ``left_out``.

    Without ``dataset_dir``, or with one that holds all that the model was trained on, these are the images of ``split``
    as the training run divided them. Any other data set is external: its test split where it has one, else all its
    images, less the training and validation images of the run themselves and those with a twin among them.

    Args:
        trained_on: ``datalist.json`` in the ``output_dir`` of the training run.
        dataset_dir: another data set, in any form that training takes.
        class_names: the model's classes; the labels have to be among them, numbers too.
        split: "test" or "val".
        spatial_dims: 2 for images, 3 for volumes.
        class_map: label as it stands in these data -> class name, see :func:`dual_skd.data.load_records`. That of the
            run holds for the run's own data only.
        label_column, image_column: see :func:`dual_skd.data.load_records`.
        patient_pattern: see :func:`dual_skd.data.load_records`.
        keep_twins: keep external images with a twin in the run's training data.
        twin_search, twin_similarity: see :func:`dual_skd.data.load_records`.
        on_bad_file: what becomes of bad files of an external set, see :func:`dual_skd.data.load_records`.
        frame: which frames of its files are taken, see :func:`dual_skd.data.load_records`.
        allow_outside: where images of a table may lie, see :func:`dual_skd.data.load_records`.

    Raises:
        InputError: there are no such images, or they share patients with the training data.
    """
    trained = load_split(trained_on)
    if trained.class_names != tuple(class_names):
        raise InputError(
            f"The model's classes are {', '.join(class_names)}, those of the run in {Path(trained_on).parent} "
            f"{', '.join(trained.class_names)}: it isn't the model of that run; give --output_dir of a finished run."
        )
    if split not in SPLITS[1:]:
        raise InputError(f"split is {split!r}; evaluate on 'test' or 'val'.")
    if dataset_dir is None or str(dataset_dir) in DEMO_NAMES:
        if dataset_dir is not None:
            _refuse_demo(trained, trained_on)
        return _own_images(trained, split)
    names = trained.class_names
    given = class_map is not None
    words = LabelWords(class_map if given else trained.class_map, names, given=given)
    source = read_source(
        expanded(dataset_dir).absolute(),
        spatial_dims=spatial_dims,
        label_column=label_column,
        image_column=image_column,
        words=words,
        allow_outside=allow_outside,
    )
    if _holds(source, trained.train):
        return _own_images(trained, split)
    if not given and words.used:
        raise InputError(
            f"{source.description} isn't the data of this run, and has labels that the run's class_map names; if they "
            f"mean the same here, say so: {as_option(words.used)}."
        )
    refuse_unknown(source, names, words.class_map if words.given else None)
    if source.multi_label and not trained.multi_label:
        raise InputError(
            f"{source.description} has images with several labels, but this model gives one; give one label per image."
        )
    source = replace(source, multi_label=trained.multi_label)
    divided = any(row.split for row in source.rows)
    rows, of_patients = rows_with_patients(source, patient_pattern)
    rows, of_frames = rows_of_frames(
        (row for row in rows if row.split == split or not divided), frame if spatial_dims == 2 else None
    )
    rows, unusable = usable_rows(rows, spatial_dims=spatial_dims, on_bad_file=on_bad_file, dataset_dir=dataset_dir)
    records = [record_of(row, names, source) for row in rows]
    if not records:
        raise InputError(f"{source.description} has splits but no {split} images; add some or choose another split.")
    seen = trained.train + trained.val
    _refuse_known_patients(rows, seen, source)
    notes = [*source.notes, *of_patients, *of_frames, *skipped(unusable)]
    records = _new(records, seen, source, notes)
    finder = None
    left_out: list[dict] = []
    if not keep_twins:
        finder = find_twins(
            [record["image"] for record in records + seen],
            spatial_dims=spatial_dims, search=twin_search, dataset_dir=dataset_dir, notes=notes,
        )  # fmt: skip
    if finder is not None:
        records = leave_out_twins(
            finder, records, seen, similarity=twin_similarity, split=split, notes=notes, left_out=left_out
        )
    data = replace(
        trained,
        root=source.root,
        splits={**{name: [] for name in SPLITS}, split: records},
        source=source.description,
        notes=notes,
        doubts=list(source.doubts),
        class_map=words.used,
        left_out=left_out,
        twins_searched=finder is not None,
        ignored=source.ignored,
        unusable=unusable,
    )
    notes += absent_classes(data)
    return data


def _refuse_known_patients(rows: Sequence[Row], seen: Sequence[dict], source: Source) -> None:
    """Raises :class:`InputError` when a patient, in any spelling, is among those that the model was trained on."""
    trained = {key_of(record["patient"]): record["patient"] for record in seen if record["patient"]}
    here = {row.patient: trained[key_of(row.patient)] for row in rows if key_of(row.patient) in trained}
    if here:
        people = [name if name == known else f"{name}, there {known}" for name, known in sorted(here.items())]
        those = f"(for example {some(people)})"
        raise InputError(
            f"{source.description}: {counted(len(here), f'patient {those} was', f'patients {those} were')} in the "
            "training data of this model; remove their images, or, if they are other people, rename the ids or pass "
            'over those of DICOM headers and folders with patient_pattern "".'
        )


def _holds(source: Source, records: Sequence[dict]) -> bool:
    """Tells whether a source has the images of all records, or the files and series that they are frames of."""
    listed = {_real(row.image) for row in source.rows}
    paths = {path for path, _ in listed}
    images = (_real(record["image"]) for record in records)
    return all(
        (path, fragment) in listed or (path, "") in listed or os.path.dirname(path) in paths
        for path, fragment in images
    )


def _real(image: str) -> tuple[str, str]:
    """Path, with links followed, and fragment of a locator: one image may be reached in several ways."""
    path, fragment = split_locator(image)
    return os.path.realpath(path), fragment


def _new(records: list[dict], seen: Sequence[dict], source: Source, notes: list[str]) -> list[dict]:
    """The records whose files the model wasn't trained on; options of twins decide on copies alone."""
    known = {_real(record["image"]) for record in seen}
    own: list[str] = []
    new: list[dict] = []
    for record in records:
        if _real(record["image"]) in known:
            own.append(record["image"])
        else:
            new.append(record)
    if not new:
        raise InputError(f"{source.description} has only images that this model was trained on; give others.")
    if own:
        seen_before = ("image was left out, as this model was trained on it",
                       "images were left out, as this model was trained on them")  # fmt: skip
        notes.append(f"{counted(len(own), *seen_before)}, for example {some(own)}")
    return new


def find_images(
    dataset_dir: str | Path,
    spatial_dims: int = 2,
    demo_dir: str | Path = "demo",
    frame: int | str | None = None,
    *,
    trained_on: str | Path | None = None,
    image_column: str | None = None,
    allow_outside: bool = False,
) -> list[str]:
    """Returns the locators of all images to predict: labels, where there are any, are not used.

    Args:
        dataset_dir: an image (or one series or frame: see :mod:`dual_skd.data.reading.locators`), a folder with images
            at any depth, a table of images, an .npz file in MedMNIST's layout, or "demo" for the demo's test images.
        spatial_dims: 2 for images, 3 for volumes (the slices of a DICOM series in one folder are one).
        demo_dir: where "demo" data are written.
        frame: which frames of files with several a 2D task takes, see :func:`dual_skd.data.load_records`.
        trained_on: ``datalist.json`` of the model's run, if there is one: with other data than the demo's, "demo" is
            refused; and other data than the demo's, where the run was given none of its own.
        image_column: of a table, see :func:`dual_skd.data.load_records`.
        allow_outside: where images of a table may lie, see :func:`dual_skd.data.load_records`.

    Raises:
        InputError: there is no such path, or no image in it.
    """
    if trained_on is not None and Path(trained_on).is_file():
        if str(dataset_dir) in DEMO_NAMES:
            _refuse_demo(load_split(trained_on), trained_on)
        elif not of_demo(dataset_dir):
            _refuse_patients(Path(trained_on), Path(demo_dir), dataset_dir)
    found = _find_images(dataset_dir, spatial_dims, demo_dir, image_column, allow_outside)
    return [image for images in frames_of(found, frame if spatial_dims == 2 else None) for image in images]


def _find_images(
    dataset_dir: str | Path, spatial_dims: int, demo_dir: str | Path, image_column: str | None, allow_outside: bool
) -> list[str]:
    if str(dataset_dir) in DEMO_NAMES:
        table = write_demo(Path(demo_dir), spatial_dims=DEMO_NAMES[str(dataset_dir)])
        return [row.image for row in read_source(table).rows if row.split == "test"]
    location, fragment = split_locator(expanded(dataset_dir).absolute())
    if not location.exists():
        read_source(location)  # says so, with the nearest name
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
        # a picture of another format, or under a name that says nothing: whoever reads it says what to do
        unread = [
            file for file in files.others if not is_junk(os.path.basename(file)) and content_of(Path(file)) in UNREAD
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


def paths_of(records: Sequence[dict]) -> list[str]:
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
    return replace(trained, left_out=[record for record in trained.left_out if record.get("split") == split])


def _refuse_patients(trained_on: Path, demo_dir: Path, dataset_dir: str | Path) -> None:
    """The default output folder holds the run of the first command, which knows phantoms only."""
    from dual_skd.evaluation.recorder import read_json  # here, since looking through a data set does without

    first = (read_json(trained_on).get("training") or [{"image": ""}])[0]["image"]
    if Path(first).is_relative_to(demo_dir.absolute()):
        raise InputError(
            f"The model in {trained_on.parent} was trained on the demo's generated images and knows nothing of "
            f"{dataset_dir}; give --output_dir of a run on images of that kind. To see what it says all the same: "
            f"dual-skd predict {quoted(dataset_dir)} --model {quoted(trained_on.parent)}"
        )


def _refuse_demo(trained: DataList, trained_on: str | Path) -> None:
    if not of_demo(trained.train[0]["image"]):
        raise InputError(
            f"The model in {Path(trained_on).parent} wasn't trained on the demo data; give images of the kind that it "
            "was trained on as --dataset_dir."
        )
