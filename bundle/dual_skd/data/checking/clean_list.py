# SPDX-License-Identifier: Apache-2.0
"""A data list of what is left of a data set after the check: usable images, one of every group of copies."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from dual_skd.data.checking.findings import Findings
from dual_skd.data.records.datalist import SPLITS, DataList
from dual_skd.data.records.record import Record
from dual_skd.utils.spelling import is_empty_cell
from dual_skd.utils.wording import counted

# why images go: what is counted, of one and of many
UNUSABLE = "image can't be used", "images can't be used"
COPY = "image is a copy", "images are copies"
OTHER_LABEL = "image is a copy with another label", "images are copies with different labels"
OTHER_SPLIT = "image is of a patient in another split too", "images are of patients in another split too"
KEPT_FIRST = ("test", "val", "train")  # test images are fewer and dearer: their copies leave the training set


def clean_records(data: DataList, findings: Findings) -> tuple[dict[str, list[Record]], list[str]]:
    """Chooses the images that may stay.

    Files that can't be used go. Of images that are copies of each other, over all splits, one stays, of the test
    split if there is one; none stays where their labels differ. Of a patient in several splits, the images of one stay.

    Args:
        data: as given, nothing left out.
        findings: of the whole check, with the search for copies.

    Returns:
        (records per split, in the order of the data; sentences that count what goes).
    """
    records = {data.relative(record.image): record for split in SPLITS for record in data.splits[split]}
    split_of = {data.relative(record.image): split for split in SPLITS for record in data.splits[split]}
    unusable = {one["image"] for one in findings.unreadable}
    gone = dict.fromkeys(unusable, UNUSABLE)
    for group in groups_of_copies([(twin["image"], twin["twin"]) for twin in findings.twins]):
        members = sorted(group - unusable, key=lambda name: (KEPT_FIRST.index(split_of[name]), name))
        labels = {str(records[name].label) for name in members}
        first = 0 if len(labels) > 1 else 1
        gone |= dict.fromkeys(members[first:], COPY if first else OTHER_LABEL)
    home: dict[str, str] = {}
    for split in KEPT_FIRST:
        for record in data.splits[split]:
            if record.patient and data.relative(record.image) not in gone:
                home.setdefault(record.patient, split)
    for name, record in records.items():
        if name not in gone and home.get(record.patient, split_of[name]) != split_of[name]:
            gone[name] = OTHER_SPLIT
    reasons = list(gone.values())
    notes = [counted(reasons.count(reason), *reason) for reason in dict.fromkeys(reasons)]
    kept: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for name, record in records.items():
        if name not in gone:
            kept[split_of[name]].append(record)
    return kept, notes


def groups_of_copies(pairs: Sequence[tuple[str, str]]) -> list[set[str]]:
    """Groups in which every image is linked to every other one by pairs of copies."""
    group_of: dict[str, set[str]] = {}
    for one, other in pairs:
        merged = group_of.get(one, {one}) | group_of.get(other, {other})
        group_of |= dict.fromkeys(merged, merged)
    return list({id(group): group for group in group_of.values()}.values())


def write_clean_list(data: DataList, splits: Mapping[str, Sequence[Record]], file: TextIO) -> None:
    """Writes records as a CSV table that training takes, with a 0/1 column per class where an image may have several.

    Names joined in one column would say neither the order of the classes nor which images have none. Paths are
    absolute.
    """
    divided = bool(data.val or data.test)
    labels = data.class_names if data.multi_label else ("label",)
    table = csv.DictWriter(file, ("image", *labels, "split", "patient", "site"))
    table.writeheader()
    for split, records in splits.items():
        for record in records:
            positive = [data.class_names[label] for label in record.positive_labels]
            values = [int(name in positive) for name in labels] if data.multi_label else positive
            table.writerow(
                {
                    "image": str(Path(record.image)),
                    **dict(zip(labels, values, strict=True)),
                    "split": split if divided else "",
                    "patient": record.patient,
                    "site": record.site,
                }
            )


def like_empty_cells(data: DataList) -> dict[str, str]:
    """The class map that a clean list needs where a class is called like an empty cell, so that it stays a class."""
    return {} if data.multi_label else {name: name for name in data.class_names if is_empty_cell(name)}
