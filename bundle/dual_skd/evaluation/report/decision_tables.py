# SPDX-License-Identifier: Apache-2.0
"""The tables of a report about decisions: thresholds, prediction sets, and the patients that a next study needs."""

from __future__ import annotations

from typing import Any

from dual_skd.evaluation.analysis import Analysis
from dual_skd.evaluation.analysis.decisions import ClassThreshold
from dual_skd.evaluation.pages.rendering import Table, number, percent
from dual_skd.metrics.estimates import Estimate
from dual_skd.utils.wording import first_few

THRESHOLD_METRICS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "lr_positive": "LR+",
    "lr_negative": "LR−",
}
PLANNED_METRICS = {"sensitivity": "sensitivity", "specificity": "specificity", "auc": "AUC"}


def rule_of(point: ClassThreshold, units: str) -> str:
    """How a threshold was chosen, in a few words that promise no more than it keeps."""
    if point.wanted is None:
        return "Youden"
    kept = f"on the validation {units}" if point.confidence is None else f"with {point.confidence:.0%} confidence"
    return f"sensitivity ≥ {point.wanted:.0%} {kept}"


def operating_points(analysis: Analysis) -> Table:
    """Thresholds, what they did on the validation images, and what they do here."""
    rows: list[list[Any]] = []
    for point in analysis.operating_points:
        chosen, found, start = point.chosen, point.metrics, [point.class_name, rule_of(point, analysis.unit.many)]
        if chosen is None or found is None:
            rows.append([*start, Estimate(None, reason=point.reason), *["–"] * (1 + len(THRESHOLD_METRICS))])
            continue
        there = f"{chosen.positives}, {chosen.sensitivity:.3f} / {chosen.specificity:.3f}"
        rows.append([*start, f"{chosen.threshold:.4f}", there, *(found[name] for name in THRESHOLD_METRICS)])
    on_validation = f"on validation: {analysis.unit.many} of it, sensitivity / specificity"
    return Table(["class", "rule", "threshold", on_validation, *THRESHOLD_METRICS.values()], rows)


def missed(analysis: Analysis) -> str:
    """In a sentence, which thresholds find fewer here than they were chosen for, by the whole interval; "" for none."""
    below = [
        f"{point.class_name} {number(found.value)} ({rule_of(point, analysis.unit.many)})"
        for point in analysis.operating_points
        for found in [(point.metrics or {}).get("sensitivity", Estimate(None))]
        if point.wanted is not None and found.high is not None and found.high < point.wanted
    ]
    if not below:
        return ""
    return (
        f"Here the sensitivity that was wanted isn't reached, by its whole interval: {first_few(below)}. "
        f"The validation {analysis.unit.many} were too few, or differ from these."
    )


def span(least: int, most: int | None) -> str:
    """From one number of patients to a larger one: "21 to 67"."""
    return f"{least:,}" if most is None or most <= least else f"{least:,} to {most:,}"


def prediction_sets(analysis: Analysis) -> Table:
    """Coverage and size of the prediction sets."""
    sets = analysis.prediction_sets
    per_class = zip(analysis.class_names, sets.coverage_per_class, strict=True)
    return Table(["", "value"], [
        ["coverage that such calibrations have on average", f"{percent(sets.on_average, 0)} or more"],
        ["coverage that 5% of such calibrations stay below", number(sets.least)],
        ["observed coverage", sets.coverage],
        ["mean number of classes in a set", sets.mean_size],
        ["sets of one class", percent(sets.single)],
        *([f"coverage of {name}", value] for name, value in per_class),
    ])  # fmt: skip


def sample_size(analysis: Analysis) -> Table:
    """Patients that a next study needs for the half width that was asked for, by class and metric."""
    who = "patients" if analysis.sample_size.patients_known else "images"
    two = len(analysis.class_names) == 2 and not analysis.multi_label  # whose specificity is the other's sensitivity
    rows = [
        [one.class_name, PLANNED_METRICS[one.metric], (number(one.value), one.reason), number(one.design_effect, 2),
         *("–" if least is None else span(least, most)
           for least, most in ((one.with_class, one.careful_with), (one.without_class, one.careful_without)))]
        for one in analysis.sample_size.needed if not (two and one.metric == "specificity")
    ]  # fmt: skip
    return Table(["class", "metric", "expected, as here", "design effect", f"{who} with it", f"{who} without it"], rows)
