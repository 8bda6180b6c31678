# SPDX-License-Identifier: Apache-2.0
"""From a path to lists of records: which image, which label, which split."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dual_skd.data.demo import DEMO_NAMES, write_demo
from dual_skd.data.near_duplicates.search import find_twins, leave_out_twins
from dual_skd.data.reading.locators import path_of
from dual_skd.data.records.bad_files import skipped, usable_rows
from dual_skd.data.records.frames import rows_of_frames
from dual_skd.data.records.labels import (
    LabelWords,
    class_names_of,
    doubtful_numbers,
    doubtful_words,
    record_of,
    refuse_no_classes,
    with_places_named,
)
from dual_skd.data.records.patients import large_patients, rows_with_patients
from dual_skd.data.records.patients import refuse_shared_patients as refuse_patients_in_two_splits
from dual_skd.data.records.rows import Source
from dual_skd.data.records.sources import read_source
from dual_skd.data.records.splitting import divide, divide_into_folds, far_from_asked, positive_labels
from dual_skd.data.records.unknown_patients import unknown_patients
from dual_skd.errors import InputError
from dual_skd.options.shared import SIMILARITY
from dual_skd.utils.files import expanded
from dual_skd.utils.wording import counted

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
MOST_NAMED = 10  # classes whose images the log counts one by one


@dataclass(frozen=True)
class DataList:
    """A data set, divided, with numeric labels.

    Args:
        root: folder that the data hash and the reports name images relative to.
        class_names: name of each class, in label order.
        splits: "train", "val" and "test" -> records. A record is a dict of "image" (str, an absolute locator),
            "label" (int, or a list of 0.0 / 1.0 per class when ``multi_label``), "patient" and "site" (str, "" when
            unknown), and further columns of a table that divide its images into a few groups, such as sex.
        source: what was read.
        notes: every decision taken on the way, in plain sentences.
        doubts: those notes that are to be looked at, as what they say may not be meant.
        class_map: what labels of the data were named by the user, as far as the data have them.
        multi_label: whether an image may have any number of labels.
        spatial_dims: 2 for images, 3 for volumes.
        left_out: validation and test records that are in no split, as a twin of them is in training: records with
            "split", "twin" (image of the twin), "similarity" and "exact".
        twins_searched: whether such twins were looked for, now or by the division that a split file holds.
        ignored: files that lie in the data set and are none of its images.
        unusable: images that were skipped as they can't be used: "image", "problem" and "remedy".
    """

    root: Path
    class_names: tuple[str, ...]
    splits: dict[str, list[dict]]
    source: str
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    class_map: dict[str, str] = field(default_factory=dict)
    multi_label: bool = False
    spatial_dims: int = 2
    left_out: list[dict] = field(default_factory=list)
    twins_searched: bool = False
    ignored: tuple[str, ...] = ()
    unusable: list[dict] = field(default_factory=list)

    @property
    def train(self) -> list[dict]:
        return self.splits["train"]

    @property
    def val(self) -> list[dict]:
        return self.splits["val"]

    @property
    def test(self) -> list[dict]:
        return self.splits["test"]

    def measured(self, split: str) -> list[dict]:
        """The records of a split, and after them those that were left out of it as twins of training images."""
        return self.splits[split] + [record for record in self.left_out if record["split"] == split]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over relative paths, labels, splits and file sizes: equal for equal data, wherever it is stored."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        sizes: dict[Path, int] = {}  # many images may lie in one file or folder
        for split in SPLITS:
            for record in sorted(self.splits[split], key=lambda record: record["image"]):
                path = path_of(record["image"])
                if path not in sizes:
                    sizes[path] = _size(path)
                name = self.relative(record["image"])
                digest.update(f"{split}\0{name}\0{record['label']}\0{sizes[path]}\n".encode())
        return digest.hexdigest()

    def relative(self, image: str | Path) -> str:
        """The name of an image in reports: relative to the data set where it lies inside."""
        path = Path(image)
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()

    def class_counts(self, split: str = "train") -> list[int]:
        """Images per class of one split, in label order."""
        counts = Counter(label for record in self.splits[split] for label in positive_labels(record))
        return [counts[label] for label in range(self.num_classes)]

    def counted(self, split: str) -> str:
        """Images and patients of one split in words: "40 images (20 normal, 20 pneumonia), 12 patients".

        Classes without images are named too; of more than ten classes only the smallest and the largest number.
        """
        records, counts = self.splits[split], self.class_counts(split)
        named = ", ".join(f"{count} {name}" for count, name in zip(counts, self.class_names, strict=True))
        if len(counts) > MOST_NAMED:
            named = f"{min(counts)} to {max(counts)} of each of {len(counts)} classes"
        patients = {record["patient"] for record in records if record["patient"]}
        said = f"{counted(len(records), 'image')} ({named})"
        return f"{said}, {counted(len(patients), 'patient')}" if patients else said

    def class_weights(self, split: str = "train") -> torch.Tensor:
        """Weights (K,) that make every class count the same in a loss.

        Single label: n / (K * n_k), with mean 1 over the images. Multi-label: negatives / positives per class, the
        ``pos_weight`` of a binary cross-entropy.
        """
        counts = torch.tensor(self.class_counts(split), dtype=torch.float32).clamp_min(1)
        total = len(self.splits[split])
        return (total - counts).clamp_min(1) / counts if self.multi_label else total / (self.num_classes * counts)

    def __repr__(self) -> str:
        return self.describe()

    def describe(self, title: str = "Data") -> str:
        """Lines for the log: source, counts of the parts that have images, decisions."""
        parts = [f"  {split}: {self.counted(split)}" for split in SPLITS if self.splits[split]]
        notes = [f"  {note[0].upper()}{note[1:]}." for note in self.notes if note not in self.doubts]
        return "\n".join([f"{title}: {self.source}", *parts, *notes])


def load_records(
    dataset_dir: str | Path,
    *,
    spatial_dims: int = 2,
    class_names: Sequence[str] | None = None,
    numbers_are_places: bool = True,
    class_map: Mapping[Any, Any] | str | None = None,
    label_column: str | Sequence[str] = "label",
    image_column: str | None = None,
    patient_pattern: str | None = None,
    train_fraction: float = 1.0,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    folds: int | None = None,
    fold: int = 0,
    seed: int = 0,
    keep_twins: bool = False,
    twin_search: str = "auto",
    twin_similarity: float = SIMILARITY,
    on_bad_file: str | None = "error",
    frame: int | str | None = None,
    refuse_shared_patients: bool = True,
    allow_outside: bool = False,
    demo_dir: str | Path | None = None,
    title: str = "Data",
) -> DataList:
    """Reads a data set and divides it into training, validation and test records.

    A given split is kept as it is. A missing validation set is carved from the training set; a missing test set too,
    but only where the source gives no split at all. Carving is seeded, stratified by label and by site, and keeps the
    images of a patient together where patients are known.

    Args:
        dataset_dir: folder per class; train / val / test folders of class folders; a folder with datalist.csv,
            datalist.json, dataset.json or labels.csv; such a file itself, with a column of images, or of PatientIDs,
            StudyInstanceUIDs or SeriesInstanceUIDs of the DICOM files beside it; an .npz file in MedMNIST's layout; or
            "demo" / "demo3d" for the generated data.
        spatial_dims: 2 for images, 3 for volumes.
        class_names: names in label order; default: sorted names found (numbers in numeric order).
        numbers_are_places: whole numbers that are no names themselves are places in ``class_names``, counted from 0.
            Only who has put the names in order for these data can say so.
        class_map: label as it stands in the data -> class name, or "" for images without a label, as a dictionary or
            the text of one: it names numbers and joins spellings and languages. Labels are compared without regard to
            case, spaces and the like, see :func:`dual_skd.utils.spelling.key_of`.
        label_column: the label's column; several names mean one 0/1 column per label.
        image_column: the column that names the images; default: ``image``, else the one whose cells are image files.
        patient_pattern: regular expression with one group that finds the patient in the image's relative path, for
            example ``person(\\d+)``. It is not used where a table has a patient column. Without it, patients are the
            PatientIDs of DICOM files, else the folders inside the class folders where a class has several; with "",
            only those that a table states.
        train_fraction: share of the training and validation images to keep; the test set never shrinks.
        val_fraction: share of the training images carved for validation.
        test_fraction: share of all images carved for the test.
        folds: divide the training part (with a given validation set) into so many folds for cross-validation; one of
            them is the validation set, in place of ``val_fraction``. The test set is the same for all folds.
        fold: which one, counted from 0.
        seed: seed of all divisions.
        keep_twins: keep validation and test images although a copy or near copy of them is in the training set.
            By default they are left out, since a network may answer them from memory.
        twin_search: unless ``keep_twins``: look for these copies "always", "never" (all images count as different), or
            "auto", when no more than 20,000 images have to be decoded for it.
        on_bad_file: "error" looks at the beginning and end of every file and refuses to go on when one can't be used;
            "skip" decodes every file and leaves out, and lists, those; None looks at none.
        frame: of files with several frames, pages or slices a 2D task takes the "middle" one, a number counted from 0,
            or "all"; None refuses such files.
        twin_similarity: likeness from which an image counts as a near copy. From about 0.8 on, neighbouring slices and
            strongly edited copies count too, which makes a test set without patient ids safer, and smaller.
        allow_outside: take images that a table with relative paths names outside its own folder, by "..", a link or
            an absolute path. A table of absolute paths alone may name any place.
        refuse_shared_patients: refuse given splits that share patients; only a check, which reports them, turns it off.
        demo_dir: where "demo" data are written; default: the user's cache folder.
        title: what the log calls them; it says them to everyone only as "Data", the others where it is asked for all.

    Raises:
        InputError: when anything of the above can't be found or contradicts itself.
    """
    if spatial_dims not in (2, 3):
        raise InputError(f"spatial_dims must be 2 or 3, found {spatial_dims}.")
    for name, value in (("train", train_fraction), ("val", val_fraction), ("test", test_fraction)):
        low_ok = value > 0 if name == "train" else value >= 0
        if not (low_ok and value <= 1) or (name != "train" and value == 1):
            raise InputError(f"{name}_fraction must be a share between 0 and 1, found {value}.")
    if not 0 <= fold < (folds or 1):
        wanted = f"0 to {folds - 1} for {folds} folds" if folds else "0 without folds"
        raise InputError(f"fold must be {wanted}, found {fold}.")

    if str(dataset_dir) in DEMO_NAMES:
        spatial_dims = max(spatial_dims, DEMO_NAMES[str(dataset_dir)])
        target = Path(demo_dir) if demo_dir is not None else _default_demo_dir(spatial_dims)
        dataset_dir = write_demo(target, spatial_dims=spatial_dims)
    location = expanded(dataset_dir).absolute()
    words = LabelWords(class_map, class_names or ())
    source = read_source(
        location,
        spatial_dims=spatial_dims,
        label_column=label_column,
        image_column=image_column,
        words=words,
        allow_outside=allow_outside,
    )
    if class_names and numbers_are_places:
        source = with_places_named(source, class_names)
    names = class_names_of(source, class_names)
    rows, of_patients = rows_with_patients(source, patient_pattern)
    refuse_no_classes(rows, source, class_names)
    unknown, offered = unknown_patients(rows, source.root, patient_pattern)
    doubts = [*source.doubts, *doubtful_numbers(rows, source), *doubtful_words(rows, source), *large_patients(rows)]
    doubts += offered
    rows, of_frames = rows_of_frames(rows, frame if spatial_dims == 2 else None)
    rows, unusable = usable_rows(rows, spatial_dims=spatial_dims, on_bad_file=on_bad_file, dataset_dir=dataset_dir)
    records = {split: [record_of(row, names, source) for row in rows if row.split == split] for split in ("", *SPLITS)}
    notes = [*source.notes, *of_patients, *unknown, *of_frames, *skipped(unusable)]
    if refuse_shared_patients and not records[""]:
        refuse_patients_in_two_splits(rows, source.description)

    if records[""] and test_fraction == 0:
        records["train"] = records.pop("")
    elif records[""]:
        _refuse_one_patient(records[""], "test", source)
        records["test"], records["train"] = divide(records.pop(""), fraction=test_fraction, seed=seed, purpose="test")
        notes.append(f"no split was given: {len(records['test'])} test images were carved (seed {seed})")
        doubts += far_from_asked(records["test"], records["train"], fraction=test_fraction, split="test")
    twins, left_out = None, list(source.left_out)
    if not keep_twins:
        twins = find_twins(
            [record["image"] for split in SPLITS for record in records[split]],
            spatial_dims=spatial_dims, search=twin_search, dataset_dir=dataset_dir, notes=notes,
        )  # fmt: skip
    if twins is not None:
        # against all training images, so that the test set is the same for every train_fraction and fold
        known = records["train"] + records["val"]
        records["test"] = leave_out_twins(
            twins, records["test"], known, similarity=twin_similarity, split="test", notes=notes, left_out=left_out
        )
    if folds and records["val"]:
        notes.append(f"the {len(records['val'])} validation images joined the training images, to be divided in folds")
        records["train"], records["val"] = records["train"] + records["val"], []
    if train_fraction < 1:
        for split in ("train", "val"):
            if not records[split]:
                continue
            kept, _ = divide(records[split], fraction=train_fraction, seed=seed, purpose="train_fraction")
            notes.append(f"{len(kept)} of {len(records[split])} {split} images were kept (train_fraction)")
            records[split] = kept
    if folds:
        parts = divide_into_folds(records["train"], folds=folds, seed=seed, class_names=names)
        records["val"] = parts.pop(fold)
        records["train"] = sorted((record for part in parts for record in part), key=lambda record: record["image"])
        notes.append(f"the {len(records['val'])} validation images are fold {fold} of {folds} (seed {seed})")
    elif not records["val"] and val_fraction > 0:
        _refuse_one_patient(records["train"], "val", source)
        records["val"], records["train"] = divide(records["train"], fraction=val_fraction, seed=seed, purpose="val")
        notes.append(f"{len(records['val'])} validation images were carved from the training images (seed {seed})")
        doubts += far_from_asked(records["val"], records["train"], fraction=val_fraction, split="validation")
    notes += [doubt for doubt in doubts if doubt not in notes]
    if twins is not None:
        records["val"] = leave_out_twins(
            twins,
            records["val"],
            records["train"],
            similarity=twin_similarity,
            split="val",
            notes=notes,
            left_out=left_out,
        )

    # what an earlier search found holds as long as its division does
    given = {row.image: row.split for row in rows}
    as_given = all(given[record["image"]] == split for split in SPLITS for record in records[split])
    data = DataList(
        root=source.root,
        class_names=names,
        splits={split: records[split] for split in SPLITS},
        source=source.description,
        notes=notes,
        doubts=doubts,
        class_map=words.used,
        multi_label=source.multi_label,
        spatial_dims=spatial_dims,
        left_out=left_out,
        twins_searched=twins is not None or (source.twins_searched and as_given),
        ignored=source.ignored,
        unusable=unusable,
    )
    _require_trainable(data)
    notes += absent_classes(data)
    logger.log(logging.INFO if title == "Data" else logging.DEBUG, data.describe(title))
    for doubt in doubts:
        logger.warning("%s%s.", doubt[0].upper(), doubt[1:])
    return data


def absent_classes(data: DataList) -> list[str]:
    """A sentence for each of validation and test set that lacks classes."""
    notes = []
    for split in SPLITS[1:]:
        absent = [name for name, count in zip(data.class_names, data.class_counts(split), strict=True) if count == 0]
        if data.splits[split] and absent:
            notes.append(f"there are no {split} images of {', '.join(absent)}, so some metrics can't be computed")
    return notes


def _default_demo_dir(spatial_dims: int) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "dual_skd" / ("demo" if spatial_dims == 2 else "demo3d")


def _refuse_one_patient(records: Sequence[dict], purpose: str, source: Source) -> None:
    """Raises :class:`InputError` for images that can't be divided, as all are of one patient."""
    patients = {record["patient"] for record in records}
    if len(records) > 1 and len(patients) == 1 and "" not in patients:
        raise InputError(
            f"{source.description}: all {len(records)} images are of one patient ({patients.pop()}), so no {purpose} "
            "images can be divided from them; if that is no patient, empty the column or correct --patient-pattern, "
            f"else give a split or set {purpose}_fraction to 0."
        )


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return path.stat().st_size


def _require_trainable(data: DataList) -> None:
    if not data.splits["train"]:
        raise InputError(f"{data.source} has no training images; expected a train split or no split at all.")
    lost = [name for name, count in zip(data.class_names, data.class_counts("train"), strict=True) if count == 0]
    if lost:
        raise InputError(
            f"No training images of {', '.join(lost)} are left in {data.source}; add images of it, "
            "or lower --val-fraction or --test-fraction, or raise --train-fraction."
        )
