# SPDX-License-Identifier: Apache-2.0
"""The tables of a report about the risk of each class, and its recalibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dual_skd.evaluation.analysis import Analysis
from dual_skd.evaluation.analysis.recalibration import Recalibrated
from dual_skd.evaluation.pages.rendering import Table, number
from dual_skd.evaluation.report.metric_names import label
from dual_skd.metrics.risks import RiskCalibration

ENOUGH = 100  # patients with and without a class, for numbers that say something (Vergouwe 2005; Collins 2016)


def risks(found: Sequence[RiskCalibration], unit: str) -> Table:
    """Slope, intercept and observed / expected of each class; of patients (``unit``) without a number of images."""
    images = unit == "image"
    head = ["class", *["images of it"] * images, "patients with it", "slope", "intercept", "observed / expected"]
    rows = [
        [one.class_name, *[one.events] * images, one.event_patients, one.slope, one.intercept, one.observed_expected]
        for one in found
    ]
    return Table(head, rows)


def fitted(found: Recalibrated) -> Table:
    """The fitted numbers of each class, with as many digits as applying them takes."""
    intercepts, slopes = found.intercepts or {}, found.slopes or {}
    rows = [[name, number(value, 6), number(slopes[name], 6)] for name, value in intercepts.items()]
    return Table(["class", "intercept", "slope"], rows)


def recalibrated(analysis: Analysis) -> Table:
    """Every number as it is and recalibrated, on the same images."""
    before, after = analysis.recalibration.before, analysis.recalibration.after
    if before is None or after is None:
        return Table(["number", "as it is", "recalibrated"], [])
    rows: list[list[Any]] = [[label(name, analysis), one, after.metrics[name]] for name, one in before.metrics.items()]
    for one, other in zip(before.classes, after.classes, strict=True):
        rows += [
            [f"{one.class_name}: {what}", getattr(one, name), getattr(other, name)]
            for name, what in (
                ("slope", "slope"),
                ("intercept", "intercept"),
                ("observed_expected", "observed / expected"),
            )
        ]
    return Table(["number", "as it is", "recalibrated"], rows)


def few_patients(found: Sequence[RiskCalibration], patients: int) -> bool:
    """Whether a class has fewer patients with it, or without it, than would say something.

    Args:
        found: of each class.
        patients: of all images.
    """
    return any(min(one.event_patients, patients - one.event_patients) < ENOUGH for one in found)
