# SPDX-License-Identifier: Apache-2.0
"""What a learning curve found: its runs as a table, as a plot and in words."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dual_skd.utils.files import replace_file, write_csv, write_text
from dual_skd.utils.wording import aligned, quoted

CONTROL = "single"
METRICS = {"balanced_accuracy": "balanced accuracy", "macro_auc": "macro AUC", "ece": "ECE"}

Curves = dict[str, dict[float, list["Measured"]]]  # method -> share -> runs


class Cell(NamedTuple):
    """One run of the curve."""

    method: str
    fraction: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.method}_{self.fraction:g}_{self.seed}"


class Measured(NamedTuple):
    """What a finished run found.

    Attributes:
        cell: which one.
        images: labelled images that it had, of training and validation.
        metrics: of the student on the test images, by name; None where one isn't defined.
    """

    cell: Cell
    images: int
    metrics: dict[str, float | None]


def by_share(found: Iterator[Measured]) -> Curves:
    """Finished runs by method, the control first, and share, the smallest first."""
    curves: Curves = {}
    for one in sorted(found, key=lambda one: (one.cell.method != CONTROL, *one.cell)):
        curves.setdefault(one.cell.method, {}).setdefault(one.cell.fraction, []).append(one)
    return curves


def mean_and_spread(runs: Sequence[Measured], metric: str) -> tuple[float, float] | None:
    """Mean and standard deviation over the seeds, 0 of a single one; None where the metric isn't defined."""
    values = [value for one in runs if (value := one.metrics[metric]) is not None]
    return (statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0) if values else None


def rows(curves: Curves) -> list[list[str]]:
    """Cells of the table: a line per method and share, mean and standard deviation over seeds."""
    found = [["method", "share", "images", "runs", *METRICS.values()]]
    for method, shares in curves.items():
        for fraction, runs in shares.items():
            images = round(statistics.fmean(one.images for one in runs))
            line = [method, f"{fraction:.4g}", str(images), str(len(runs))]
            for metric in METRICS:
                value = mean_and_spread(runs, metric)
                spread = f" ± {value[1]:.3f}" if value and len(runs) > 1 else ""
                line.append(f"{value[0]:.3f}{spread}" if value else "–")
            found.append(line)
    return found


def write(curves: Curves, curve: Path) -> None:
    """Writes the table, all runs line by line, and the plot."""
    head, *body = rows(curves)
    lines = [head, ["---"] * len(head), *body]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    write_text(curve / "learning_curve.md", text)
    measured = [one for shares in curves.values() for runs in shares.values() for one in runs]
    values = ([*one.cell, one.images, *one.metrics.values()] for one in measured)
    write_csv(curve / "learning_curve.csv", [[*Cell._fields, "images", *METRICS], *values])
    replace_file(curve / "learning_curve.png", lambda draft: plot(curves, draft))


def plot(curves: Curves, path: Path) -> None:
    """One panel per metric, shares on a logarithmic axis."""
    import matplotlib
    from matplotlib.figure import Figure

    from dual_skd.evaluation.report.drawing import PALETTE, STYLE

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4 * len(METRICS), 3.4), layout="constrained")
        panels = figure.subplots(1, len(METRICS))
        for panel, (metric, title) in zip(panels, METRICS.items(), strict=True):
            for color, (method, shares) in zip(PALETTE, curves.items(), strict=False):
                points = [(at, *value) for at, runs in shares.items() if (value := mean_and_spread(runs, metric))]
                at, mean, spread = zip(*points, strict=True) if points else ((), (), ())
                panel.plot(at, mean, marker="o", color=color, label=method)
                low, high = ([m + sign * s for m, s in zip(mean, spread, strict=True)] for sign in (-1, 1))
                panel.fill_between(at, low, high, alpha=0.2, color=color, linewidth=0)
            ticks = sorted({fraction for shares in curves.values() for fraction in shares})
            panel.set(
                xscale="log", xlabel="share of the labelled images", title=title.replace("ECE", "ECE, lower is better")
            )
            panel.set_xticks(ticks, [f"{fraction:g}" for fraction in ticks])
            panel.minorticks_off()
        panels[0].legend()
        figure.savefig(path, format="png", dpi=150)


def closing_lines(curves: Curves, curve: Path) -> list[str]:
    """What was found and where it is, and what to do next."""
    lines = ["", *aligned(rows(curves)), ""]
    lines.append("On the test images, mean ± standard deviation over the seeds. ECE, the expected")
    lines.append("calibration error: lower is better.")
    largest = max(fraction for shares in curves.values() for fraction in shares)
    both = [shares[largest][0].cell for shares in curves.values() if largest in shares]
    lines.append(f"Table: {curve / 'learning_curve.md'}, every run: {curve / 'learning_curve.csv'}")
    lines.append(f"Plot:  {curve / 'learning_curve.png'}")
    if len(both) == 2:
        first, second = (quoted(curve / "runs" / cell.name) for cell in reversed(both))
        lines.append(f"Next:  dual-skd compare {first} {second}")
    return lines
