# SPDX-License-Identifier: Apache-2.0
"""The groups that the columns of a data list divide its images into, such as sites, each measured by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dual_skd.data.records.rows import cell_text
from dual_skd.evaluation.analysis.predictions import Predictions
from dual_skd.evaluation.run_files import Unit
from dual_skd.metrics.subgroup_differences import GroupDifference, group_differences
from dual_skd.metrics.subgroups import Subgroup, subgroup_metrics
from dual_skd.utils.spelling import known_group
from dual_skd.utils.wording import counted

MAX_GROUPS = 12
MAX_COLUMNS = 8
RECORD_KEYS = ("image", "label", "patient", "split", "twin", "similarity", "exact")  # of every data list; no groups
# words in the names of columns that point at a person rather than at a group of them
PERSONAL = ("patient", "name", "birth", "date", "time", "accession", "uid", "mrn", "id")


@dataclass(frozen=True)
class Subgroups:
    """Groups of images by column, columns that were passed over, and why there are no groups at all."""

    columns: dict[str, tuple[Subgroup, ...]]
    differences: dict[str, tuple[GroupDifference, ...]]  # from the group of each column with the most patients
    notes: list[str]
    reason: str


def group_columns(records: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[str]], list[str]]:
    """Columns of a data list that divide its images into a few groups.

    Args:
        records: of the images, in order.

    Returns:
        name -> group of each image, "" for an unknown one; and a sentence per column that was passed over. Columns
        that name or date a person aren't used, nor those with more than ``MAX_GROUPS`` values or a value per image.
    """
    columns: dict[str, list[str]] = {}
    notes: list[str] = []
    for name in dict.fromkeys(key for record in records for key in record if key not in RECORD_KEYS):
        values = [known_group(cell_text(record.get(name))) for record in records]
        groups = set(values) - {""}
        if len(groups) < 2:
            continue
        if _personal(name):
            notes.append(f"{name} isn't used: it seems to name or date persons")
        elif len(groups) > MAX_GROUPS or 2 * len(groups) > len(values):
            notes.append(f"{name} isn't used: it has {len(groups)} values for {len(values)} images")
        elif len(columns) == MAX_COLUMNS:
            notes.append(f"{name} isn't used: {MAX_COLUMNS} columns are shown at most")
        else:
            columns[name] = values
    return columns, notes


def _personal(name: str) -> bool:
    """Whether the name of a column points at persons."""
    words = name.lower().replace("-", "_").replace(" ", "_").split("_")
    return any(word in PERSONAL for word in words) or any(mark in name.lower() for mark in PERSONAL[:4])


def subgroups_of(predictions: Predictions, records: Sequence[Mapping[str, Any]], unit: Unit) -> Subgroups:
    """Each group measured by itself, its intervals from half of the resamples, and how far groups differ."""
    columns, notes = group_columns(records)
    notes += [
        f"{name}: of {counted(count, 'patient')} the images differ in it, so "
        + ("these are of no known group" if name in columns else "it isn't used")
        for name, count in unit.mixed_columns.items()
        if name not in RECORD_KEYS and not _personal(name)
    ]
    binary = len(predictions.class_names) == 2 and not predictions.multi_label
    metrics = ["accuracy", "balanced_accuracy", "macro_auc", *(["sensitivity", "specificity"] if binary else [])]
    p, labels, patients, several = (
        predictions.probabilities, predictions.labels, predictions.patients, predictions.multi_label
    )  # fmt: skip
    found, differences = {}, {}
    for column, groups in columns.items():
        measured = subgroup_metrics(
            p, labels, groups, patients, metrics=metrics, class_names=predictions.class_names, multi_label=several,
            unit=unit.name, **predictions.options(share=2),
        )  # fmt: skip
        found[column] = tuple(measured.values())
        differences[column] = group_differences(p, labels, groups, patients, measured, multi_label=several)
    reason = "" if found else "no subgroups: the data list has no column, such as site or sex, with two groups or more"
    return Subgroups(found, differences, notes, reason)
