# SPDX-License-Identifier: Apache-2.0
"""The pictures of the benchmark's report: RESULTS/*.svg, readable on a light and on a dark page.

Each file's metadata hold a digest of what it was drawn from, and a test compares it. Better is always to the right or
up. Times of exported files are those of the first table of docs/deployment.md, where the output of
scripts/benchmark/deployment.py stands.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dual_skd.errors import InputError
from scripts.benchmark import robustness
from scripts.benchmark.latency import large_of, network_of, read_runtimes
from scripts.benchmark.names import DATA, ROWS, VOLUMES
from scripts.benchmark.results import Results
from scripts.benchmark.store import read_rows, replace_text

WIDTH = 5.8  # inches, so that letters can be read on a telephone
INK, SOFT, FAINT = "#1f2328", "#59636e", "#d1d9e0"
DARK = {
    INK: "#e6edf3", SOFT: "#9da7b1", FAINT: "#3d444d", "#0072b2": "#56b4e9", "#b35900": "#f0a040",
    "#00795a": "#3fc79a", "#a3457a": "#e08fbf",
}  # fmt: skip
"""Colours on a light page, and what each becomes on a dark one; all can be told apart by the colour-blind."""
BETTER, WORSE, UNSURE = "#0072b2", "#b35900", SOFT
LOOKS = {  # row of the plan -> colour, marker
    "large": (INK, "s"),
    "native_lite0": (INK, "^"),
    "single": ("#b35900", "o"),
    "coupled": ("#0072b2", "D"),
    "adjusted_coupled": ("#a3457a", "v"),
    "label_smoothing": ("#a3457a", "v"),
    "narrow_single": ("#00795a", "P"),
    "scratch": ("#00795a", "X"),
}
STYLE = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"], "font.size": 9.5,
    "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": SOFT, "axes.labelcolor": INK, "axes.titlecolor": INK, "text.color": INK, "grid.color": FAINT,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "legend.frameon": False,
    "legend.fontsize": 9, "svg.fonttype": "none", "svg.hashsalt": "dual_skd", "figure.constrained_layout.use": True,
}  # fmt: skip

Pair = tuple[str, float, str, str]  # data set, share of its training images, row, the row it is compared with
FEW_IMAGES = [("chest_xray", 0.1), ("lung_ct", 1.0), ("brain_mri", 0.1)]
LARGER_IMAGES = [("chest_xray_224", 0.1), ("lung_ct_224", 1.0), ("brain_mri_224", 0.1)]
VOLUMES_AND_VIT = [
    ("brain_volumes", 0.1), ("brain_volumes", 1.0), ("brain_sites", 1.0), ("brain_grade", 1.0), ("brain_mri_vit", 0.1),
    ("chest_xray_vit", 0.1), ("lung_ct_vit", 1.0),
]  # fmt: skip
CONTROLS = (
    "single", "fast_single", "label_smoothing", "coupled_twins", "mutual", "same_rule_strong", "dual", "large"
)  # fmt: skip
DUAL_TITLE = "Dual model minus plain fine-tuning"
FORESTS: dict[str, tuple[str, list[Pair]]] = {
    "dual_against_plain": (
        f"{DUAL_TITLE}: 2D",
        [(*place, "coupled", "single") for place in FEW_IMAGES]
        + [(*place, "adjusted_coupled", "adjusted_single") for place in (FEW_IMAGES[0], FEW_IMAGES[2])]
        + [(*place, "coupled", "single") for place in LARGER_IMAGES],
    ),
    "dual_against_plain_more": (
        f"{DUAL_TITLE}: 3D, and a transformer",
        [(*place, "coupled", "single") for place in VOLUMES_AND_VIT],
    ),
    "selection": (
        "Selected whole layers minus other first weights",
        [(*place, "single", "scratch") for place in [*FEW_IMAGES, VOLUMES_AND_VIT[0], VOLUMES_AND_VIT[4]]]
        + [(*place, "single", "narrow_single") for place in FEW_IMAGES],
    ),
} | {
    f"controls_{data}": (f"Dual model minus each control: {DATA[data]}",
                         [(data, share, "coupled", control) for control in CONTROLS])
    for data, share in FEW_IMAGES
}  # fmt: skip
FOREST = """\
Bars: 95 % intervals. Blue: better, orange: worse, grey: the interval has 0 in it.
Hollow: one seed, so of these networks alone. The number of comparisons isn't
corrected for: p after Holm stands in the text."""
BARS = "Points: means of the seeds. Bars: from the lowest seed to the highest."
SEEDS = f"{BARS} Hollow: one seed."
COLUMNS = {  # title -> network, metric, sign of better
    "AUC": ("student", "macro_auc", 1),
    "balanced accuracy": ("student", "balanced_accuracy", 1),
    "NLL": ("student", "nll", -1),
    "NLL, calibrated": ("calibrated", "nll", -1),
}


def forest(results: Results, title: str, pairs: Sequence[Pair]) -> Any:
    """Paired differences with their intervals: a line per pair, a column per metric; None before any was measured.

    Both columns of NLL have one scale, and both others. A single seed's intervals know nothing of new trainings, and
    would look like the surest: their points are hollow.
    """
    found = {pair: results.differences(*pair) for pair in pairs}
    found = {pair: differences for pair, differences in found.items() if differences}
    if not found:
        return None
    read = {pair: results.differences(*pair, "calibrated") for pair in found}
    sets, rows, controls = (len({pair[place] for pair in found}) for place in (0, 2, 3))
    figure, axes = _figure(title, 1, len(COLUMNS), 1.3 + 0.42 * len(found), sharey=True)
    for axis, (name, (network, metric, sign)) in zip(axes[0], COLUMNS.items(), strict=True):
        for line, pair in enumerate(found):
            axis.vlines(0, line - 0.2, line + 0.3, color=SOFT, linewidth=1)
            one = (read if network == "calibrated" else found)[pair].get(metric)
            if one is None or np.isnan(one.value):
                continue
            beyond = one.low > 0 or one.high < 0
            colour = (BETTER if sign * one.value > 0 else WORSE) if beyond else UNSURE
            hollow = _seeds(results, pair) == 1
            axis.plot([one.low, one.high], [line, line], color=colour, linewidth=2.2, solid_capstyle="butt")
            axis.plot(one.value, line, "o", color=colour, markersize=6.5, markerfacecolor="none" if hollow else colour)
        axis.set(title=name, yticks=[], ylim=(len(found) - 0.4, -0.9))
        axis.set_xlabel("better →", color=SOFT)
        axis.spines["left"].set_visible(False)
        axis.locator_params(axis="x", nbins=3)
        axis.xaxis.set_major_formatter("{x:g}")
    for pair_of_axes, sign in ((axes[0][:2], 1), (axes[0][2:], -1)):
        limits = np.array([axis.get_xlim() for axis in pair_of_axes])
        for axis in pair_of_axes:
            axis.set_xlim((limits[:, 0].min(), limits[:, 1].max())[::sign])
    for line, pair in enumerate(found):
        words = [_place(results, *pair[:2])] if sets > 1 or controls == 1 else []
        if rows == 1 and controls > 1:
            words.append(f"against {ROWS[pair[3]]}")
        words += ROWS[pair[2]].split(", ")[1:]  # what both networks have
        seeds = _seeds(results, pair)
        text = f"{', '.join(words)} ({seeds} seed{'s' * (seeds > 1)})"
        label = axes[0][0].text(0, line - 0.3, text, transform=axes[0][0].get_yaxis_transform(), va="bottom")
        label.set_in_layout(False)  # it stands above all columns
    _note(figure, FOREST)
    return figure


def label_efficiency(results: Results) -> Any:
    """AUC and NLL by number of training images."""
    sets = ("chest_xray", "brain_mri", "brain_volumes")
    rows = ("large", "single", "coupled", "scratch")
    figure, axes = _figure("Fewer training images", 2, len(sets), 5.0, sharex="col", sharey="row")
    for column, data in enumerate(sets):
        shares = sorted({float(line["fraction"]) for line in results.lines if line["data"] == data})
        images = [results.training_images(data, share) for share in shares]
        for line, metric in enumerate(("macro_auc", "nll")):
            axis = axes[line][column]
            for number, row in enumerate(rows):
                values = {n: results.values(data, share, row, metric) for n, share in zip(images, shares, strict=True)}
                values = {n * 1.06 ** (number - 1.5): of for n, of in values.items() if len(of)}
                _spread(axis, row, values, joined=True)
            axis.set_xscale("log")
            axis.set_xticks(images, [str(n) for n in images])
            axis.minorticks_off()
            axis.grid(axis="y")
        axes[0][column].set_title(DATA[data])
        axes[1][column].set_xlabel("volumes" if data in VOLUMES else "images")
    axes[0][0].set_ylabel("AUC, better ↑")
    axes[1][0].set_ylabel("NLL, better ↑")
    axes[1][0].invert_yaxis()
    _legend(figure, rows, SEEDS)
    return figure


def size(results: Results) -> Any:
    """AUC by number of parameters."""
    places = [*FEW_IMAGES, VOLUMES_AND_VIT[0], VOLUMES_AND_VIT[4]]
    rows = ("large", "native_lite0", "single", "coupled", "label_smoothing", "narrow_single", "scratch")
    figure, axes = _figure("Size and AUC", 3, 2, 6.6, sharex=True, sharey=True)
    for axis, (data, share) in zip(axes.flat, places, strict=False):
        for row in rows:
            lines = results.of(data, share, row)
            if lines:
                parameters = float(next(iter(lines.values()))["parameters"]) / 1e6
                shift = 1.09 ** (rows.index(row) - rows.index("coupled"))
                _spread(axis, row, {parameters * shift: results.values(data, share, row, "macro_auc")})
        axis.set_xscale("log")
        axis.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
        axis.minorticks_off()
        axis.set_title(_place(results, data, share), fontsize=9)
        axis.grid(axis="y")
    axes[2][1].axis("off")
    for axis in axes[:, 0]:
        axis.set_ylabel("AUC, better ↑")
    for axis in (axes[2][0], axes[1][1]):
        axis.set_xlabel("million parameters, ← smaller")
        axis.tick_params(labelbottom=True)
    axes[2][1].legend(handles=_handles(rows), loc="center", labels=[ROWS[row] for row in rows])
    _note(figure, f"{SEEDS}\nPoints of one size stand side by side.")
    return figure


def latency(results: Results) -> Any:
    """Milliseconds per image by runtime, and in PyTorch by network and size."""
    plan, measured = (
        results.plan,
        {(line["network"], line["size"]): line for line in read_rows(results.folder, "latency")},
    )
    timed = []
    for data in ("lung_ct", "lung_ct_192", "brain_volumes"):
        networks = {"large": large_of(plan, data)} | {"student": network_of(plan, data, plan["control"])}
        for name, network in networks.items():
            milliseconds = float(measured[network.name, network.size]["milliseconds"])
            timed.append((f"{name}, {network.size.replace('x', ' x ')}", milliseconds))
    runtimes = read_runtimes()
    groups = {
        f"Runtimes, {px} px": [(name, times[place]) for name, times in runtimes] for place, px in enumerate((96, 224))
    }
    groups["PyTorch by size of the input (measured apart)"] = timed
    heights = [len(lines) for lines in groups.values()]
    figure, axes = _figure(
        "Time per image on one CPU thread", 3, 1, 2 + 0.21 * sum(heights), sharex=True, height_ratios=heights
    )
    for axis, (title, lines) in zip(axes[:, 0], groups.items(), strict=True):
        for place, (name, milliseconds) in enumerate(lines):
            colour = INK if "large" in name or "DenseNet" in name else BETTER
            axis.plot([0.5, milliseconds], [place, place], color=FAINT, linewidth=1, zorder=0)
            axis.plot(milliseconds, place, "s" if colour == INK else "D", color=colour)
            axis.text(
                milliseconds * 1.12,
                place,
                f"{milliseconds:.{1 if milliseconds >= 10 else 2}f}",
                va="center",
                fontsize=8.5,
            )
        axis.set(xscale="log", ylim=(len(lines) - 0.4, -0.6), xlim=(0.5, 150))
        axis.set_yticks(range(len(lines)), [name for name, _ in lines], color=INK)
        axis.set_title(title, loc="left")
        axis.tick_params(axis="y", length=0)
    axes[2][0].set_xticks([0.5, 1, 2, 5, 10, 20, 50, 100], ["0.5", "1", "2", "5", "10", "20", "50", "100"])
    axes[2][0].minorticks_off()
    axes[2][0].set_xlabel("milliseconds, ← better")
    return figure


def corrupted(results: Results) -> Any:
    """AUC and accuracy of chest X-rays by kind and strength of corruption; None before any was measured."""
    shift = robustness.Robustness(results.folder, results.plan, results.hidden)
    rows = ("large", "single", "coupled", "adjusted_coupled")
    kinds = shift.kinds()
    if not kinds:
        return None
    figure, axes = _figure("Corrupted chest X-rays", len(kinds), 2, 0.9 + 1.15 * len(kinds), sharex=True, sharey="col")
    for line, (kind, strengths) in zip(axes, kinds.items(), strict=True):
        for axis, metric in zip(line, ("macro_auc", "accuracy"), strict=True):
            for row in rows:
                seeds = shift.seeds(*FEW_IMAGES[0], row).values()
                places = [robustness.CLEAN, *((kind, strength) for strength in strengths)]
                values = {place[1]: np.array([of[place][metric] for of in seeds if place in of]) for place in places}
                _spread(axis, row, {place: of for place, of in values.items() if len(of)}, joined=True, bars=False)
            axis.grid(axis="y")
            axis.set_xticks([0, *strengths])
        line[0].set_title(kind.replace("_", " "), loc="left")
    axes[0][0].set_title("AUC, better ↑", loc="right", fontweight="normal")
    axes[0][1].set_title("accuracy, better ↑", loc="right", fontweight="normal")
    for axis in axes[-1]:
        axis.set_xlabel("strength (0: as it is)")
    _legend(figure, rows, "Means of the seeds.")
    return figure


def draw(results: Results) -> list[Path]:
    """Writes all pictures beside the results.

    Raises:
        InputError: matplotlib isn't installed.
    """
    made = digest(results)
    with _style():
        figures = {name: forest(results, *wanted) for name, wanted in FORESTS.items()}
        figures |= {of.__name__: of(results) for of in (label_efficiency, size, latency, corrupted)}
        paths = []
        for name, figure in figures.items():
            if figure is not None:
                paths.append(results.folder / f"{name}.svg")
                replace_text(paths[-1], _svg(figure, made))
    return paths


def digest(results: Results) -> str:
    """Of all that the pictures are drawn from: measurements, plan, times of the runtimes, names and this program."""
    scripts = [Path(__file__), Path(__file__).with_name("names.py")]
    return results.digest(repr(read_runtimes()), *(path.read_text(encoding="utf-8") for path in scripts))


def _svg(figure: Any, made: str) -> str:
    """The drawing, with its colours for a dark page; no date and no version, so equal input gives equal files."""
    buffer = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Title": figure.get_suptitle(), "Identifier": made}
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    rules = [
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    ]
    sheet = "<style>@media (prefers-color-scheme:dark){" + "".join(rules) + "}</style>"
    text = re.sub(r"[ \t]+$", "", buffer.getvalue(), flags=re.MULTILINE)
    return text.replace("<defs>", f"<defs>{sheet}", 1)


@contextmanager
def _style() -> Iterator[None]:
    try:
        import matplotlib
    except ImportError:
        raise InputError("Pictures need matplotlib; pip install matplotlib, or give --no_pictures.") from None
    matplotlib.use("Agg")
    with matplotlib.rc_context(STYLE):
        yield


def _figure(title: str, lines: int, columns: int, height: float, **options: Any) -> tuple[Any, np.ndarray]:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(lines, columns, figsize=(WIDTH, height), squeeze=False, **options)
    pyplot.close(figure)  # not kept by pyplot
    figure.suptitle(title, fontsize=11.5, fontweight="bold")
    return figure, axes


def _spread(axis: Any, row: str, values: dict[float, np.ndarray], joined: bool = False, bars: bool = True) -> None:
    """Means with a bar over all seeds, by place on the x axis."""
    colour, marker = LOOKS[row]
    means = {place: of.mean() for place, of in values.items()}
    if joined:
        axis.plot(means.keys(), means.values(), color=colour, linewidth=1.2)
    if bars:
        axis.vlines(means.keys(), *zip(*((of.min(), of.max()) for of in values.values()), strict=True), color=colour)
    for face, single in ((colour, False), ("none", True)):
        shown = [place for place, of in values.items() if (len(of) == 1) == single]
        heights = [means[place] for place in shown]
        axis.plot(shown, heights, marker, color=colour, markerfacecolor=face, markersize=5.5 if bars else 4)


def _handles(rows: Sequence[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=LOOKS[row][0], marker=LOOKS[row][1], markersize=5.5) for row in rows]


def _legend(figure: Any, rows: Sequence[str], note: str) -> None:
    legend = figure.legend(
        handles=_handles(rows), labels=[ROWS[row] for row in rows], loc="outside lower center", ncols=2, title=note
    )
    legend.get_title().set(fontsize=8.5, color=SOFT)


def _note(figure: Any, text: str) -> None:
    figure.supxlabel(text, fontsize=8.5, color=SOFT)


def _place(results: Results, data: str, share: float) -> str:
    return f"{DATA[data]}, {results.training_images(data, share)} {'volumes' if data in VOLUMES else 'images'}"


def _seeds(results: Results, pair: Pair) -> int:
    data, share, row, control = pair
    return len(results.of(data, share, row).keys() & results.of(data, share, control).keys())
