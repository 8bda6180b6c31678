# SPDX-License-Identifier: Apache-2.0
"""Results as a notebook shows them: their text, a table of metrics, and the curves of the training."""

from __future__ import annotations

from collections.abc import Iterator

from dual_skd.api.results import EvaluationResult, Result, TrainingResult
from dual_skd.evaluation.analysis import training_of
from dual_skd.evaluation.pages.markup import Markup, element, number, table
from dual_skd.evaluation.report.plots import inline, training_plots
from dual_skd.utils.files import read_json
from dual_skd.utils.wording import metric_words


def shown(result: Result) -> Markup:
    """A result as one element, without scripts, every text escaped."""
    rows = [row for row in result.rows() if str(row[1])]
    parts: Iterator[Markup] = iter(())
    if isinstance(result, TrainingResult):
        parts = _training(result)
    elif isinstance(result, EvaluationResult):
        parts = _evaluation(result)
    return element("div", element("p", element("b", result.title())), table(["", ""], rows), *parts)


def _training(result: TrainingResult) -> Iterator[Markup]:
    if result.metrics:
        rows = [[metric_words(name), number(value)] for name, value in result.metrics.items()]
        yield table([f"epoch {result.kept_epoch}", "validation images"], rows)
    for plot in training_plots(training_of(read_json(result.output_dir / "metrics.json"))):
        yield element("div", inline(plot), style="max-width: 32em")


def _evaluation(result: EvaluationResult) -> Iterator[Markup]:
    plain = result.metrics
    head = ["metric", "value", "interval", *["without the temperature"] * (result.calibrated is not None)]
    rows = []
    for name, value in (result.calibrated or plain).items():
        limits = result.intervals.get(name)
        interval = "–" if limits is None else f"{limits[0]:.3f} to {limits[1]:.3f}"
        rows.append([metric_words(name), number(value), interval, number(plain.get(name))][: len(head)])
    yield table(head, rows)
