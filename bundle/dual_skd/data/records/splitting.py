# SPDX-License-Identifier: Apache-2.0
"""Seeded division of records, stratified by label and site and never through a patient."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from dual_skd.data.records.record import Record
from dual_skd.errors import InputError


def divide(records: Sequence[Record], *, fraction: float, seed: int, purpose: str) -> tuple[list[Record], list[Record]]:
    """Takes about ``fraction`` of every class, whole patients at a time, and of the sites in the same proportion.

    The order in which patients are taken depends on ``seed`` and ``purpose`` alone, so the share taken at a small
    fraction is contained in the one at a larger fraction (what a learning curve needs).

    Args:
        records: an image of an unknown patient counts as a patient of its own.
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
    groups = _by_patient(records)
    taken: set[str] = set()
    for stratum, names in _strata(records, groups):
        names = _shuffled(names, groups, f"{purpose}/{seed}/{stratum}")
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


def far_from_asked(taken: Sequence[Record], left: Sequence[Record], *, fraction: float, split: str) -> list[str]:
    """At most one sentence, about a part that is much larger or smaller than asked for, as patients stay together.

    Much is half of what was asked for, and more than a patient of each class makes.
    """
    images = len(taken) + len(left)
    groups = _by_patient([*taken, *left])
    classes = {label for record in (*taken, *left) for label in record.positive_labels}
    wanted = fraction * images
    if not groups or abs(len(taken) - wanted) <= max(wanted / 2, len(classes) * images / len(groups)):
        return []
    return [
        f"{len(taken)} of {images} images are {split} images ({len(taken) / images:.0%}), where {fraction:.0%} were "
        "asked for, as the images of a patient stay together"
    ]


def divide_into_folds(
    records: Sequence[Record], *, folds: int, seed: int, class_names: Sequence[str]
) -> list[list[Record]]:
    """Divides records into disjoint folds with equal shares of every class and site, whole patients each.

    Args:
        records: as for :func:`divide`.
        folds: how many, at least 2.
        seed: seed of the random order.
        class_names: names of the labels, for errors.

    Returns:
        ``folds`` lists, each in the order of ``records``.

    Raises:
        InputError: more folds than patients of a class.
    """
    groups = _by_patient(records)
    for label, name in enumerate(class_names):
        count = sum(any(label in r.positive_labels for r in members) for members in groups.values())
        if count < folds:
            raise InputError(
                f"{folds} folds need as many patients of every class, but there are {count} of {name} in the training "
                "part (images of unknown patients count as one each); ask for fewer folds or add data."
            )
    held: list[Counter] = [Counter() for _ in range(folds)]
    fold_of: dict[str, int] = {}
    for stratum, names in _strata(records, groups):
        names = _shuffled(names, groups, f"folds/{seed}/{stratum}")
        # large ones first: the small ones then even out what these left uneven
        for name in sorted(names, key=lambda name: -len(groups[name])):
            site = _site(groups[name])
            fold = min(
                range(folds),
                key=lambda k: (held[k][stratum, site], held[k][stratum], held[k]["images"]),
            )
            fold_of[name] = fold
            for key in ((stratum, site), stratum, "images"):
                held[fold][key] += len(groups[name])
    parts: list[list[Record]] = [[] for _ in range(folds)]
    for record in records:
        parts[fold_of[_patient(record)]].append(record)
    return parts


def _patient(record: Record) -> str:
    """The patient of a record; an image of an unknown patient is a patient of its own."""
    return f"patient {record.patient}" if record.patient else f"image {record.image}"


def _by_patient(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[_patient(record)].append(record)
    return groups


def _strata(records: Sequence[Record], groups: dict[str, list[Record]]) -> list[tuple[int, list[str]]]:
    """(label, its patients), by the rarest label a patient has: rare classes are the ones a division could lose.

    Patients without any label have the label -1.
    """
    counts = Counter(label for record in records for label in record.positive_labels)
    strata: dict[int, list[str]] = defaultdict(list)
    for name, members in groups.items():
        labels = {label for record in members for label in record.positive_labels}
        strata[min(labels, key=lambda label: (counts[label], label), default=-1)].append(name)
    return sorted(strata.items())


def _site(members: Sequence[Record]) -> str:
    return min(record.site for record in members)


def _shuffled(names: Sequence[str], groups: dict[str, list[Record]], seed: str) -> list[str]:
    """Patients in random order, in which every beginning has the sites in about the proportion of the whole."""
    sites: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        sites[_site(groups[name])].append(name)
    place: dict[str, float] = {}
    for site, members in sorted(sites.items()):
        generator = random.Random(f"{seed}/{site}" if site else seed)
        generator.shuffle(members)
        start = generator.random()
        place.update({name: (rank + start) / len(members) for rank, name in enumerate(members)})
    return sorted(place, key=place.__getitem__)
