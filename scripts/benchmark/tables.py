# SPDX-License-Identifier: Apache-2.0
"""The tables of the benchmark's report, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dual_skd.metrics.intervals import RESAMPLES
from dual_skd.metrics.paired import SIGNIFICANCE, Difference, holm
from scripts.benchmark.latency import Latencies
from scripts.benchmark.names import DATA, ROWS
from scripts.benchmark.plan import Cell, chosen_rate, configs_of, grid_means
from scripts.benchmark.results import COMPARED_METRICS, METRIC_NAMES, Results, is_worse
from scripts.benchmark.store import read_rows
from scripts.markdown import mean_and_deviation, table_head, table_row

NETWORKS = ("student", "auxiliary", "mean")


def table_of(results: Results, data: str, fraction: float, rows: Sequence[str]) -> list[str]:
    """One Markdown table of the rows that have run, empty without any."""
    control = results.plan["control"]
    entries = [(row, network) for row in rows for network in NETWORKS if results.of(data, fraction, row, network)]
    if not entries:
        return []
    found = {entry: results.differences(data, fraction, entry[0], control, entry[1]) for entry in entries}
    corrected = {
        name: dict(zip(family, holm([found[entry][name].p for entry in family], resamples=RESAMPLES), strict=True))
        for name in COMPARED_METRICS
        if (family := [e for e in entries if e[1] == "student" and found[e] and np.isfinite(found[e][name].p)])
    }
    latencies = Latencies(results.folder, results.plan)
    head = ["row", "network", "seeds", *METRIC_NAMES.values(), "parameters", "MACs", "CPU ms"]
    head += [f"{METRIC_NAMES[name]} minus control" for name in COMPARED_METRICS]
    lines = [f"## {data}, {fraction:.0%} of the training images{results.mark(data, fraction)}", "", *table_head(head)]
    for row, network in entries:
        seeds = results.of(data, fraction, row, network)
        cells = [row, network, str(len(seeds))]
        cells += [mean_and_deviation(results.values(data, fraction, row, name, network)) for name in METRIC_NAMES]
        first = next(iter(seeds.values()))
        cells += [f"{float(first[name]) / 1e6:.2f} M" for name in ("parameters", "macs")]
        cells.append(latencies.text(data, row, network, float(first["macs"])))
        for name in COMPARED_METRICS:
            difference = found[row, network].get(name)
            cells.append(_difference(difference, corrected.get(name, {}).get((row, network))))
        if len({(line["settings"], line["learning_rate"]) for line in seeds.values()}) > 1:
            cells[0] += " (seeds with different settings!)"
        lines.append(table_row(cells))
    return [*lines, ""]


def not_run(results: Results) -> list[str]:
    """The rows of the plan without any run, by data set and share, as one Markdown table; empty without any."""
    lines = []
    for data, fraction, rows in results.tables():
        if results.whole(data) == data and (left := [row for row in rows if not results.of(data, fraction, row)]):
            lines.append(table_row([f"{data}, {fraction:.0%}", ", ".join(left)]))
    return ["", "## Not run", "", *table_head(["data", "rows of the plan"]), *lines] if lines else []


def by_price(results: Results) -> list[str]:
    """The plan's ``prices`` as one Markdown table: rows by what a training costs, columns by data set.

    A price is the number of passes per step, forward alone a third, times the network's MACs; that of the control is 1.
    A cell has AUC and NLL of calibrated probabilities over its seeds; ``▾`` marks a metric in which a row of equal or
    lower price is better, p < 0.05.
    """
    control, wanted = results.plan["control"], results.plan.get("prices", {"rows": {}, "on": []})
    places = [(data, float(share)) for data, share in wanted["on"]]
    prices: dict[str, float] = {}
    for row, passes in wanted["rows"].items():
        sizes = [np.divide(*results.shared_means(*place, (row, control), "macs")) for place in places]
        if known := [size for size in sizes if np.isfinite(size)]:
            prices[row] = passes * known[0]
    if not prices:
        return []

    def beaten(place: tuple[str, float], row: str, metric: str) -> bool:
        rivals = [other for other, price in prices.items() if other != row and price <= prices[row]]
        found = [results.differences(*place, row, other, "calibrated").get(metric) for other in rivals]
        return any(one.p < SIGNIFICANCE and is_worse(metric, one.value) for one in found if one is not None)

    def cell(place: tuple[str, float], row: str) -> str:
        found = [results.metrics(*place, row, seed, "calibrated") for seed in results.of(*place, row)]
        if not any(found):
            return ""
        auc, nll = results.values(*place, row, "macro_auc").mean(), np.mean([metrics["nll"] for metrics in found])
        marks = [" ▾" * beaten(place, row, metric) for metric in ("macro_auc", "nll")]
        return f"{auc:.3f}{marks[0]}, {nll:.2f}{marks[1]} ({len(found)})"

    lines = table_head(
        ["price", "row", *(f"{DATA.get(data, data)}{results.mark(data, share)}" for data, share in places)]
    )
    for row, price in sorted(prices.items(), key=lambda pair: pair[1]):
        lines.append(table_row([f"{price:.1f}", f"`{row}`", *(cell(place, row) for place in places)]))
    return lines


def together(results: Results) -> list[str]:
    """What several networks know together, as one Markdown table: rows and columns of the plan's ``prices``.

    The probabilities of a row's calibrated students are averaged over its first seeds, two to five of them. A cell has
    AUC and NLL, from the mean of these networks to all of them together. Empty before any row has two seeds.
    """
    wanted = results.plan.get("prices", {"rows": {}, "on": []})
    places = [(data, float(share)) for data, share in wanted["on"]]

    def cell(place: tuple[str, float], row: str) -> str:
        found = [results.predictions(*place, row, seed, "calibrated") for seed in sorted(results.of(*place, row))]
        kept = [p for p in found if p is not None][:5]
        if len(kept) < 2:
            return ""
        alone = [results.metrics_of(p, *place) for p in kept]
        whole = results.metrics_of(np.mean(kept, axis=0), *place)
        if whole["macro_auc"] is None:  # the test images lack a class
            return ""
        auc, nll = (
            f"{np.mean([one[name] for one in alone]):.{digits}f} → {whole[name]:.{digits}f}"
            for name, digits in (("macro_auc", 3), ("nll", 2))
        )
        return f"{auc}, {nll} ({len(kept)})"

    found = [[f"`{row}`", *(cell(place, row) for place in places)] for row in wanted["rows"]]
    lines = [table_row(line) for line in found if any(line[1:])]
    head = ["row", *(f"{DATA.get(data, data)}{results.mark(data, share)}" for data, share in places)]
    return [*table_head(head), *lines] if lines else []


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
        cells += [mean_and_deviation(results.values(data, share, row, "macro_auc")) for row in rows]
        cells += [mean_and_deviation(results.values(data, share, row, "nll")) for row in rows[1:]]
        lines.append(table_row([*cells, f"{times[0]} → {times[2]}"]))
    return [*table_head(head), *lines] if lines else []


def row_names() -> list[str]:
    """What each row is called in pictures and text, as one Markdown table."""
    return [*table_head(["row", "in words"]), *map(table_row, ROWS.items())]


def comparisons(results: Results) -> list[str]:
    """The pairs of rows that the plan's claims name as ``compared`` and ``across``, as one Markdown table.

    Those that are compared, on the columns of the plan's ``prices``, else where images are ``scarce``. A pair may name
    the first seed that counts, where earlier ones were looked at before the others were asked for. A pair across tables
    names the data set, fraction and row of both. Empty without any pair.
    """
    wanted = results.plan["claims"]
    places = [(data, float(share)) for data, share in results.plan.get("prices", {"on": wanted["scarce"]})["on"]]
    asked = [
        (place, row, place, other, later[0] if later else 0)
        for row, other, *later in wanted.get("compared", [])
        for place in places
    ]
    asked += [
        ((one, float(s)), row, (two, float(t)), other, 0) for (one, s, row), (two, t, other) in wanted.get("across", [])
    ]
    lines = []
    for place, row, there, other, first in asked:
        difference = results.differences(*place, row, other, first_seed=first, of=there)
        if difference:
            counted = [seed for seed in results.of(*place, row).keys() & results.of(*there, other) if seed >= first]
            names = [f"{data}, {share:.0%}{results.mark(data, share)}" for data, share in dict.fromkeys([place, there])]
            which = f" (from {first} on)" if first else ""
            cells = [f"`{row}` minus `{other}`", " minus ".join(names), f"{len(counted)}{which}"]
            cells += [_difference(difference[name], None) for name in COMPARED_METRICS]
            calibrated = results.differences(*place, row, other, "calibrated", first, there)
            lines.append(table_row(cells + [_difference(calibrated.get(name), None) for name in ("nll", "ece")]))
    head = [
        "compared",
        "data",
        "seeds",
        *(METRIC_NAMES[name] for name in COMPARED_METRICS),
        "NLL, calibrated",
        "ECE, calibrated",
    ]
    return ["", *table_head(head), *lines] if lines else []


def corrected_table(results: Results, correction: str) -> list[str]:
    """One Markdown table of metrics after a correction of the students' probabilities; empty where none are kept.

    Args:
        correction: one of ``CORRECTIONS``; "equal classes" leaves out rows that were trained for them.
    """
    control, calibrated = results.plan["control"], correction == "calibrated"
    as_trained = ("nll", "ece") if calibrated else ("balanced_accuracy",)
    shown = as_trained if calibrated else ("balanced_accuracy", "nll", "ece")
    lines = []
    for data, fraction, rows in results.tables():
        if results.whole(data) != data:
            continue
        for row in sorted(rows, key=lambda row: row != control):
            trained_for_it = {"logit_adjustment", "class_weights"} & results.plan["rows"].get(row, {}).keys()
            if trained_for_it and not calibrated:
                continue
            found = [results.metrics(data, fraction, row, seed, correction) for seed in results.of(data, fraction, row)]
            found = [metrics for metrics in found if metrics]
            if not found:
                continue
            difference = results.differences(data, fraction, row, control, correction)
            cells = [f"{data}, {fraction:.0%}{results.mark(data, fraction)}", row, str(len(found))]
            if calibrated:
                cells.append(f"{results.temperatures(data, fraction, row).mean():.2f}")
            cells += [mean_and_deviation(results.values(data, fraction, row, name)) for name in as_trained]
            cells += [mean_and_deviation(np.array([metrics[name] for metrics in found])) for name in shown]
            lines.append(table_row(cells + [_difference(difference.get(name), None) for name in shown]))
    head = ["data", "row", "seeds", *(["temperature"] if calibrated else [])]
    head += [f"{METRIC_NAMES[name]} as trained" for name in as_trained]
    head += [f"{METRIC_NAMES[name]}, {correction}" for name in shown] + [
        f"{METRIC_NAMES[name]} minus `{control}`" for name in shown
    ]
    return ["", *table_head(head), *lines] if lines else []


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
        f"{METRIC_NAMES[by]} of held-out images that are not test images; more in `tuned.csv`. In bold the mean of "
        "the rate\nthat the row has got, and those that take theirs from it (`rate_of` of the plan).",
        "",
        *table_head(["row", "data", "seeds", "images", *(f"{rate:g}" for rate in rates)]),
    ]
    for (row, _), (lines, best) in grid.items():
        for place, found in by_place(lines).items():
            values = {rate: f"{value:.3f}" for rate, value in grid_means(found, by).items()}
            seeds = len({line["seed"] for line in found})
            cells = [row, place, str(seeds), found[0]["images"]]
            text.append(table_row(cells + [values.get(rate, "") for rate in rates]))
        means = {r: f"**{mean:.3f}**" if r == best else f"{mean:.3f}" for r, mean in grid_means(lines, by).items()}
        text.append(table_row([row, "mean", "", "", *(means.get(rate, "") for rate in rates)]))
    return text


def held_out(results: Results) -> list[str]:
    """The rows of the grid search at their own rates, on its held-out images; empty before there was one."""
    text = []
    for (row, _), (lines, best) in grid_of(results).items():
        for place, found in by_place([line for line in lines if float(line["learning_rate"]) == best]).items():
            means = [f"{np.mean([float(line[name]) for line in found]):.3f}" for name in COMPARED_METRICS]
            text.append(table_row([place, row, str(len(found)), found[0]["images"], f"{best:g}", *means]))
    order = list(results.plan["data"])
    text.sort(key=lambda line: order.index(line.removeprefix("| ").split(",")[0]))
    head = [
        "data",
        "row",
        "seeds",
        "held-out training images",
        "learning rate",
        *(METRIC_NAMES[name] for name in COMPARED_METRICS),
    ]
    return ["", *table_head(head), *text] if text else []


def _difference(difference: Difference | None, p: float | None) -> str:
    if difference is None or np.isnan(difference.value):
        return ""
    text = f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
    return text if p is None else f"{text}, p {p:.3f}"
