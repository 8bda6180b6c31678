# SPDX-License-Identifier: Apache-2.0
"""Data sets without known patients, and the part of the file names that may name them."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from dual_skd.data.records.rows import Row

# a word or none, a number, and what ends it: person100_virus_184.jpeg, IM-0115-0001.jpeg, 00000013_005.png
_START = re.compile(r"(?P<word>[A-Za-z]*[-_ ]?)(?P<number>\d+)(?P<end>[-_ ])")
_UNKNOWN = (
    "no patients are known, so each image counts as one; where several are of one patient, results look better and "
    "surer than they are"
)


def unknown_patients(rows: Sequence[Row], root: str | Path, pattern: str | None = None) -> tuple[list[str], list[str]]:
    """A sentence on a set of which no patient is known, with the pattern to give where file names may name them.

    Args:
        rows: all images, with the patients that are known.
        root: of the set, to which patterns are relative.
        pattern: that the user gave; "" says that paths name no patients.

    Returns:
        (notes, doubts), at most one sentence in all: a doubt where names look like those of patients.
    """
    if not rows or any(row.patient for row in rows):
        return [], []
    if pattern == "":
        return [_UNKNOWN], []
    paths = [os.path.relpath(row.image, root) for row in rows]
    found = _start_of_names(paths, classes=len({label for row in rows for label in row.labels}))
    if found is None:
        return [f"{_UNKNOWN}; --patient-pattern says where a path names them"], []
    offered, example, count = found
    return [], [
        f"{_UNKNOWN}. {count} of {len(paths)} file names begin like another one, such as {example}: if this is the "
        f'patient, add --patient-pattern "{offered}"'
    ]


def _start_of_names(paths: Sequence[str], classes: int) -> tuple[str, str, int] | None:
    """(pattern, an example, images) of the numbers at the start of names that several images share, or None.

    They are no patients where less than a quarter of the images share one, where a third or more have the same, or
    where there are about as few as classes.
    """
    numbers: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in paths:
        if start := _START.match(os.path.basename(path)):
            numbers[start["word"], start["end"]].append(start["number"])
    best: tuple[str, str, int] | None = None
    for (word, end), members in numbers.items():
        counts = Counter(members)
        shared = sum(count for count in counts.values() if count > 1)
        (number, most), *_ = counts.most_common(1)
        if 4 * shared < len(paths) or 3 * most >= len(paths) or len(counts) <= 2 * classes:
            continue
        if best is None or shared > best[2]:
            best = _pattern(word, end, paths), f"{word}{number}{end}", shared
    return best


def _pattern(word: str, end: str, paths: Sequence[str]) -> str:
    """The shortest pattern that finds these numbers and nothing else in the paths."""
    short, whole = rf"{word}(\d+){end}", rf"(?:^|/){word}(\d+){end}[^/]*$"
    same = all(_first(short, path) == _first(whole, path) for path in paths)
    return short if same else whole


def _first(pattern: str, path: str) -> str | None:
    found = re.search(pattern, path)
    return found[1] if found else None
