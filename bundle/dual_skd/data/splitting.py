# SPDX-License-Identifier: Apache-2.0
"""Seeded division of records, stratified by label and never through a patient."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence


def divide(records: Sequence[dict], *, fraction: float, seed: int, purpose: str) -> tuple[list[dict], list[dict]]:
    """Takes about ``fraction`` of every class, whole patients at a time.

    The order in which patients are taken depends on ``seed`` and ``purpose`` alone, so the share taken at a small
    fraction is contained in the one at a larger fraction (what a learning curve needs).

    Args:
        records: dicts with "image", "label" (int, or a list of 0/1) and "patient" ("" when unknown).
        fraction: share of images to take, 0 to 1. A class with two or more patients gives at least one, and keeps
            at least one, for any fraction strictly between.
        seed: seed of the random order.
        purpose: name of the division, so that different divisions with one seed are independent.

    Returns:
        (taken, left), each in the order of ``records``.
    """
    if fraction <= 0:
        return [], list(records)
    if fraction >= 1:
        return list(records), []
    groups: dict[str, list[dict]] = defaultdict(list)
    for record in records:
        # an image of an unknown patient is a patient of its own
        groups[f"patient {record['patient']}" if record["patient"] else f"image {record['image']}"].append(record)
    counts = Counter(label for record in records for label in positive_labels(record))
    strata: dict[int, list[str]] = defaultdict(list)
    for name, members in groups.items():
        strata[_stratum(members, counts)].append(name)

    taken: set[str] = set()
    for stratum, names in sorted(strata.items()):
        names = sorted(names)
        random.Random(f"{purpose}/{seed}/{stratum}").shuffle(names)
        wanted = fraction * sum(len(groups[name]) for name in names)
        most = max(len(names) - 1, 0)
        so_far = 0
        for place, name in enumerate(names[:most]):
            size = len(groups[name])
            # stop where one more patient would miss the wanted number by more than it helps
            if place > 0 and so_far + size - wanted > wanted - so_far:
                break
            taken.add(name)
            so_far += size
    chosen = {id(record) for name in taken for record in groups[name]}
    return [r for r in records if id(r) in chosen], [r for r in records if id(r) not in chosen]


def positive_labels(record: dict) -> list[int]:
    """Class indices that a record has: one, or those with flag 1 in a multi-label record."""
    label = record["label"]
    if isinstance(label, list):
        return [index for index, flag in enumerate(label) if flag]
    return [label]


def _stratum(members: Sequence[dict], counts: Counter) -> int:
    """The rarest label a patient has, or -1 for none: rare classes are the ones that a division could lose."""
    labels = {label for record in members for label in positive_labels(record)}
    return min(labels, key=lambda label: (counts[label], label), default=-1)
