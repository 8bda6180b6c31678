# SPDX-License-Identifier: Apache-2.0
"""The page of a report: one HTML file without scripts and without links, from an analysis, its plots and its pictures.

What a reader wants to know first stands first: the result, the errors, the decisions, how far to trust them; then what
the run was made of. The words are in the templates, ``pages/templates/report.html`` and ``report/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dual_skd.evaluation.analysis import Analysis
from dual_skd.evaluation.pages.rendering import render
from dual_skd.evaluation.report import decision_tables, patients, risk_tables, tables
from dual_skd.evaluation.report.cases import KINDS, Case
from dual_skd.evaluation.report.commands import capital_words, commands
from dual_skd.evaluation.report.drawing import Plot
from dual_skd.evaluation.report.headline import headline, question
from dual_skd.evaluation.report.metric_names import KEY_METRICS, meaning
from dual_skd.metrics.calibration import FEW

SECTIONS = {
    "answers": "Right and wrong answers",
    "images": "Single images",
    "numbers": "All numbers",
    "thresholds": "Operating points",
    "calibration": "Calibration and uncertainty",
    "subgroups": "Subgroups",
    "data": "Data",
    "training": "Training",
    "efficiency": "Size and speed",
    "selection": "Weight selection",
    "run": "How it was made",
}


@dataclass(frozen=True)
class ReportContent:
    """What a page is made of.

    Attributes:
        analysis: of :func:`dual_skd.evaluation.analysis.analyse`.
        plots: of :func:`dual_skd.evaluation.report.plots.all_plots`.
        run: name of the run, that of its folder.
        selection: rows of ``selection_report.csv``.
        cases: explained images.
        cases_reason: why there are fewer or none; "" where nothing is missing.
        description: of the data set, where names may be shown; else "".
        show_names: whether names of files may stand on the page.
        skipped: files of the data set that can't be used.
    """

    analysis: Analysis
    plots: Mapping[str, Sequence[Plot]] = field(default_factory=dict)
    run: str = ""
    selection: Sequence[Mapping[str, str]] = ()
    cases: Sequence[Case] = ()
    cases_reason: str = ""
    description: str = ""
    show_names: bool = False
    skipped: Sequence[Mapping[str, Any]] = ()

    def drawn(self, *sections: str) -> list[Plot]:
        """The plots of some sections."""
        return [plot for section in sections for plot in self.plots.get(section, ())]


def page(content: ReportContent) -> str:
    """The whole HTML document."""
    analysis, made_by = content.analysis, commands(content.analysis)
    words, others = capital_words(made_by)
    return render(
        "report.html",
        report=content,
        analysis=analysis,
        tables=tables,
        decision_tables=decision_tables,
        risk_tables=risk_tables,
        question=question(analysis.class_names, analysis.multi_label),
        patients=patients,
        unit=analysis.unit.name,
        units=analysis.unit.many,
        headline=headline(analysis),
        key_metrics=KEY_METRICS,
        meaning=meaning,
        sections=list(SECTIONS.items()),
        case_kinds=KINDS,
        few=FEW,
        commands=made_by,
        capital_words=words,
        other_capital_words=others,
    )
