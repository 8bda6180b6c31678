# SPDX-License-Identifier: Apache-2.0
"""Rows, which every kind of source is read into: one per image, before labels become numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dual_skd.data.records.record import LeftOut

UNLABELLED = "unlabelled"  # the split of images without labels
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
    "testing": "test",
    "unlabelled": UNLABELLED,
    "unlabeled": UNLABELLED,
}


@dataclass(frozen=True)
class Row:
    """One image as the source gives it.

    Args:
        image: locator with an absolute path: a file, the folder of a DICOM series, or either with a "#fragment".
        labels: the label's name, or every positive label's name when ``multi_label`` is set in the :class:`Source`.
        split: "train", "val", "test", "unlabelled", or "" when the source gives none.
        patient: patient id that the source states, or "".
        site: where the image was made, or "".
        folder: first folder between class folder and image, which may be the patient's, or "".
        header: PatientID of the DICOM header, "" when it has none, None when no header was read.
        groups: (column, value) of further columns of a table that divide the images into a few groups, such as sex or
            scanner.
        written: the patient as the source writes it, where another spelling of it is commoner, else "".
    """

    image: str
    labels: tuple[str, ...]
    split: str = ""
    patient: str = ""
    site: str = ""
    folder: str = ""
    header: str | None = None
    groups: tuple[tuple[str, str], ...] = ()
    written: str = ""


@dataclass(frozen=True)
class Source:
    """All rows of a data set, and what the source says about its classes.

    Args:
        root: folder that relative paths start from.
        description: what was read, for the log.
        rows: every image with a label.
        class_names: classes in the order that the source declares, empty when it declares none.
        multi_label: whether an image may have any number of labels.
        notes: decisions that the user should know of.
        doubts: those of them that the user should look at, as they may be wrong.
        ignored: files that lie in the data set and are none of its images.
        left_out: images that an earlier division left out as near duplicates, from a split file.
        twins_searched: whether that division looked for twins.
        unlabelled: images without labels: of the split of that name, or, where they are asked for, all others.
    """

    root: Path
    description: str
    rows: tuple[Row, ...]
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    twins_searched: bool = False
    unlabelled: tuple[Row, ...] = ()


def cell_text(value: object) -> str:
    """A cell of a table as text, "" where there is none: a JSON file's 0 is a word."""
    return "" if value is None else str(value).strip()


def first_few(items: Sequence[str], most: int = 3) -> str:
    """The first few of many names, for a sentence."""
    return ", ".join(items[:most])
