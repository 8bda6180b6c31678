# SPDX-License-Identifier: Apache-2.0
"""A data set as lists of records: which image, which label, which split."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dual_skd.data.reading.locators import path_of
from dual_skd.data.records.record import LeftOut, Record
from dual_skd.data.records.rows import UNLABELLED
from dual_skd.errors import InputError
from dual_skd.utils.former_names import renamed
from dual_skd.utils.wording import counted

SPLITS = ("train", "val", "test")
MAX_CLASSES_COUNTED = 10  # the log counts the images of each class up to here


class Items(list[dict[str, Any]]):
    """The records of a split as plain dictionaries, in which other programs may write."""


@dataclass(frozen=True)
class DataList:
    """A data set, divided, with numeric labels.

    Args:
        root: folder that the data hash and the reports name images relative to.
        class_names: name of each class, in label order.
        splits: "train", "val" and "test" -> records.
        source: what was read.
        notes: every decision taken on the way, in plain sentences.
        doubts: those notes that the user should look at, as they may be wrong.
        class_map: class names that the user gave to labels of these data.
        multi_label: whether an image may have any number of labels.
        spatial_dims: 2 for images, 3 for volumes.
        left_out: images that are in no split, as they are near duplicates, see :class:`LeftOut`.
        twins_searched: whether near duplicates were searched for, now or by the division that a split file holds.
        ignored: files of the data set that are none of its images.
        unusable: "image", "problem" and "remedy" of the images that were skipped.
        unlabelled: images that are trained on without labels.
    """

    root: Path
    class_names: tuple[str, ...]
    splits: dict[str, list[Record]]
    source: str
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    class_map: dict[str, str] = field(default_factory=dict)
    multi_label: bool = False
    spatial_dims: int = 2
    left_out: list[LeftOut] = field(default_factory=list)
    twins_searched: bool = False
    ignored: tuple[str, ...] = ()
    unusable: list[dict] = field(default_factory=list)
    unlabelled: list[Record] = field(default_factory=list)

    @property
    def train(self) -> list[Record]:
        return self.splits["train"]

    @property
    def val(self) -> list[Record]:
        return self.splits["val"]

    @property
    def test(self) -> list[Record]:
        return self.splits["test"]

    def items(self, split: str) -> Items:
        """The records of a split, for programs that look for them in a config."""
        return Items(record.as_dict() for record in self.splits[split])

    def measured(self, split: str) -> list[Record]:
        """The records of a split, and after them those that were left out of it as near duplicates."""
        return [*self.splits[split], *(record for record in self.left_out if record.split == split)]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over relative paths, labels, splits and file sizes: equal for equal data, wherever it is stored."""
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        sizes: dict[Path, int] = {}  # many images may lie in one file or folder
        for split in (*SPLITS, UNLABELLED):
            records = self.unlabelled if split == UNLABELLED else self.splits[split]
            for record in sorted(records, key=lambda record: record.image):
                path = path_of(record.image)
                if path not in sizes:
                    sizes[path] = _size(path)
                name = self.relative(record.image)
                digest.update(f"{split}\0{name}\0{record.label}\0{sizes[path]}\n".encode())
        return digest.hexdigest()

    def relative(self, image: str | Path) -> str:
        """The name of an image in reports: relative to the data set where it lies inside."""
        path = Path(image)
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()

    def class_counts(self, split: str = "train") -> list[int]:
        """Images per class of one split, in label order."""
        counts = Counter(label for record in self.splits[split] for label in record.positive_labels)
        return [counts[label] for label in range(self.num_classes)]

    def counted(self, split: str) -> str:
        """Images and patients of one split in words: "40 images (20 normal, 20 pneumonia), 12 patients".

        Classes without images are named too; of more than ten classes only the smallest and the largest number.
        """
        records, counts = self.splits[split], self.class_counts(split)
        named = ", ".join(f"{count} {name}" for count, name in zip(counts, self.class_names, strict=True))
        if len(counts) > MAX_CLASSES_COUNTED:
            named = f"{min(counts)} to {max(counts)} of each of {len(counts)} classes"
        patients = {record.patient for record in records if record.patient}
        more = " or more" if any(not record.patient for record in records) else ""
        images = f"{counted(len(records), 'image')} ({named})"
        return f"{images}, {counted(len(patients), 'patient')}{more}" if patients else images

    def absent_classes(self) -> list[str]:
        """A sentence for each of validation and test set that lacks classes."""
        notes = []
        for split in SPLITS[1:]:
            counts = zip(self.class_names, self.class_counts(split), strict=True)
            absent = [name for name, count in counts if count == 0]
            if self.splits[split] and absent:
                notes.append(f"there are no {split} images of {', '.join(absent)}, so some metrics can't be computed")
        return notes

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
        if self.unlabelled:
            parts.append(f"  without labels: {counted(len(self.unlabelled), 'image')}")
        notes = [f"  {note[0].upper()}{note[1:]}." for note in self.notes if note not in self.doubts]
        return "\n".join([f"{title}: {self.source}", *parts, *notes])


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} was there and no longer is ({error.strerror}); put it back.") from error


__getattr__ = renamed(__name__, load_records="dual_skd.data.records.training_records.load_records")
