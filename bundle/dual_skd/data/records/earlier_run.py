# SPDX-License-Identifier: Apache-2.0
"""The images that weights of an earlier run have learned from: they can't test what starts or learns from them."""

from __future__ import annotations

import logging
from pathlib import Path

from dual_skd.data.reading.locators import real_place
from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.record import Record
from dual_skd.data.records.rows import UNLABELLED, first_few
from dual_skd.data.records.split_file import SECTIONS
from dual_skd.errors import InputError
from dual_skd.utils.files import expanded, read_json
from dual_skd.utils.spelling import key_of

logger = logging.getLogger(__name__)


def require_unseen(data: DataList, **weights: str | None) -> None:
    """Refuses validation and test images that given weights have learned from.

    ``models/model.pt`` of a run is known by the ``datalist.json`` of that run. Its training images and those without
    labels may be no validation or test images here, and its validation images no test images, as they chose the model.
    The same holds for other images of their patients, where both lists share images, so that their ids mean the same
    people. Nothing is known of a file that lies elsewhere.

    Args:
        data: of this run.
        weights: files of weights by the option that names them; a word such as ``wheel`` is no file.

    Raises:
        InputError: there are such images.
    """
    for option, file in weights.items():
        if file is None or not expanded(file).is_file():
            continue
        datalist = expanded(file).absolute().parent.parent / "datalist.json"
        if not datalist.is_file():
            logger.info("%s lies outside a run, so nothing tells which images it has learned from.", file)
            continue
        earlier = read_json(datalist)
        parts = {section: [_record(entry) for entry in earlier.get(section) or []] for section in _PARTS}
        learned = parts[SECTIONS["train"]] + parts[UNLABELLED]
        _refuse(data, "val", learned, option, datalist.parent)
        _refuse(data, "test", learned + parts[SECTIONS["val"]], option, datalist.parent)


_PARTS = (SECTIONS["train"], SECTIONS["val"], UNLABELLED)


def _record(entry: dict) -> Record:
    return Record(str(entry.get("image") or ""), None, str(entry.get("patient") or ""))


def _refuse(data: DataList, split: str, learned: list[Record], option: str, run: Path) -> None:
    """Raises :class:`InputError` if images of a split, or others of their patients, are among those learned from."""
    known = {real_place(record.image) for record in learned}
    everywhere = [record for part in (*data.splits.values(), data.unlabelled) for record in part]
    if known.isdisjoint(real_place(record.image) for record in everywhere):
        return  # another data set, whose patients may have the same ids
    people = {key_of(record.patient) for record in learned if record.patient}
    records = data.splits[split]
    seen = [
        record.image
        for record in records
        if real_place(record.image) in known or (record.patient and key_of(record.patient) in people)
    ]
    if seen:
        name = {"val": "validation", "test": "test"}[split]
        raise InputError(
            f"{option} in {run} has learned from {len(seen)} of the {len(records)} {name} images, or from others of "
            f"their patients (for example {first_few(seen)}), so their metrics would be too good. Divide the images as "
            f"that run did: with its seed, shares and fold, or with {run / 'datalist.json'} as dataset_dir. New images "
            "go beside its validation and test images, which a column split keeps."
        )
