# SPDX-License-Identifier: Apache-2.0
"""From a path to a divided data set: located, read, divided, near duplicates left out."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dual_skd.data.demo import DEMO_NAMES, write_demo
from dual_skd.data.records import patients
from dual_skd.data.records.bad_files import usable_rows
from dual_skd.data.records.datalist import SPLITS, DataList
from dual_skd.data.records.labels import (
    LabelWords,
    class_names_of,
    doubtful_numbers,
    doubtful_words,
    record_of,
    refuse_no_classes,
    with_places_named,
)
from dual_skd.data.records.near_duplicate_filter import NearDuplicateFilter
from dual_skd.data.records.patients import large_patients, rows_with_patients
from dual_skd.data.records.record import Record
from dual_skd.data.records.rows import Row, Source
from dual_skd.data.records.sources import read_source
from dual_skd.data.records.splitting import divide, divide_into_folds, far_from_asked
from dual_skd.data.records.unknown_patients import unknown_patients
from dual_skd.data.records.unlabelled_records import records_without_labels
from dual_skd.errors import InputError
from dual_skd.options import read
from dual_skd.options.data import DataOptions
from dual_skd.utils.files import expanded
from dual_skd.utils.wording import check_command

logger = logging.getLogger(__name__)


def load_records(
    dataset_dir: str | Path,
    *,
    class_names: Sequence[str] | None = None,
    numbers_are_places: bool = True,
    refuse_shared_patients: bool = True,
    demo_dir: str | Path | None = None,
    title: str = "Data",
    **options: Any,
) -> DataList:
    """Reads a data set and divides it into training, validation and test records.

    A given split is kept. A missing validation set is carved from the training set, a missing test set only where the
    source gives no split: seeded, stratified by label and site, by patient. Images without labels are kept apart.

    Args:
        dataset_dir: class folders, also below train / val / test folders; a table (datalist.csv, datalist.json,
            dataset.json, labels.csv) or its folder, with a column of images, or of PatientIDs, StudyInstanceUIDs or
            SeriesInstanceUIDs of the DICOM files beside it; an .npz file in MedMNIST's layout; "demo" or "demo3d".
        class_names: names in label order; default: sorted names found (numbers in numeric order).
        numbers_are_places: whole numbers that are no class names count as places in ``class_names``, from 0.
        refuse_shared_patients: refuse given splits that share patients.
        demo_dir: where "demo" data are written; default: the user's cache folder.
        title: name of the data in the log; only "Data" are logged at INFO.
        options: :class:`~dual_skd.options.data.DataOptions`, with the names, defaults and meanings of docs/options.md,
            such as ``label_column`` and ``test_fraction``; besides, ``on_bad_file=None`` looks at no file.

    Raises:
        InputError: the data or an option can't be used.
    """
    asked = read(DataOptions, options)
    if str(dataset_dir) in DEMO_NAMES:
        dataset_dir, asked = _demo(str(dataset_dir), asked, demo_dir)
    words = LabelWords(asked.class_map, class_names or ())
    source = _source(dataset_dir, asked, words, class_names if numbers_are_places else None)
    found = _read(source, asked, class_names, dataset_dir)
    if refuse_shared_patients and found.is_divided:
        patients.refuse_shared_patients(found.rows, source.description)
    copies = found.divide()
    unlabelled = records_without_labels(source, asked, found.splits, found.rest, dataset_dir=dataset_dir)
    data = DataList(
        root=source.root,
        class_names=found.names,
        splits=found.splits,
        source=source.description,
        notes=[*found.notes, *unlabelled.notes, *unlabelled.doubts],
        doubts=[*found.doubts, *unlabelled.doubts],
        class_map=words.used,
        multi_label=source.multi_label,
        spatial_dims=asked.spatial_dims,
        left_out=[*source.left_out, *copies.left_out, *unlabelled.left_out],
        twins_searched=copies.searched or (source.twins_searched and found.is_as_given()),
        ignored=tuple(sorted({*source.ignored} - {record.image for record in unlabelled.records})),
        unusable=[*found.unusable, *unlabelled.unusable],
        unlabelled=unlabelled.records,
    )
    _require_trainable(data, known=class_names is not None)
    data.notes.extend(data.absent_classes())
    _log(data, title)
    return data


def _demo(name: str, options: DataOptions, demo_dir: str | Path | None) -> tuple[Path, DataOptions]:
    """Writes demo data; returns their table, and the options with their dimensions."""
    spatial_dims = max(options.spatial_dims, DEMO_NAMES[name])
    if demo_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        demo_dir = cache / "dual_skd" / ("demo" if spatial_dims == 2 else "demo3d")
    table = write_demo(Path(demo_dir), spatial_dims=spatial_dims)
    return table, options.model_copy(update={"spatial_dims": spatial_dims})


def _source(
    dataset_dir: str | Path, options: DataOptions, words: LabelWords, class_names: Sequence[str] | None
) -> Source:
    source = read_source(expanded(dataset_dir).absolute(), options, words)
    return with_places_named(source, class_names) if class_names else source


@dataclass
class _Division:
    """The images of a source while they are divided.

    Args:
        source: where they are from.
        names: of the classes, in label order.
        rows: the images that can be used.
        options: how they are divided.
        dataset_dir: what the user gave, for remedies.
        notes, doubts, unusable: see :class:`DataList`.
        rest: training images that ``train_fraction`` leaves out.
    """

    source: Source
    names: tuple[str, ...]
    rows: list[Row]
    options: DataOptions
    dataset_dir: str | Path
    notes: list[str]
    doubts: list[str]
    unusable: list[dict[str, str]]
    splits: dict[str, list[Record]] = field(init=False)
    rest: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.splits = {split: [] for split in SPLITS}
        for row in self.rows:
            self.splits[row.split or "train"].append(record_of(row, self.names, self.source))

    @property
    def is_divided(self) -> bool:
        """Whether the source gives splits."""
        return all(row.split for row in self.rows)

    def is_as_given(self) -> bool:
        """Whether every image is in the split that the source gives."""
        given = {row.image: row.split for row in self.rows}
        return all(given[record.image] == split for split in SPLITS for record in self.splits[split])

    def divide(self) -> NearDuplicateFilter:
        """Makes the splits that are missing, and leaves out near duplicates of training images."""
        splits, options = self.splits, self.options
        if not self.is_divided and options.test_fraction > 0:
            self._carve("test", "no split was given: {} test images were carved")
        images = [record.image for split in SPLITS for record in splits[split]]
        copies = NearDuplicateFilter(images, options, check_command(self.dataset_dir), self.notes)
        # against all training images, so that the test set is the same for every train_fraction and fold
        splits["test"] = copies.without_copies(splits["test"], splits["train"] + splits["val"], "test")
        if options.folds and splits["val"]:
            count = len(splits["val"])
            self.notes.append(f"the {count} validation images joined the training images, to be divided in folds")
            splits["train"], splits["val"] = splits["train"] + splits["val"], []
        if options.train_fraction < 1:
            self._keep_share()
        if options.folds:
            self._take_fold(options.folds)
        elif not splits["val"] and options.val_fraction > 0:
            self._carve("val", "{} validation images were carved from the training images")
        self.notes += [doubt for doubt in self.doubts if doubt not in self.notes]
        splits["val"] = copies.without_copies(splits["val"], splits["train"], "val")
        return copies

    def _carve(self, split: str, note: str) -> None:
        """Takes the images of a split from the training images."""
        train, options = self.splits["train"], self.options
        names = {record.patient for record in train}
        if len(train) > 1 and len(names) == 1 and "" not in names:
            raise InputError(
                f"{self.source.description}: all {len(train)} images are of one patient ({names.pop()}), so no "
                f"{split} images can be divided from them; if that is no patient, empty the column or correct "
                f"--patient-pattern, else give a split or set {split}_fraction to 0."
            )
        fraction = options.test_fraction if split == "test" else options.val_fraction
        taken, left = divide(train, fraction=fraction, seed=options.seed, purpose=split)
        self.splits[split], self.splits["train"] = taken, left
        self.notes.append(f"{note.format(len(taken))} (seed {options.seed})")
        self.doubts += far_from_asked(taken, left, fraction=fraction, split="test" if split == "test" else "validation")

    def _keep_share(self) -> None:
        """Keeps ``train_fraction`` of the training and of the validation images."""
        fraction, seed = self.options.train_fraction, self.options.seed
        for split in ("train", "val"):
            if records := self.splits[split]:
                kept, left = divide(records, fraction=fraction, seed=seed, purpose="train_fraction")
                self.notes.append(f"{len(kept)} of {len(records)} {split} images were kept (train_fraction)")
                self.splits[split] = kept
                if split == "train":
                    self.rest = left

    def _take_fold(self, folds: int) -> None:
        """Makes one of several folds the validation set."""
        fold, seed = self.options.fold, self.options.seed
        parts = divide_into_folds(self.splits["train"], folds=folds, seed=seed, class_names=self.names)
        self.splits["val"] = parts.pop(fold)
        self.splits["train"] = sorted((record for part in parts for record in part), key=lambda record: record.image)
        self.notes.append(f"the {len(self.splits['val'])} validation images are fold {fold} of {folds} (seed {seed})")


def _read(
    source: Source, options: DataOptions, class_names: Sequence[str] | None, dataset_dir: str | Path
) -> _Division:
    """Finds classes and patients, and the images that can be used."""
    names = class_names_of(source, class_names)
    rows, of_patients = rows_with_patients(source, options.patient_pattern)
    refuse_no_classes(rows, source, class_names)
    unknown, offered = unknown_patients(rows, source.root, options.patient_pattern)
    doubts = [*source.doubts, *doubtful_numbers(rows, source), *doubtful_words(rows, source), *large_patients(rows)]
    rows, unusable, of_files = usable_rows(rows, options, dataset_dir)
    notes = [*source.notes, *of_patients, *unknown, *of_files]
    return _Division(source, names, rows, options, dataset_dir, notes, [*doubts, *offered], unusable)


def _log(data: DataList, title: str) -> None:
    logger.log(logging.INFO if title == "Data" else logging.DEBUG, data.describe(title))
    for doubt in data.doubts:
        logger.warning("%s%s.", doubt[0].upper(), doubt[1:])


def _require_trainable(data: DataList, *, known: bool) -> None:
    """Refuses data without training images of a class, but of known classes: other hospitals may have them."""
    if not data.train:
        raise InputError(f"{data.source} has no training images; expected a train split or no split at all.")
    lost = [name for name, count in zip(data.class_names, data.class_counts("train"), strict=True) if count == 0]
    if lost and known:
        data.doubts.append(
            f"there are no training images of {', '.join(lost)}, so that the network can't learn to find it here"
        )
        data.notes.append(data.doubts[-1])
    elif lost:
        raise InputError(
            f"No training images of {', '.join(lost)} are left in {data.source}; add images of it, "
            "or lower --val-fraction or --test-fraction, or raise --train-fraction."
        )
