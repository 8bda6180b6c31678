# SPDX-License-Identifier: Apache-2.0
"""What the page of a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dual_skd.evaluation.pages.frame import figures
from dual_skd.evaluation.pages.markup import Markup
from dual_skd.evaluation.report.cases import Case
from dual_skd.evaluation.report.plots import Plot, inline


@dataclass(frozen=True)
class Content:
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
        written: date of the page.
        version: of this package.
        skipped: files of the data set that can't be used.
    """

    analysis: Mapping[str, Any]
    plots: Mapping[str, Sequence[Plot]]
    run: str = ""
    selection: Sequence[Mapping[str, str]] = ()
    cases: Sequence[Case] = ()
    cases_reason: str = ""
    description: str = ""
    show_names: bool = False
    written: str = ""
    version: str = ""
    skipped: Sequence[Mapping[str, Any]] = ()

    def drawn(self, *names: str) -> Markup:
        """The plots of some sections, beside each other."""
        return figures([inline(plot) for name in names for plot in self.plots.get(name, ())])
