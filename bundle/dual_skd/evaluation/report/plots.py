# SPDX-License-Identifier: Apache-2.0
"""The plots of a report, drawn from its analysis: as figures, as files, and as SVG within the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dual_skd.evaluation.analysis import Analysis
from dual_skd.evaluation.analysis.decisions import ClassCurve
from dual_skd.evaluation.analysis.run_facts import Training
from dual_skd.evaluation.pages.rendering import clean
from dual_skd.metrics.estimates import Estimate
from dual_skd.runs.recorder import LOWER_IS_BETTER
from dual_skd.utils.files import replace_file, write_text
from dual_skd.utils.wording import metric_words

# of Okabe and Ito 2008 (Color Universal Design), most contrast first; the last three darker, for 3:1 on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#C26A9B", "#B57B00", "#2A93D0", "#000000")
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
GREY = "#6b6b6b"
GRID = "#e3e3e3"
PAGE_COLOURS = {colour.lower(): f"var(--c{place},{colour})" for place, colour in enumerate(PALETTE[:6], 1)} | {
    "#000000": "currentColor", GREY: f"var(--soft,{GREY})", GRID: f"var(--line,{GRID})", "#ffffff": "var(--page,#fff)",
}  # fmt: skip
FIGURE_WIDTH = 4.4  # inches: at its own size on a phone, two beside each other on a screen
CURVES_PER_PLOT = 4  # classes in one plot; more bands can't be distinguished
MAX_NAME_LENGTH = 24  # characters of a name in a plot
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "dual_skd",
    "text.parse_math": False,  # a class may be called $x$
}


class Plot(NamedTuple):
    """A figure with what it shows in words.

    Attributes:
        name: of its files.
        figure: the drawing.
        title: short.
        description: what there is to see, for readers who can't.
        reading: how it is read; "" where it stands on no page.
        svg: the drawing as an SVG document.
    """

    name: str
    figure: Figure
    title: str
    description: str
    reading: str = ""
    svg: str = ""

    def inline(self) -> Markup:
        """The drawing as part of a page: with title and description, without links, its ids its own.

        It takes the colours of the page (``pages/templates/style.css``), so it can be read in the dark.
        """
        drawn = self.svg[self.svg.index("<svg") :]
        drawn = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", drawn, flags=re.DOTALL)
        opening, rest = drawn.split(">", 1)
        box = opening.split('viewBox="', 1)[1].split('"', 1)[0]
        rest = rest.replace("xlink:href", "href")
        rest = re.sub(r'\bid="', f'id="{self.name}-', rest)
        rest = re.sub(r'url\(#|href="#', lambda found: f"{found[0]}{self.name}-", rest)
        rest = re.sub(r'style="[^"]*"', lambda found: _of_the_page(found[0]), rest)
        head = Markup(
            '<svg viewBox="{box}" role="img" aria-labelledby="{name}-title {name}-desc" '
            'style="fill:currentColor;stroke-linejoin:round;stroke-linecap:butt">'
            '<title id="{name}-title">{title}</title><desc id="{name}-desc">{description}</desc>'
        )
        words = {"title": clean(self.title), "description": clean(self.description)}
        return head.format(box=box, name=self.name, **words) + Markup(rest.strip())  # noqa: S704 # matplotlib's own


def all_plots(analysis: Analysis) -> dict[str, list[Plot]]:
    """Every plot that the analysis has the numbers for, by section: an empty list where it has none."""
    drawers: dict[str, Callable[[Analysis], list[Plot]]] = {
        "roc": _roc,
        "precision_recall": _precision_recall,
        "confusion": _confusion,
        "calibration": _reliability,
        "risk_calibration": _risk_curves,
        "risk_coverage": _risk_coverage,
        "subgroups": _forest,
    }
    training = {"training": training_plots(analysis.training)}
    with _style():
        return training | {name: [_rendered(plot) for plot in draw(analysis)] for name, draw in drawers.items()}


def _rendered(plot: Plot) -> Plot:
    buffer = io.StringIO()
    plot.figure.savefig(buffer, format="svg", metadata={"Date": None})
    plot.figure.set_layout_engine("none")  # the layout is found, and takes longer than the drawing
    return plot._replace(svg=buffer.getvalue())


def save(plot: Plot, folder: Path) -> None:
    """Writes NAME.svg and NAME.png (150 dots per inch)."""
    write_text(folder / f"{plot.name}.svg", plot.svg)
    with _style():
        replace_file(folder / f"{plot.name}.png", partial(plot.figure.savefig, format="png", dpi=150))


def _of_the_page(style: str) -> str:
    """Colours of a drawing as the variables of a page, each with its own colour for where there are none."""
    if style == 'style="fill: #ffffff"':  # the ground
        return 'style="fill: none"'
    return re.sub("#[0-9a-f]{6}", lambda found: PAGE_COLOURS.get(found[0], found[0]), style)


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # the page's reader has other fonts than the writer's; PNG files show a box instead
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _figure(height: float, rows: int = 1, **options: Any):
    figure = Figure(figsize=(FIGURE_WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, 1, **options)


def _cut(name: str) -> str:
    name = " ".join(clean(name).split())
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"


# --- training ---------------------------------------------------------------------------------------------------------


def training_plots(training: Training) -> list[Plot]:
    """The curves of a run over its epochs; none without any."""
    if not training.epochs:
        return []
    with _style():
        return [_rendered(_training(training))]


def _training(training: Training) -> Plot:
    names = list(next(iter(training.series.values())))
    figure, axes = _figure(2.0 + 1.5 * len(names), len(names), sharex=True, squeeze=False)
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
    areas = dict(zip(analysis.class_names, analysis.delong.per_class, strict=True))
    reading = (
        "Each point is a threshold: upwards more images of the class are found, to the right more others are called "
        "so wrongly. The upper left corner is best, the dotted line guessing. The number is the area below, the band "
        "the interval at each point by itself, from resampled patients."
    )
    return _curve_plots(curves, areas, ("roc", "ROC curve", reading), "1 − specificity", "sensitivity", diagonal=True)


def _precision_recall(analysis: Analysis) -> list[Plot]:
    areas = {
        name: one.get("average_precision")
        for name, one in zip(analysis.class_names, analysis.metrics.per_class, strict=True)
    }
    curves = analysis.precision_recall
    reading = (
        "To the right more images of the class are found, upwards more of those called so are right. The upper right "
        "corner is best; a rare class lies lower. The number is the average precision, the band as before."
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
        figure, axis = _figure(3.9)
        named, lines, labels = [], [], []
        for place, curve in enumerate(part):
            area = areas.get(curve.class_name)
            value = "" if area is None or area.value is None else f" {area.value:.3f}"
            lines += axis.plot(curve.x, curve.y, color=PALETTE[place], linestyle=DASHES[place], linewidth=1.6)
            labels.append(f"{_cut(curve.class_name)}{value}")
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


def _confusion(analysis: Analysis) -> list[Plot]:
    cells, names = np.array(analysis.confusion), [_cut(name) for name in analysis.class_names]
    if analysis.multi_label or len(names) > 12:
        return []
    figure, axis = _figure(1.4 + 0.42 * max(len(names), 3))
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
    return [Plot("confusion", figure, "Confusion matrix", f"{right} of {int(cells.sum())} images on the diagonal")]


def _reliability(analysis: Analysis) -> list[Plot]:
    figure, (axis, below) = _figure(4.9, 2, sharex=True, height_ratios=(3, 1))
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="perfectly calibrated")
    errors_named, width = [], 0.1
    for name, label, place in (("before", "as the network gives them", 1), ("after", "with the temperature", 0)):
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
    below.set(xlabel="confidence", ylabel="labels" if analysis.multi_label else "images")
    reading = (
        "Answers are sorted by how sure the network is; the height says how many of them are right. On the dotted line "
        "it is as sure as it may be, below it too sure, above it too careful. The lower part counts the answers. The "
        "95% bars take images as independent, not patients."
    )
    return [Plot("reliability", figure, "Reliability diagram", "; ".join(errors_named), reading)]


def _risk_curves(analysis: Analysis) -> list[Plot]:
    classes = analysis.risk_calibration
    classes = classes[1:] if len(classes) == 2 and not analysis.multi_label else classes  # the mirror image
    reading = (
        "Images are sorted by the risk of the class, in groups of about equal size. The height is the share of a group "
        "that is of the class. On the dotted line risks are right, below it too high, above it too low. The 95% bars "
        "take into account that images of one patient are alike."
    )
    plots = []
    for start in range(0, len(classes), CURVES_PER_PLOT):
        figure, axis = _figure(3.9)
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
        part, lines = classes[start : start + CURVES_PER_PLOT], []
        for place, one in enumerate(part):
            x, y, low, high = np.array([(point.risk, point.observed, point.low, point.high) for point in one.curve]).T
            lines.append(axis.errorbar(
                x, y, yerr=np.abs([y - low, high - y]), color=PALETTE[place], elinewidth=0.8, marker="os^D"[place],
                markersize=4, linestyle=DASHES[place], capsize=2,
            ))  # fmt: skip
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02), xlabel="predicted risk", ylabel="observed share")
        figure.legend(lines, [_cut(one.class_name) for one in part], loc="outside lower center", ncols=2)
        name = "risk_calibration" + (f"_{start // CURVES_PER_PLOT + 1}" if len(classes) > CURVES_PER_PLOT else "")
        described = ", ".join(f"{one.class_name} in {len(one.curve)} groups" for one in part)
        plots.append(Plot(name, figure, "Calibration curve", f"observed share against risk of {described}",
                          "The next classes, read as the first ones." if start else reading))  # fmt: skip
    return plots


def _risk_coverage(analysis: Analysis) -> list[Plot]:
    curve = analysis.risk_coverage
    figure, axis = _figure(3.3)
    lone = "o" if len(curve.risk) == 1 else None
    axis.plot(curve.coverage, curve.risk, color=PALETTE[0], linewidth=1.6, marker=lone, label="surest first")
    axis.axhline(curve.risk[-1], color=GREY, linewidth=0.8, linestyle=":", label="all images")
    axis.set(xlim=(0, 1.01), xlabel="share of images answered", ylabel="error among them")
    axis.set_ylim(bottom=0, top=max(max(curve.risk) * 1.1, 0.02))
    figure.legend(loc="outside lower center", ncols=2)
    description = ", ".join(f"{risk:.3f} at {share}" for share, risk in curve.risk_at.items())
    reading = (
        "To the left the network answers only where it is surest, at the right end everywhere. The height is the share "
        "of wrong answers. Where the curve falls to the left, its sureness tells right from wrong."
    )
    return [Plot("risk_coverage", figure, "Risk-coverage curve", f"error {description} of the images", reading)]


# --- groups -----------------------------------------------------------------------------------------------------------


def _forest(analysis: Analysis) -> list[Plot]:
    rows = [
        (f"{_cut(column)}: {_cut(group.name)} ({group.images})", group.metrics.overall)
        for column, groups in analysis.subgroups.columns.items()
        for group in groups
    ]
    plots, level = [], f"{analysis.settings.level:.0%}"
    reading = (
        "A point is the value of a group, its line the interval; a hollow point has none. In brackets the number of "
        "images. The diamond and the dotted line are all images."
    )
    for name, title in (("macro_auc", "macro AUC"), ("balanced_accuracy", "balanced accuracy")):
        whole = analysis.metrics.overall[name]
        known = [(label, overall[name]) for label, overall in rows if overall[name].value is not None]
        if not known:
            continue
        drawn = [("all images", whole), *known] if whole.value is not None else known
        figure, axis = _figure(0.9 + 0.28 * len(drawn))
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
