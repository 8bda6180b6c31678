# SPDX-License-Identifier: Apache-2.0
"""Holds one hospital, scanner or the like out for testing, without copying images.

An entry of the plan with ``"leave_out": {"site": ["A", "B"]}`` stands for as many data sets as there are values:
``<name>_A`` is tested on the images whose column ``site`` is A and trained on all others, and so on. With a number
instead, ``{"patient": 5}``, the values are divided into so many folds, and ``<name>_1`` is tested on the first.

An entry with ``"elsewhere": "OTHER"`` is trained on its own images, and tested on half of those of another data set.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dual_skd.data import load_records
from dual_skd.data.records.split_file import save_split
from dual_skd.errors import InputError
from dual_skd.utils.files import write_csv
from scripts.benchmark.store import replace_text


def with_variants(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan with every such entry, and every mention of it, replaced by those of its values.

    The report shows them together, too: ``pooled`` of the plan has the names of each entry's data sets.

    Raises:
        InputError: ``leave_out`` isn't one column with a list of values or a number of folds.
    """
    data: dict[str, Any] = {}
    variants: dict[str, list[str]] = {}
    for name, entry in plan["data"].items():
        wanted = entry.get("leave_out")
        if wanted is None:
            data[name] = entry
            continue
        column, parts = next(iter(wanted.items())) if isinstance(wanted, dict) and len(wanted) == 1 else ("", None)
        if not isinstance(parts, list) and not (isinstance(parts, int) and parts > 1):
            raise InputError(
                f"The plan's data set {name!r} has leave_out {wanted!r}; expected one column with a list of values, as "
                '{"site": ["A", "B"]}, or with a number of folds, as {"patient": 5}.'
            )
        held_out = {v: v for v in parts} if isinstance(parts, list) else {n: [n, parts] for n in range(1, parts + 1)}
        variants[name] = [f"{name}_{value}" for value in held_out]
        data |= {f"{name}_{value}": entry | {"leave_out": {column: part}} for value, part in held_out.items()}

    def spread(places: list) -> list:
        return [[one, *rest] for name, *rest in places for one in variants.get(name, [name])]

    tiers = [tier | {"on": spread(tier["on"])} for tier in plan["tiers"]]
    plan = plan | {"data": data, "pooled": variants, "tiers": tiers}
    if "claims" in plan:
        claims = plan["claims"]
        lists = {name: spread(claims[name]) for name in ("scarce", "full") if name in claims}
        if "variants" in claims:
            lists["variants"] = [one | {"on": spread(one["on"])} for one in claims["variants"]]
        plan["claims"] = claims | lists
    return plan


def leave_out(dataset: Path, column: str, part: str | Sequence[int], target: Path, label: str = "label") -> Path:
    """Writes a data list whose test images are those with a value in a column, and the training images all others.

    A split that the table has is replaced; images keep their place, label, patient and all other columns.

    Args:
        dataset: a folder with ``datalist.csv``, or such a table.
        column: its column, for instance "site".
        part: the value that is held out, or the number of the fold and of all folds: then the values are dealt out
            label after label, so that each fold has its share of each (of the label of a value's first image).
        target: CSV to write; left alone where it says the same already.
        label: the column of the labels.

    Returns:
        the target.

    Raises:
        InputError: no such table or column, or no images on one of the sides.
    """
    table = dataset / "datalist.csv" if dataset.is_dir() else dataset
    if not table.is_file():
        raise InputError(f"No {table}; leave_out needs a data set with a table of images, its column {column!r} in it.")
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), list(reader.fieldnames or ())
    missing = [name for name in ("image", column, label) if name not in columns]
    if missing:
        raise InputError(f"{table} has no column {', '.join(missing)}; it has {', '.join(columns)}.")
    values = sorted({row[column] for row in rows})
    if isinstance(part, str):
        held_out = {part}
    else:
        fold, folds = part
        labels = {row[column]: row[label] for row in reversed(rows)}
        # the digest shuffles without a seed: the same folds whatever order the table has
        values.sort(key=lambda value: (labels[value], _digest(value)))
        held_out = set(values[fold - 1 :: folds])
    if not held_out or not held_out < set(values):
        raise InputError(f"{table} has the {column} {', '.join(values)}; {part!r} can't be held out: correct the plan.")
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys([*columns, "split"]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        image = os.path.join(table.parent.absolute(), row["image"])
        writer.writerow(row | {"image": image, "split": "test" if row[column] in held_out else "train"})
    if not target.is_file() or target.read_text(encoding="utf-8") != text.getvalue():
        replace_text(target, text.getvalue())
    return target


def elsewhere(dataset: Path, other: Path, folder: Path) -> tuple[Path, Path]:
    """Writes a split whose test images are of another data set, and a table of further images of that set.

    Every second image of the other set, in the order of their digests, is a test image. The table has the rest without
    labels, for rows that adapt to the other hospital.

    Args:
        dataset: gives training and validation images.
        other: the other data set, with the same classes.
        folder: of the two files.

    Returns:
        split and table.

    Raises:
        InputError: the classes differ.
    """
    home = load_records(dataset, twin_search="never")  # a run searches for them itself
    away = load_records(other, twin_search="never", val_fraction=0.0, test_fraction=0.0)
    if home.class_names != away.class_names:
        raise InputError(
            f"{dataset} has the classes {', '.join(home.class_names)}, and {other} {', '.join(away.class_names)}; "
            "elsewhere in the plan needs the same."
        )
    records = sorted(away.train, key=lambda record: _digest(Path(os.path.relpath(record.image, away.root)).as_posix()))
    tested = [  # hospitals number their patients alike
        replace(record, patient=record.patient and f"{other.name} {record.patient}") for record in records[::2]
    ]
    split = save_split(replace(home, splits=home.splits | {"test": tested}), folder / "split.json")
    write_csv(folder / "unlabelled.csv", [["image"], *([record.image] for record in records[1::2])])
    return split, folder / "unlabelled.csv"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
