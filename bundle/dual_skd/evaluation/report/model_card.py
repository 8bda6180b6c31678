# SPDX-License-Identifier: Apache-2.0
"""The model card: what the model is for, what it was made of and how well it does, as Markdown.

In the form that Hugging Face reads, with the topics of CLAIM 2024 (Tejani et al. 2024, Radiology: Artificial
Intelligence 6:e240300) that a run can answer, and those that only its authors can.
"""

from __future__ import annotations

from dual_skd.evaluation.analysis import Analysis
from dual_skd.evaluation.pages.rendering import Table, render
from dual_skd.evaluation.report import risk_tables, tables
from dual_skd.evaluation.report.commands import commands
from dual_skd.evaluation.report.metric_names import METRICS, label


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
    _, splits = tables.splits(analysis.data)
    return render(
        "model_card.md",
        analysis=analysis,
        explained=explained,
        small_groups=small_groups,
        selected=[one for one in analysis.selection.stages if one.network == "student"],
        networks=Table(["network", "architecture", "parameters", "MACs per image"], sizes),
        splits=Table(["split", "images", "patients", "images without a known patient"], [row[:4] for row in splits]),
        twins=twins if twins or analysis.data.twins_searched else "unknown, as no search for them is recorded",
        metrics=Table(["metric", f"value ({analysis.settings.level:.0%} interval)"], values),
        classes=Table(head[:5], [row[:5] for row in rows]),
        risks=risk_tables.risks(analysis.risk_calibration),
        recalibrated=risk_tables.recalibrated(analysis),
        fitted=risk_tables.fitted(analysis.recalibration),
        commands=commands(analysis),
    )
