# SPDX-License-Identifier: Apache-2.0
"""Writes the tables and pictures of what scripts/benchmark/run.py has measured so far.

    python -m scripts.benchmark.report [--results docs/results] [--plan scripts/benchmark/plan.json]

RESULTS/tables.md has one table per data set and training fraction, with blanks where a row of the plan hasn't run, the
same for corrupted images, and a last section that says how each claim stands. What has been run stands in short, with
the claims, between two marks of the document beside RESULTS (docs/results.md), and the plan's ``headline`` between two
of README.md above it, where they have them. The pictures are those of scripts/benchmark/pictures.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dual_skd.errors import InputError
from dual_skd.evaluation.paired import RESAMPLES, Difference, holm
from scripts.benchmark import pictures, robustness
from scripts.benchmark.claims import claims
from scripts.benchmark.latency import Latencies
from scripts.benchmark.names import DATA, ROWS
from scripts.benchmark.plan import PLAN, RESULTS, Cell, chosen_rate, configs_of, grid_means, read_plan
from scripts.benchmark.results import COMPARED, READINGS, SHOWN, Results
from scripts.benchmark.store import read_rows

NETWORKS = ("student", "auxiliary", "mean")
METHOD = """\
Mean and standard deviation over seeds; the test images were used once per cell, by the network of the last epoch.
The difference to the control `{control}` is over the seeds that both have, with a 95 % interval from
{resamples} bootstrap resamples of test images (whole patients, where they are known), the same for both, each with a
draw of Student's t distribution for the mean over the seeds (of one seed: for just these trained networks).
The table of a data set whose sites or folds were held out in turn is over all its images, each by the network that was
trained without its site or fold (so their probabilities have to be comparable for a high AUC); their own tables follow.
They are of the probabilities that are kept, in half precision and at least 1e-7, so that one image counts up to 16 in
the difference of NLL; the columns before are of those that the network gave.
p is two-sided, corrected by Holm over all students of the table, one metric at a time. MACs are per image; CPU ms are
the time of one thread for one image, in brackets as a share of the large network's (`latency.csv`, with the machine).
`auxiliary` is the second network, `mean` the mean of both networks' probabilities, at the cost of both. A blank has not
been run. †: ran with other settings than the plan has now, all rows of the table.
"""
CALIBRATED = """\
Logits divided by one temperature per network, fitted on its validation images, not below 1: what a trained model's file
holds and what `inference` and the report give. Differences are between calibrated networks.
"""
EQUAL_CLASSES = """\
Probabilities divided by the class's number of training images: what those said of how frequent the classes are is taken
back, and the most probable class is that of the best balanced accuracy. `logit_adjustment` trains the same into the
network, and a threshold of the report does the same for two classes. Differences are between such decisions of both.
"""


def table_of(results: Results, data: str, fraction: float, rows: Sequence[str]) -> list[str]:
    """One Markdown table."""
    control = results.plan["control"]
    entries = [
        (row, network)
        for row in rows
        for network in NETWORKS
        if network == "student" or results.of(data, fraction, row, network)
    ]
    found = {entry: results.differences(data, fraction, entry[0], control, entry[1]) for entry in entries}
    corrected = {
        name: dict(zip(family, holm([found[entry][name].p for entry in family]), strict=True))
        for name in COMPARED
        if (family := [e for e in entries if e[1] == "student" and found[e] and np.isfinite(found[e][name].p)])
    }
    latencies = Latencies(results.folder, results.plan)
    head = ["row", "network", "seeds", *SHOWN.values(), "parameters", "MACs", "CPU ms"]
    head += [f"{SHOWN[name]} minus control" for name in COMPARED]
    lines = [f"## {data}, {fraction:.0%} of the training images{results.mark(data, fraction)}", "", *_markdown([head])]
    for row, network in entries:
        seeds = results.of(data, fraction, row, network)
        cells = [row, network, str(len(seeds) or "")]
        cells += [_mean_and_deviation(results.values(data, fraction, row, name, network)) for name in SHOWN]
        first = next(iter(seeds.values()), None)
        cells += [f"{float(first[name]) / 1e6:.2f} M" if first else "" for name in ("parameters", "macs")]
        cells.append(latencies.text(data, row, network, float(first["macs"])) if first else "")
        for name in COMPARED:
            difference = found[row, network].get(name)
            cells.append(_difference(difference, corrected.get(name, {}).get((row, network))))
        if len({(line["settings"], line["learning_rate"]) for line in seeds.values()}) > 1:
            cells[0] += " (seeds with different settings!)"
        lines += _line(cells)
    return [*lines, ""]


def summary(results: Results) -> list[str]:
    """One Markdown table of the students that have been run, of the plan's ``short`` rows, the control first.

    Sites or folds have no lines of their own here.
    """
    control = results.plan["control"]
    shown = ("balanced_accuracy", "macro_auc", "nll", "ece")
    compared = ("balanced_accuracy", "macro_auc", "ece")
    head = ["data", "row", "seeds", "parameters", *(SHOWN[name] for name in shown)]
    lines = _markdown([head + [f"{SHOWN[name]} minus `{control}`" for name in compared]])
    for data, fraction, rows in results.tables():
        if results.whole(data) != data:
            continue
        for row in sorted(filter(results.in_short, rows), key=lambda row: row != control):
            seeds = results.of(data, fraction, row)
            if not seeds:
                continue
            difference = results.differences(data, fraction, row, control)
            cells = [f"{data}, {fraction:.0%}{results.mark(data, fraction)}", row, str(len(seeds))]
            cells += [f"{float(next(iter(seeds.values()))['parameters']) / 1e6:.2f} M"]
            cells += [_mean_and_deviation(results.values(data, fraction, row, name)) for name in shown]
            lines += _line(cells + [_difference(difference.get(name), None) for name in compared])
    return lines


def headline(results: Results) -> list[str]:
    """The plan's ``headline`` as one Markdown table: the large network, the control and the method; empty without.

    Parameters and milliseconds are of the large network and of the student.
    """
    plan, latencies = results.plan, Latencies(results.folder, results.plan)
    rows = ("large", plan["control"], plan["claims"]["method"])
    names = [ROWS.get(row, row) for row in rows]
    head = ["trained on", "parameters", *(f"AUC, {name}" for name in names)]
    head += [*(f"NLL, {name}" for name in names[1:]), "ms"]
    lines = []
    for data, share in plan.get("headline", []):
        of_rows = [next(iter(results.of(data, share, row).values()), None) for row in rows]
        if None in of_rows:
            continue
        sizes = [f"{float(line['parameters']) / 1e6:.1f}" for line in of_rows]
        times = [
            latencies.text(data, row, "student", float(line["macs"])).split(" ")[0]
            for row, line in zip(rows, of_rows, strict=True)
        ]
        images = f"{results.training_images(data, share)} images ({share:.0%})"
        cells = [f"{DATA.get(data, data)}, {images}", f"{sizes[0]} → {sizes[2]} M"]
        cells += [_mean_and_deviation(results.values(data, share, row, "macro_auc")) for row in rows]
        cells += [_mean_and_deviation(results.values(data, share, row, "nll")) for row in rows[1:]]
        lines += _line([*cells, f"{times[0]} → {times[2]}"])
    return [*_markdown([head]), *lines] if lines else []


def names() -> list[str]:
    """What each row is called in pictures and text, as one Markdown table."""
    return [*_markdown([["row", "in words"]]), *(line for row, words in ROWS.items() for line in _line([row, words]))]


def put_between_marks(document: Path, lines: Sequence[str], start: str, end: str) -> None:
    """Replaces what stands between the marks of a document; a document without them, or none, is left alone."""
    text = document.read_text(encoding="utf-8") if document.is_file() else ""
    if start in text and end in text:
        before, rest = text.split(start, 1)
        after = rest.split(end, 1)[1]
        document.write_text("".join([before, start, "\n\n", "\n".join(lines), "\n\n", end, after]), encoding="utf-8")


def comparisons(results: Results) -> list[str]:
    """The pairs of rows that the plan's claims name as ``compared``, as one Markdown table; empty without any.

    A pair may name the first seed that counts, where earlier ones were looked at before the others were asked for.
    """
    wanted = results.plan["claims"]
    lines = []
    for row, other, *later in wanted.get("compared", []):
        for data, fraction in wanted["scarce"]:
            first = later[0] if later else 0
            difference = results.differences(data, fraction, row, other, first_seed=first)
            if difference:
                seeds = results.of(data, fraction, row).keys() & results.of(data, fraction, other).keys()
                counted = sorted(seed for seed in seeds if seed >= first)
                which = f" (from {first} on)" if later else ""
                place = f"{data}, {fraction:.0%}{results.mark(data, fraction)}"
                cells = [f"`{row}` minus `{other}`", place, f"{len(counted)}{which}"]
                cells += [_difference(difference[name], None) for name in COMPARED]
                calibrated = results.differences(data, fraction, row, other, "calibrated", first)
                lines += _line(cells + [_difference(calibrated.get(name), None) for name in ("nll", "ece")])
    head = ["compared", "data", "seeds", *(SHOWN[name] for name in COMPARED), "NLL, calibrated", "ECE, calibrated"]
    return ["", *_markdown([head]), *lines] if lines else []


def read_otherwise(results: Results, reading: str, short: bool = False) -> list[str]:
    """What students say, read otherwise, as one Markdown table; empty where nothing of it is kept.

    Args:
        reading: one of ``READINGS``; "equal classes" leaves out rows that were trained for them.
        short: of the plan's ``short`` rows and the claims' data sets alone.
    """
    control, calibrated = results.plan["control"], reading == "calibrated"
    as_trained = ("nll", "ece") if calibrated else ("balanced_accuracy",)
    shown = as_trained if calibrated else ("balanced_accuracy", "nll", "ece")
    scarce = [(data, float(fraction)) for data, fraction in results.plan["claims"]["scarce"]]
    lines = []
    for data, fraction, rows in results.tables():
        if (short and (data, fraction) not in scarce) or results.whole(data) != data:
            continue
        for row in sorted(rows, key=lambda row: row != control):
            trained_for_it = {"logit_adjustment", "class_weights"} & results.plan["rows"].get(row, {}).keys()
            if (trained_for_it and not calibrated) or (short and not results.in_short(row)):
                continue
            found = [results.metrics(data, fraction, row, seed, reading) for seed in results.of(data, fraction, row)]
            found = [metrics for metrics in found if metrics]
            if not found:
                continue
            difference = results.differences(data, fraction, row, control, reading)
            cells = [f"{data}, {fraction:.0%}{results.mark(data, fraction)}", row, str(len(found))]
            if calibrated:
                cells.append(f"{results.temperatures(data, fraction, row).mean():.2f}")
            cells += [_mean_and_deviation(results.values(data, fraction, row, name)) for name in as_trained]
            cells += [_mean_and_deviation(np.array([metrics[name] for metrics in found])) for name in shown]
            lines += _line(cells + [_difference(difference.get(name), None) for name in shown])
    head = ["data", "row", "seeds", *(["temperature"] if calibrated else [])]
    head += [f"{SHOWN[name]} as trained" for name in as_trained]
    head += [f"{SHOWN[name]}, {reading}" for name in shown] + [f"{SHOWN[name]} minus `{control}`" for name in shown]
    return ["", *_markdown([head]), *lines] if lines else []


def grid_of(results: Results) -> dict[tuple[str, tuple[str, ...]], tuple[list[dict[str, str]], float | None]]:
    """The grid search by row and configs: its lines, and the rate that was chosen by them."""
    plan = results.plan
    found: dict[tuple[str, tuple[str, ...]], list[dict[str, str]]] = {}
    tuned = read_rows(results.folder, "tuned")
    for line in tuned:
        if line["data"] in plan["data"] and line["row"] in plan["rows"]:
            found.setdefault((line["row"], tuple(configs_of(plan, line["data"]))), []).append(line)
    return {
        group: (lines, chosen_rate(plan, Cell(lines[0]["data"], float(lines[0]["fraction"]), group[0], 0), tuned))
        for group, lines in found.items()
    }


def by_place(lines: Sequence[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Lines of the grid search by data set and share of the training images."""
    places: dict[str, list[dict[str, str]]] = {}
    for line in lines:
        places.setdefault(f"{line['data']}, {float(line['fraction']):.0%}", []).append(line)
    return places


def learning_rates(results: Results) -> list[str]:
    """What the grid search found on images held out from training, as a Markdown table; empty before there was one."""
    grid = grid_of(results)
    if not grid:
        return []
    by = results.plan["tune"]["by"]
    rates = sorted({float(line["learning_rate"]) for lines, _ in grid.values() for line in lines})
    text = [
        "",
        "## Learning rates",
        "",
        f"{SHOWN[by]} of held-out images that are not test images; more in `tuned.csv`. In bold the mean of the rate",
        "that the row has got, and those that take theirs from it (`rate_of` of the plan).",
        "",
        *_markdown([["row", "data", "seeds", "images", *(f"{rate:g}" for rate in rates)]]),
    ]
    for (row, _), (lines, best) in grid.items():
        for place, found in by_place(lines).items():
            values = {rate: f"{value:.3f}" for rate, value in grid_means(found, by).items()}
            seeds = len({line["seed"] for line in found})
            text += _line([row, place, str(seeds), found[0]["images"], *(values.get(rate, "") for rate in rates)])
        means = {r: f"**{mean:.3f}**" if r == best else f"{mean:.3f}" for r, mean in grid_means(lines, by).items()}
        text += _line([row, "mean", "", "", *(means.get(rate, "") for rate in rates)])
    return text


def held_out(results: Results, short: bool = False) -> list[str]:
    """The rows of the grid search at their own rates, on its held-out images; empty before there was one.

    Args:
        short: of the plan's ``short`` rows alone.
    """
    text = []
    for (row, _), (lines, best) in grid_of(results).items():
        if short and not results.in_short(row):
            continue
        for place, found in by_place([line for line in lines if float(line["learning_rate"]) == best]).items():
            means = [f"{np.mean([float(line[name]) for line in found]):.3f}" for name in COMPARED]
            text += _line([place, row, str(len(found)), found[0]["images"], f"{best:g}", *means])
    order = list(results.plan["data"])
    text.sort(key=lambda line: order.index(line.removeprefix("| ").split(",")[0]))
    head = ["data", "row", "seeds", "held-out training images", "learning rate", *(SHOWN[name] for name in COMPARED)]
    return ["", *_markdown([head]), *text] if text else []


def _mean_and_deviation(values: np.ndarray) -> str:
    if not len(values):
        return ""
    return f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else "")


def _difference(difference: Difference | None, p: float | None) -> str:
    if difference is None or np.isnan(difference.value):
        return ""
    text = f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
    return text if p is None else f"{text}, p {p:.3f}"


def _line(cells: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]


def _markdown(head: Sequence[Sequence[str]]) -> list[str]:
    return [*_line(head[0]), *_line(["---"] * len(head[0]))]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--no_pictures", action="store_true")
    args = parser.parse_args(arguments)
    try:
        results = Results(args.results, read_plan(args.plan))
        control = results.plan["control"]
        lines = ["# Results of the benchmark\n", f"<!-- made from {results.digest()} -->\n"]
        lines += [*headline(results), "", METHOD.format(control=control, resamples=f"{RESAMPLES:,}"), *names(), ""]
        for data, fraction, rows in results.tables():
            lines += table_of(results, data, fraction, rows)
        lines += robustness.tables(robustness.Robustness(args.results, results.plan, results.hidden))
        args.results.mkdir(parents=True, exist_ok=True)
        found = claims(results)
        lines += [*found, *comparisons(results), *held_out(results)]
        lines += ["", "## Calibrated", "", CALIBRATED, *read_otherwise(results, "calibrated")]
        lines += ["", "## Equally frequent classes", "", EQUAL_CLASSES, *read_otherwise(results, "equal classes")]
        lines += learning_rates(results)
        (args.results / "tables.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        short = [*found[2:], "", *summary(results)]
        short += [line for reading in READINGS for line in read_otherwise(results, reading, short=True)]
        short += [*comparisons(results), *held_out(results, short=True)]
        document = args.results.with_suffix(".md")
        put_between_marks(document, short, "<!-- made by scripts/benchmark/report.py -->", "<!-- end -->")
        for page in (document, document.parent.with_name("README.md")):
            put_between_marks(page, headline(results), "<!-- results -->", "<!-- /results -->")
        if not args.no_pictures:
            pictures.draw(results)
    except InputError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
