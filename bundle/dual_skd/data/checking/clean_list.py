# SPDX-License-Identifier: Apache-2.0
"""Builds a data list without what the check found: usable images, one of every group of near duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dual_skd.data.checking.findings import Findings
from dual_skd.data.records.datalist import SPLITS, DataList
from dual_skd.data.records.record import Record
from dual_skd.data.records.rows import UNLABELLED
from dual_skd.utils.files import write_csv
from dual_skd.utils.spelling import is_empty_cell
from dual_skd.utils.wording import counted

# reasons to remove images, for one and for many
UNUSABLE = "image can't be used", "images can't be used"
COPY = "image is a copy", "images are copies"
OTHER_LABEL = "image is a copy with another label", "images are copies with different labels"
OTHER_SPLIT = "image is of a patient in another split too", "images are of patients in another split too"
KEPT_FIRST = ("test", "val", "train")  # test images are fewer and dearer: their copies leave the training set


def clean_records(data: DataList, findings: Findings) -> tuple[dict[str, list[Record]], list[str]]:
    """Selects the images that may stay.

    Files that can't be used are removed. Of near duplicates, over all splits, one stays: that of the test split if
    there is one. None stays where their labels differ. Of a patient in several splits, the images of one split stay.
    Images without labels stay if they can be used: training looks for copies and patients among them by itself.

    Args:
        data: the data set as given.
        findings: of the whole check, with the search for near duplicates.

    Returns:
        (records per split, in the order of the data, also of "unlabelled" if there are any; sentences that count the
        removed images).
    """
    records = {data.relative(record.image): record for split in SPLITS for record in data.splits[split]}
    split_of = {data.relative(record.image): split for split in SPLITS for record in data.splits[split]}
    without_labels = {data.relative(record.image): record for record in data.unlabelled}
    unusable = {one["image"] for one in findings.unreadable}
    removed = dict.fromkeys(unusable, UNUSABLE)
    for group in duplicate_groups([(pair["image"], pair["twin"]) for pair in findings.twins]):
        members = sorted(group - unusable, key=lambda name: (KEPT_FIRST.index(split_of[name]), name))
        if len({str(records[name].label) for name in members}) > 1:
            removed |= dict.fromkeys(members, OTHER_LABEL)
        else:
            removed |= dict.fromkeys(members[1:], COPY)
    home: dict[str, str] = {}
    for split in KEPT_FIRST:
        for record in data.splits[split]:
            if record.patient and data.relative(record.image) not in removed:
                home.setdefault(record.patient, split)
    for name, record in records.items():
        if name not in removed and home.get(record.patient, split_of[name]) != split_of[name]:
            removed[name] = OTHER_SPLIT
    notes = [counted(number, *reason) for reason, number in Counter(removed.values()).items()]
    left = [name for name in records if name not in removed]
    kept = {split: [records[name] for name in left if split_of[name] == split] for split in SPLITS}
    usable = [record for name, record in without_labels.items() if name not in unusable]
    return kept | ({UNLABELLED: usable} if usable else {}), notes


def duplicate_groups(pairs: Sequence[tuple[str, str]]) -> list[set[str]]:
    """Connected groups of images, from pairs of near duplicates."""
    group_of: dict[str, set[str]] = {}
    for one, other in pairs:
        merged = group_of.get(one, {one}) | group_of.get(other, {other})
        group_of |= dict.fromkeys(merged, merged)
    return list({id(group): group for group in group_of.values()}.values())


def write_clean_list(data: DataList, splits: Mapping[str, Sequence[Record]], path: Path) -> None:
    """Writes records as a CSV table that training reads, with absolute paths.

    Multi-label data get a 0/1 column per class: joined names would give neither the order of the classes nor the images
    without any.
    """
    divided = bool(data.val or data.test)
    labels = data.class_names if data.multi_label else ("label",)
    rows: list[list] = [["image", *labels, "split", "patient", "site"]]
    for split, records in splits.items():
        for record in records:
            positive = [data.class_names[label] for label in record.positive_labels]
            values: Sequence[Any] = [int(name in positive) for name in labels] if data.multi_label else positive
            if split == UNLABELLED:
                values = [""] * len(labels)
            name = split if divided or split == UNLABELLED else ""
            rows.append([Path(record.image), *values, name, record.patient, record.site])
    write_csv(path, rows, private=True)


def like_empty_cells(data: DataList) -> dict[str, str]:
    """Class map that keeps classes whose names look like empty cells, such as "None"."""
    return {} if data.multi_label else {name: name for name in data.class_names if is_empty_cell(name)}
