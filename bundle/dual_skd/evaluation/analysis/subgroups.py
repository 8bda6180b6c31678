# SPDX-License-Identifier: Apache-2.0
"""The groups that the columns of a data list divide its images into, such as sites, each measured by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dual_skd.data.records.rows import cell_text
from dual_skd.evaluation.analysis.predictions import Predictions
from dual_skd.metrics.subgroups import Subgroup, subgroup_metrics
from dual_skd.utils.spelling import known_group

MAX_GROUPS = 12
MAX_COLUMNS = 8
RECORD_KEYS = ("image", "label", "patient", "split", "twin", "similarity", "exact")  # of every data list; no groups
# words in the names of columns that point at a person rather than at a group of them
PERSONAL = ("patient", "name", "birth", "date", "time", "accession", "uid", "mrn", "id")


@dataclass(frozen=True)
class Subgroups:
    """Groups of images by column, columns that were passed over, and why there are no groups at all."""

    columns: dict[str, tuple[Subgroup, ...]]
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
        words = name.lower().replace("-", "_").replace(" ", "_").split("_")
        values = [known_group(cell_text(record.get(name))) for record in records]
        groups = set(values) - {""}
        if len(groups) < 2:
            continue
        if any(word in PERSONAL for word in words) or any(mark in name.lower() for mark in PERSONAL[:4]):
            notes.append(f"{name} isn't used: it seems to name or date persons")
        elif len(groups) > MAX_GROUPS or 2 * len(groups) > len(values):
            notes.append(f"{name} isn't used: it has {len(groups)} values for {len(values)} images")
        elif len(columns) == MAX_COLUMNS:
            notes.append(f"{name} isn't used: {MAX_COLUMNS} columns are shown at most")
        else:
            columns[name] = values
    return columns, notes


def subgroups_of(predictions: Predictions, records: Sequence[Mapping[str, Any]]) -> Subgroups:
    """Each group measured by itself, its intervals from half of the resamples."""
    columns, notes = group_columns(records)
    binary = len(predictions.class_names) == 2 and not predictions.multi_label
    metrics = ["accuracy", "balanced_accuracy", "macro_auc", *(["sensitivity", "specificity"] if binary else [])]
    found = {
        column: tuple(subgroup_metrics(
            predictions.probabilities, predictions.labels, groups, predictions.patients, metrics=metrics,
            class_names=predictions.class_names, multi_label=predictions.multi_label, **predictions.options(share=2),
        ).values())
        for column, groups in columns.items()
    }  # fmt: skip
    reason = "" if found else "no subgroups: the data list has no column, such as site or sex, with two groups or more"
    return Subgroups(found, notes, reason)
