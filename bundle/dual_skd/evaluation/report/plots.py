# SPDX-License-Identifier: Apache-2.0
"""The plots of a report, drawn from its analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dual_skd.evaluation.analysis import Analysis
from dual_skd.evaluation.analysis.decisions import ClassCurve, ClassDecisionCurve
from dual_skd.evaluation.analysis.run_facts import Training
from dual_skd.evaluation.report.drawing import (
    CURVES_PER_PLOT,
    DASHES,
    GREY,
    PALETTE,
    Plot,
    cut,
    new_figure,
    rendered,
    style,
)
from dual_skd.evaluation.report.risk_plots import risk_curves
from dual_skd.metrics.estimates import Estimate
from dual_skd.runs.recorder import LOWER_IS_BETTER
from dual_skd.utils.wording import metric_words


def all_plots(analysis: Analysis) -> dict[str, list[Plot]]:
    """Every plot that the analysis has the numbers for, by section: an empty list where it has none."""
    drawers: dict[str, Callable[[Analysis], list[Plot]]] = {
        "roc": _roc,
        "precision_recall": _precision_recall,
        "decision_curves": _decision_curves,
        "confusion": _confusion,
        "calibration": _reliability,
        "risk_calibration": risk_curves,
        "risk_coverage": _risk_coverage,
        "subgroups": _forest,
    }
    training = {"training": training_plots(analysis.training)}
    with style():
        return training | {name: [rendered(plot) for plot in draw(analysis)] for name, draw in drawers.items()}


# --- training ---------------------------------------------------------------------------------------------------------


def training_plots(training: Training) -> list[Plot]:
    """The curves of a run over its epochs; none without any."""
    if not training.epochs:
        return []
    with style():
        return [rendered(_training(training))]


def _training(training: Training) -> Plot:
    names = list(next(iter(training.series.values())))
    figure, axes = new_figure(2.0 + 1.5 * len(names), len(names), sharex=True, squeeze=False)
    for axis, name in zip(axes[:, 0], names, strict=True):
        for place, (network, series) in enumerate(training.series.items()):
            values = [np.nan if value is None else value for value in series[name]]
            axis.plot(training.epochs, values, color=PALETTE[place], linestyle=DASHES[place], label=network,
                      marker="o" if len(values) == 1 else None)  # fmt: skip
        if training.best_epoch is not None:
            axis.axvline(training.best_epoch, color=GREY, linewidth=0.8, linestyle=":")
        axis.set_ylabel(metric_words(name))
        if name not in LOWER_IS_BETTER:
            axis.set_ylim(top=min(axis.get_ylim()[1], 1.01))
    lines = axes[0, 0].get_legend_handles_labels()
    kept = f"dotted: epoch {training.best_epoch}, kept"
    figure.legend(*lines, loc="outside lower center", ncols=len(lines[0]), title=kept, title_fontsize=8)
    axes[-1, 0].set_xlabel("epoch")
    axes[-1, 0].xaxis.get_major_locator().set_params(integer=True)
    if len(training.epochs) == 1:
        axes[-1, 0].set_xlim(training.epochs[0] - 1, training.epochs[0] + 1)
    description = f"{metric_words(names[0])} on the validation images over {len(training.epochs)} epochs"
    reading = (
        "Measured on the validation images after each epoch, a turn through the training images. The student is the "
        "network that is kept, the auxiliary its twin, the mean that of both answers."
    )
    return Plot("training", figure, "Validation during training", description, reading)


# --- curves -----------------------------------------------------------------------------------------------------------


def _roc(analysis: Analysis) -> list[Plot]:
    curves = analysis.roc
    if len(curves) == 2 and not analysis.multi_label:
        curves = curves[1:]  # the other one is its mirror image
    areas = dict(zip(analysis.class_names, (one["auc"] for one in analysis.metrics.per_class), strict=True))
    reading = (
        f"Each point is a threshold: upwards more {analysis.unit.many} of the class are found, to the right more "
        "others are called so wrongly. The upper left corner is best, the dotted line guessing. The number is the area "
        "below, the band the interval at each point by itself, from resampled patients."
    )
    return _curve_plots(curves, areas, ("roc", "ROC curve", reading), "1 − specificity", "sensitivity", diagonal=True)


def _precision_recall(analysis: Analysis) -> list[Plot]:
    areas = {
        name: one.get("average_precision")
        for name, one in zip(analysis.class_names, analysis.metrics.per_class, strict=True)
    }
    curves = analysis.precision_recall
    reading = (
        f"To the right more {analysis.unit.many} of the class are found, upwards more of those called so are right. "
        "The upper right corner is best; a rare class lies lower. The number is the average precision, the band as "
        "before."
    )
    words = ("precision_recall", "Precision-recall curve", reading)
    return _curve_plots(curves, areas, words, "recall (sensitivity)", "precision (PPV)", diagonal=False)


def _curve_plots(
    curves: Sequence[ClassCurve], areas: Mapping[str, Estimate | None], words: tuple[str, str, str], x: str, y: str, *,
    diagonal: bool,
) -> list[Plot]:  # fmt: skip
    name, title, reading = words
    drawn, plots = [curve for curve in curves if curve.x], []
    for start in range(0, len(drawn), CURVES_PER_PLOT):
        part = drawn[start : start + CURVES_PER_PLOT]
        figure, axis = new_figure(3.9)
        named, lines, labels = [], [], []
        for place, curve in enumerate(part):
            area = areas.get(curve.class_name)
            value = "" if area is None or area.value is None else f" {area.value:.3f}"
            lines += axis.plot(curve.x, curve.y, color=PALETTE[place], linestyle=DASHES[place], linewidth=1.6)
            labels.append(f"{cut(curve.class_name)}{value}")
            if curve.grid:
                axis.fill_between(curve.grid, curve.low, curve.high, color=PALETTE[place], alpha=0.15,
                                  linewidth=0)  # fmt: skip
            named.append(f"{curve.class_name} area{value or ' unknown'}")
        if diagonal:
            axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x, ylabel=y)
        # with lines and labels given, as matplotlib leaves out by itself what begins with _
        figure.legend(
            lines,
            labels,
            loc="outside lower center",
            ncols=2 if max(len(curve.class_name) for curve in part) < 14 else 1,
        )
        number = f"_{start // CURVES_PER_PLOT + 1}" if len(drawn) > CURVES_PER_PLOT else ""
        plots.append(Plot(name + number, figure, title, f"{title} of {', '.join(named)}",
                          "The next classes, read as the first ones." if start else reading))  # fmt: skip
    return plots


# --- decisions --------------------------------------------------------------------------------------------------------


def _decision_curves(analysis: Analysis) -> list[Plot]:
    drawn, plots = [curve for curve in analysis.decision_curves if curve.thresholds], []
    reading = (
        "A line is the net benefit of acting from a risk threshold on, its band the interval at each threshold by "
        "itself, from resampled patients. The thin line of its colour is that of acting for everyone, the dotted "
        "line of acting for none. Higher is better."
    )
    for start in range(0, len(drawn), CURVES_PER_PLOT):
        part = drawn[start : start + CURVES_PER_PLOT]
        figure, axis = new_figure(3.9)
        lines = [_decision_curve(axis, curve, place) for place, curve in enumerate(part)]
        axis.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
        top = max(max(max(curve.net_benefit), curve.prevalence) for curve in part)
        axis.set(xlim=(0, 1), ylim=(-0.15 * top, 1.1 * top), xlabel="risk threshold", ylabel="net benefit")
        figure.legend(lines, [cut(curve.class_name) for curve in part], loc="outside lower center", ncols=2)
        number = f"_{start // CURVES_PER_PLOT + 1}" if len(drawn) > CURVES_PER_PLOT else ""
        said = "; ".join(map(_net_benefits, part))
        plots.append(Plot(f"decision_curves{number}", figure, "Decision curve", f"Net benefit: {said}",
                          "The next classes, read as the first ones." if start else reading))  # fmt: skip
    return plots


def _decision_curve(axis: Axes, curve: ClassDecisionCurve, place: int) -> Line2D:
    colour = PALETTE[place]
    axis.plot(curve.thresholds, curve.treat_all, color=colour, linestyle=DASHES[place], linewidth=0.7)
    if curve.low:
        axis.fill_between(curve.thresholds, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    (line,) = axis.plot(curve.thresholds, curve.net_benefit, color=colour, linestyle=DASHES[place], linewidth=1.6)
    return line


def _net_benefits(curve: ClassDecisionCurve) -> str:
    """A decision curve in words, at three of its thresholds."""
    at = [int(np.argmin(np.abs(np.array(curve.thresholds) - risk))) for risk in (0.1, 0.2, 0.5)]
    values = (
        f"{curve.net_benefit[k]:.3f} from {curve.thresholds[k]:.0%} on ({curve.treat_all[k]:.3f} for all)" for k in at
    )
    return f"{curve.class_name} {', '.join(values)}"


def _confusion(analysis: Analysis) -> list[Plot]:
    cells, names = np.array(analysis.confusion), [cut(name) for name in analysis.class_names]
    if analysis.multi_label or len(names) > 12:
        return []
    figure, axis = new_figure(1.4 + 0.42 * max(len(names), 3))
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    axis.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1)
    for row, column in np.ndindex(cells.shape):
        colour = "white" if shares[row, column] > 0.55 else "black"
        axis.text(column + 0.5, row + 0.5, str(cells[row, column]), ha="center", va="center", color=colour)
    places = np.arange(len(names)) + 0.5
    turned = 45 if max(map(len, names)) * len(names) > 24 else 0
    axis.set_xticks(places, names, rotation=turned, ha="right" if turned else "center")
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.grid(False)
    axis.set(xlabel="predicted", ylabel="true")
    right = int(np.trace(cells))
    return [
        Plot(
            "confusion",
            figure,
            "Confusion matrix",
            f"{right} of {int(cells.sum())} {analysis.unit.many} on the diagonal",
        )
    ]


def _reliability(analysis: Analysis) -> list[Plot]:
    figure, (axis, below) = new_figure(4.9, 2, sharex=True, height_ratios=(3, 1))
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="perfectly calibrated")
    errors_named, width = [], 0.1
    as_given = "as the network gives them" if analysis.unit.name == "image" else "without the temperature"
    forms = [("before", as_given, 1), ("after", "with the temperature", 0)]
    for name, label, place in forms[: 1 if analysis.calibration.unchanged else 2]:
        one = getattr(analysis.calibration, name)
        bins = [bin for bin in one.bins if bin.count]
        if not bins:
            continue
        x, y, low, high = np.array(
            [(bin.confidence, bin.accuracy, bin.accuracy_low, bin.accuracy_high) for bin in bins]
        ).T
        errors = np.abs([y - low, high - y])
        axis.errorbar(x, y, yerr=errors, color=PALETTE[place], marker="os"[place], markersize=4, linewidth=1.2,
                      linestyle=DASHES[place], elinewidth=0.8, capsize=2, label=label)  # fmt: skip
        below.bar([bin.low + width * (0.29 if place else 0.71) for bin in one.bins], [bin.count for bin in one.bins],
                  width=0.4 * width, color=PALETTE[place])  # fmt: skip
        ece = one.metrics["ece"].value
        errors_named.append(f"{label}: expected calibration error {'undefined' if ece is None else f'{ece:.3f}'}")
    axis.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="share that is right")
    figure.legend(loc="outside lower center")
    below.set(xlabel="confidence", ylabel="labels" if analysis.multi_label else analysis.unit.many)
    reading = (
        "Answers are sorted by how sure the network is; the height says how many of them are right. On the dotted line "
        "it is as sure as it may be, below it too sure, above it too careful. The lower part counts the answers. The "
        "95% bars take images as independent, not patients."
    )
    if analysis.unit.name == "patient":
        reading = reading.replace("95% bars take images as independent, not patients", "bars are 95% intervals")
    return [Plot("reliability", figure, "Reliability diagram", "; ".join(errors_named), reading)]


def _risk_coverage(analysis: Analysis) -> list[Plot]:
    curve = analysis.risk_coverage
    figure, axis = new_figure(3.3)
    lone = "o" if len(curve.risk) == 1 else None
    axis.plot(curve.coverage, curve.risk, color=PALETTE[0], linewidth=1.6, marker=lone, label="surest first")
    axis.axhline(curve.risk[-1], color=GREY, linewidth=0.8, linestyle=":", label=f"all {analysis.unit.many}")
    axis.set(xlim=(0, 1.01), xlabel=f"share of {analysis.unit.many} answered", ylabel="error among them")
    axis.set_ylim(bottom=0, top=max(max(curve.risk) * 1.1, 0.02))
    figure.legend(loc="outside lower center", ncols=2)
    description = ", ".join(f"{risk:.3f} at {share}" for share, risk in curve.risk_at.items())
    reading = (
        "To the left the network answers only where it is surest, at the right end everywhere. The height is the share "
        "of wrong answers. Where the curve falls to the left, its sureness tells right from wrong."
    )
    return [
        Plot(
            "risk_coverage", figure, "Risk-coverage curve", f"error {description} of the {analysis.unit.many}", reading
        )
    ]


# --- groups -----------------------------------------------------------------------------------------------------------


def _forest(analysis: Analysis) -> list[Plot]:
    rows = [
        (f"{cut(column)}: {cut(group.name)} ({group.images})", group.metrics.overall)
        for column, groups in analysis.subgroups.columns.items()
        for group in groups
    ]
    plots, level, units = [], f"{analysis.settings.level:.0%}", analysis.unit.many
    reading = (
        "A point is the value of a group, its line the interval; a hollow point has none. In brackets the number of "
        f"{units}. The diamond and the dotted line are all {units}."
    )
    for name, title in (("macro_auc", "macro AUC"), ("balanced_accuracy", "balanced accuracy")):
        whole = analysis.metrics.overall[name]
        known = [(label, overall[name]) for label, overall in rows if overall[name].value is not None]
        if not known:
            continue
        drawn = [(f"all {units}", whole), *known] if whole.value is not None else known
        figure, axis = new_figure(0.9 + 0.28 * len(drawn))
        for place, (_, one) in enumerate(drawn):
            colour = PALETTE[1] if one is whole else PALETTE[0]
            if one.low is not None:
                axis.plot([one.low, one.high], [place, place], color=colour, linewidth=1.8)
            axis.plot(one.value, place, "D" if one is whole else "o", color=colour, markersize=5,
                      markerfacecolor="white" if one.low is None else colour)  # fmt: skip
        if whole.value is not None:
            axis.axvline(whole.value, color=GREY, linewidth=0.8, linestyle=":")
        axis.set_yticks(range(len(drawn)), [label for label, _ in drawn])
        axis.set_ylim(len(drawn) - 0.5, -0.5)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.set(xlabel=title)
        description = ", ".join(f"{label} {one.value:.3f}" for label, one in drawn)
        words = (f"Subgroups: {title} with {level} intervals", description, reading)
        plots.append(Plot(f"subgroups_{name}", figure, *words))
    return plots
