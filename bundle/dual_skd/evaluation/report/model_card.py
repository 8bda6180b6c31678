# SPDX-License-Identifier: Apache-2.0
"""The model card: what the model is for, what it was made of and how well it does, as Markdown.

In the form that Hugging Face reads, with the topics of CLAIM 2024 (Tejani et al. 2024, Radiology: Artificial
Intelligence 6:e240300) that a run can answer, and those that only its authors can.
"""

from __future__ import annotations

from dual_skd.evaluation.analysis import Analysis
from dual_skd.evaluation.pages.rendering import Table, render
from dual_skd.evaluation.report import decision_tables, patients, risk_tables, tables
from dual_skd.evaluation.report.commands import commands
from dual_skd.evaluation.report.metric_names import METRICS, label
from dual_skd.evaluation.report.patients import MAX_CLASSES


def model_card(analysis: Analysis, explained: bool = False) -> str:
    """The card of an analysis, in Markdown; it names no file and no patient.

    Args:
        analysis: of :func:`dual_skd.evaluation.analysis.analyse`.
        explained: whether the page shows single images with maps.
    """
    sizes = [(role, one.architecture or "", f"{one.parameters or 0:,}", f"{one.macs or 0:,}")
             for role, one in analysis.efficiency.networks.items()]  # fmt: skip
    overall, twins = analysis.metrics.overall, sum(tables.twins(analysis.data))
    values = [(label(name, analysis), overall[name]) for name in METRICS if name in overall]
    small_groups = [
        f"{column} {group.name}: {group.too_small}"
        for column, groups in analysis.subgroups.columns.items() for group in groups if group.too_small
    ]  # fmt: skip
    head, rows = tables.classes(analysis)
    head_of_splits, splits = tables.splits(analysis.data)
    columns = 4 + (len(analysis.data.classes) if len(analysis.data.classes) <= MAX_CLASSES else 0)
    differences = [
        tables.differences(column, found) for column, found in analysis.subgroups.differences.items() if found
    ]  # fmt: skip
    return render(
        "model_card.md",
        analysis=analysis,
        explained=explained,
        small_groups=small_groups,
        selected=[one for one in analysis.selection.stages if one.network == "student"],
        networks=Table(["network", "architecture", "parameters", "MACs per image"], sizes),
        splits=Table(head_of_splits[:columns], [row[:columns] for row in splits]),
        patients=patients,
        twins=twins if twins or analysis.data.twins_searched else "unknown, as no search for them is recorded",
        metrics=Table(["metric", f"value ({analysis.settings.level:.0%} interval)"], values),
        thresholds=_thresholds(analysis),
        classes=Table(head[:6], [row[:6] for row in rows]),
        differences=differences,
        risks=risk_tables.risks(analysis.risk_calibration, analysis.unit.name),
        recalibrated=risk_tables.recalibrated(analysis),
        fitted=risk_tables.fitted(analysis.recalibration),
        commands=commands(analysis),
    )


def _thresholds(analysis: Analysis) -> Table:
    """The thresholds that there are, with what they do on the images measured."""
    head, rows = decision_tables.operating_points(analysis)
    kept = [0, 1, 2, *range(4, len(head))]  # without what they did on the validation images
    chosen = [row for row, point in zip(rows, analysis.operating_points, strict=True) if point.chosen]
    return Table([head[k] for k in kept], [[row[k] for k in kept] for row in chosen])
