# SPDX-License-Identifier: Apache-2.0
"""Finds what makes a result worthless: unreadable files, copies across splits, contradicting labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from dual_skd.data.datalist import SPLITS, DataList
from dual_skd.data.twins import TwinFinder

# ------------------------------------------------------------------------------------------------------------ check


@dataclass(frozen=True)
class Findings:
    """Everything that a check found; ``errors`` and ``warnings`` say it in sentences.

    Args:
        counts: split -> images per class name.
        unreadable: {"image", "split", "problem"} of files that can't be used.
        twins: {"image", "split", "label", "twin", "twin_split", "twin_label", "exact", "similarity"} of copies.
        shared_patients: {"patient", "splits"} of patients in more than one split.
    """

    counts: dict[str, dict[str, int]]
    unreadable: list[dict] = field(default_factory=list)
    twins: list[dict] = field(default_factory=list)
    shared_patients: list[dict] = field(default_factory=list)

    @property
    def leaks(self) -> list[dict]:
        """Twins that stand in different splits."""
        return [twin for twin in self.twins if twin["split"] != twin["twin_split"]]

    @property
    def conflicts(self) -> list[dict]:
        """Twins with different labels."""
        return [twin for twin in self.twins if twin["label"] != twin["twin_label"]]

    @property
    def errors(self) -> list[str]:
        """What must be mended before a result means anything."""
        found = []
        if self.unreadable:
            first = self.unreadable[0]
            found.append(
                f"{len(self.unreadable)} images can't be read, for example {first['image']}: {first['problem']}."
            )
        if self.shared_patients:
            first = self.shared_patients[0]
            found.append(
                f"{len(self.shared_patients)} patients are in more than one split, for example {first['patient']} in "
                f"{' and '.join(first['splits'])}."
            )
        for (split, other), twins in sorted(_by_splits(self.leaks).items()):
            images = {twin["image"] for twin in twins}
            exact = {twin["image"] for twin in twins if twin["exact"]}
            found.append(
                f"{len(images)} {split} images have a twin in {other} ({len(exact)} exact, {len(images - exact)} near "
                f"copies), for example {twins[0]['image']} and {twins[0]['twin']}."
            )
        if self.conflicts:
            first = self.conflicts[0]
            found.append(
                f"{len(self.conflicts)} pairs of twins have different labels, for example {first['image']} "
                f"({first['label']}) and {first['twin']} ({first['twin_label']})."
            )
        return found

    @property
    def warnings(self) -> list[str]:
        """What a user should know and training survives."""
        inside = Counter(twin["split"] for twin in self.twins if twin["split"] == twin["twin_split"])
        return [f"{count} pairs of twins stand inside the {split} split." for split, count in sorted(inside.items())]

    @property
    def ok(self) -> bool:
        return not self.errors

    def as_dict(self) -> dict:
        """Plain types, for a JSON file."""
        return {
            "ok": self.ok,
            "errors": self.errors,
            "warnings": self.warnings,
            "counts": self.counts,
            "unreadable": self.unreadable,
            "shared_patients": self.shared_patients,
            "twins": self.twins,
        }


def check_records(data: DataList, *, finder: TwinFinder | None = None) -> Findings:
    """Opens every image and looks for what would spoil a result.

    Args:
        data: a data set as given, loaded with ``keep_twins=True``.
        finder: signatures of all its images; computed when not given.
    """
    finder = finder or _finder_of(data)
    split_of = {record["image"]: split for split in SPLITS for record in data.splits[split]}
    label_of = {r["image"]: _label_name(r["label"], data) for split in SPLITS for r in data.splits[split]}
    patient_of = {r["image"]: r["patient"] for split in SPLITS for r in data.splits[split]}
    images = sorted(split_of, key=lambda image: (-SPLITS.index(split_of[image]), image))  # test images come first
    twins = [
        {
            "image": data.relative(twin.image),
            "split": split_of[twin.image],
            "label": label_of[twin.image],
            "twin": data.relative(twin.twin),
            "twin_split": split_of[twin.twin],
            "twin_label": label_of[twin.twin],
            "exact": twin.exact,
            "similarity": twin.similarity,
        }
        for twin in finder.twins(images, images)
        # neighbouring slices and registered sequences of one patient are alike and no copies
        if twin.exact or not patient_of[twin.image] or patient_of[twin.image] != patient_of[twin.twin]
    ]
    patients: dict[str, set[str]] = {}
    for split in SPLITS:
        for record in data.splits[split]:
            if record["patient"]:
                patients.setdefault(record["patient"], set()).add(split)
    return Findings(
        counts={split: dict(zip(data.class_names, data.class_counts(split), strict=True)) for split in SPLITS},
        unreadable=[
            {"image": data.relative(image), "split": split_of[image], "problem": problem}
            for image, problem in finder.unreadable.items()
        ],
        twins=sorted(twins, key=lambda twin: (-twin["similarity"], twin["image"], twin["twin"])),
        shared_patients=[
            {"patient": patient, "splits": sorted(splits, key=SPLITS.index)}
            for patient, splits in sorted(patients.items())
            if len(splits) > 1
        ],
    )


def _finder_of(data: DataList) -> TwinFinder:
    images = [record["image"] for split in SPLITS for record in data.splits[split]]
    return TwinFinder(images, spatial_dims=data.spatial_dims)


def _label_name(label: int | list[float], data: DataList) -> str:
    if isinstance(label, list):
        return "|".join(name for name, flag in zip(data.class_names, label, strict=True) if flag)
    return data.class_names[label]


def _by_splits(twins: Iterable[dict]) -> dict[tuple[str, str], list[dict]]:
    groups: dict[tuple[str, str], list[dict]] = {}
    for twin in twins:
        groups.setdefault((twin["split"], twin["twin_split"]), []).append(twin)
    return groups
