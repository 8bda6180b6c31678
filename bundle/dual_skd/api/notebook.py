# SPDX-License-Identifier: Apache-2.0
"""Results as a notebook shows them: their text, a table of metrics, and the curves of the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dual_skd.evaluation.analysis.run_facts import training_of
from dual_skd.evaluation.pages.rendering import Table, number, render
from dual_skd.evaluation.report.drawing import Plot
from dual_skd.evaluation.report.plots import training_plots
from dual_skd.runs.metrics_file import read_metrics
from dual_skd.utils.wording import metric_words

if TYPE_CHECKING:
    from dual_skd.api.results import EvaluationResult, Result, TrainingResult


def result_html(result: Result, tables: Sequence[Table] = (), plots: Sequence[Plot] = ()) -> str:
    """A result as one element without scripts: its text, then tables and plots."""
    rows = [row for row in result.rows() if str(row[1])]
    return render("result.html", title=result.title(), tables=[Table(["", ""], rows), *tables], plots=plots)


def training_html(result: TrainingResult) -> str:
    """A training with the metrics of the kept epoch and the curves of all epochs."""
    rows = [[metric_words(name), number(value)] for name, value in result.metrics.items()]
    tables = [Table([f"epoch {result.kept_epoch}", "validation images"], rows)] if rows else []
    return result_html(result, tables, training_plots(training_of(read_metrics(result.output_dir))))


def evaluation_html(result: EvaluationResult) -> str:
    """An evaluation with its metrics and their intervals."""
    plain = result.metrics
    head = ["metric", "value", "interval", *["without the temperature"] * (result.calibrated is not None)]
    rows = []
    for name, value in (result.calibrated or plain).items():
        limits = result.intervals.get(name)
        interval = "–" if limits is None else f"{limits[0]:.3f} to {limits[1]:.3f}"
        rows.append([metric_words(name), number(value), interval, number(plain.get(name))][: len(head)])
    return result_html(result, [Table(head, rows)])
