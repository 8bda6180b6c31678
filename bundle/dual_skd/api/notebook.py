# SPDX-License-Identifier: Apache-2.0
"""Results as a notebook shows them: their text, a table of metrics, and the curves of the training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dual_skd.evaluation.analysis.run_facts import training_of
from dual_skd.evaluation.pages.markup import Markup, element, number, table
from dual_skd.evaluation.report.plots import inline, training_plots
from dual_skd.utils.files import read_json
from dual_skd.utils.wording import metric_words

if TYPE_CHECKING:
    from dual_skd.api.results import EvaluationResult, Result, TrainingResult


def shown(result: Result, parts: Iterable[Markup] = ()) -> Markup:
    """A result as one element, without scripts, every text escaped; ``parts`` follow its text."""
    rows = [row for row in result.rows() if str(row[1])]
    return element("div", element("p", element("b", result.title())), table(["", ""], rows), *parts)


def training_parts(result: TrainingResult) -> Iterator[Markup]:
    """The metrics of the kept epoch, and the curves of the training."""
    if result.metrics:
        rows = [[metric_words(name), number(value)] for name, value in result.metrics.items()]
        yield table([f"epoch {result.kept_epoch}", "validation images"], rows)
    for plot in training_plots(training_of(read_json(result.output_dir / "metrics.json"))):
        yield element("div", inline(plot), style="max-width: 32em")


def evaluation_parts(result: EvaluationResult) -> Iterator[Markup]:
    """The metrics with their intervals."""
    plain = result.metrics
    head = ["metric", "value", "interval", *["without the temperature"] * (result.calibrated is not None)]
    rows = []
    for name, value in (result.calibrated or plain).items():
        limits = result.intervals.get(name)
        interval = "–" if limits is None else f"{limits[0]:.3f} to {limits[1]:.3f}"
        rows.append([metric_words(name), number(value), interval, number(plain.get(name))][: len(head)])
    yield table(head, rows)
