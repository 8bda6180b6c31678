# SPDX-License-Identifier: Apache-2.0
"""Tables and claims about corrupted images, for the benchmark's report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import numpy as np

from scripts.benchmark.plan import Plan
from scripts.benchmark.results import METRIC_NAMES
from scripts.benchmark.store import CORRUPTION_METRICS, id_of, read_rows
from scripts.markdown import mean_and_deviation, table_head, table_row

Kind = tuple[str, int]  # corruption and strength
CLEAN: Kind = ("none", 0)
METHOD = """\
Every trained network was also measured on its test images corrupted in {count} ways
(`bundle/dual_skd/data/corruptions.py`: {names}; strengths 1 to 5), on which none was chosen.
`corrupted` is the plain mean over kinds and strengths, `drop` the share of the accuracy on the images as they are that
is lost. Mean and standard deviation over seeds. The difference to the control's student `{control}` is paired: mean and
standard deviation of the seeds' differences, and for how many it is better.
"""


class Robustness:
    """The lines of robustness.csv, by place in the tables, without hidden cells."""

    def __init__(self, folder: Path, plan: Plan, hidden: Container[str] = ()) -> None:
        self.plan = plan
        self._found: dict[tuple, dict[int, dict[Kind, dict[str, float]]]] = defaultdict(lambda: defaultdict(dict))
        for line in read_rows(folder, "robustness"):
            if id_of(line) in hidden:
                continue
            place = (line["data"], float(line["fraction"]), line["row"], line["network"])
            values = {name: float(line[name] or "nan") for name in CORRUPTION_METRICS}
            self._found[place][int(line["seed"])][line["corruption"], int(line["strength"])] = values

    def places(self) -> list[tuple[str, float]]:
        """Data sets and fractions that were measured, few images first."""
        return sorted({place[:2] for place in self._found})

    def rows(self) -> list[str]:
        """Those of the plan, and what else was measured."""
        return list(dict.fromkeys([*self.plan["rows"], *(place[2] for place in self._found)]))

    def seeds(
        self, data: str, fraction: float, row: str, network: str = "student"
    ) -> dict[int, dict[Kind, dict[str, float]]]:
        """Metrics of one row of a table, by seed and kind; empty where it wasn't measured."""
        return self._found.get((data, float(fraction), row, network), {})

    def kinds(self) -> dict[str, list[int]]:
        """Strengths that were measured, by corruption."""
        found: dict[str, set[int]] = {}
        for seeds in self._found.values():
            for measured in seeds.values():
                for name, strength in measured:
                    found.setdefault(name, set()).add(strength)
        return {name: sorted(strengths) for name, strengths in found.items() if name != CLEAN[0]}

    def pairs(
        self, data: str, fraction: float, row: str, network: str = "student", control: str = ""
    ) -> list[tuple[dict[Kind, dict[str, float]], dict[Kind, dict[str, float]]]]:
        """Network and control (or the plan's) for the seeds that both have, as far as both saw the same corruptions."""
        control = control or self.plan["control"]
        one, other = (self.seeds(data, fraction, *result) for result in ((row, network), (control, "student")))
        return [(one[s], other[s]) for s in sorted(one.keys() & other.keys()) if one[s].keys() == other[s].keys()]


def corrupted(measured: dict[Kind, dict[str, float]], metric: str = "accuracy", name: str | None = None) -> float:
    """Mean of a metric over all kinds, or over the strengths of one corruption."""
    values = [of[metric] for kind, of in measured.items() if kind != CLEAN and name in (None, kind[0])]
    return float(np.mean(values)) if values else float("nan")


def drop(measured: dict[Kind, dict[str, float]]) -> float:
    """Share of the accuracy on the images as they are that is lost under corruption."""
    return 1 - corrupted(measured) / measured[CLEAN]["accuracy"]


def tables(results: Robustness) -> list[str]:
    """A Markdown section with a table per data set and fraction; empty where nothing was measured."""
    kinds = results.kinds()
    if not kinds:
        return []
    names, control = list(kinds), results.plan["control"]
    lines = ["# Corrupted images", "", METHOD.format(
        count=sum(map(len, kinds.values())), names=", ".join(names), control=control)]  # fmt: skip
    for data, fraction in results.places():
        head = ["row", "network", "seeds", "accuracy", "corrupted", "drop", "corrupted minus control"]
        head += ["drop minus control", *(f"{METRIC_NAMES[name]} corrupted" for name in CORRUPTION_METRICS[1:]), *names]
        title = f"## {data}, {fraction:.0%} of the training images, corrupted"
        lines += [title, "", *table_head(head)]
        for row in results.rows():
            for network in ("student", "auxiliary"):
                seeds = list(results.seeds(data, fraction, row, network).values())
                if not seeds:
                    continue
                cells = [row, network, str(len(seeds)), mean_and_deviation([of[CLEAN]["accuracy"] for of in seeds])]
                cells += [mean_and_deviation([value(of) for of in seeds]) for value in (corrupted, drop)]
                pairs = [] if (row, network) == (control, "student") else results.pairs(data, fraction, row, network)
                cells.append(_paired([corrupted(one) - corrupted(other) for one, other in pairs], better=1))
                cells.append(_paired([drop(one) - drop(other) for one, other in pairs], better=-1))
                cells += [mean_and_deviation([corrupted(of, name) for of in seeds]) for name in CORRUPTION_METRICS[1:]]
                cells += [mean_and_deviation([corrupted(of, name=name) for of in seeds]) for name in names]
                lines.append(table_row(cells))
        lines.append("")
    return lines


def differences(
    results: Robustness,
    row: str,
    control: str,
    places: Sequence[tuple[str, float]],
    value: Callable[[dict[Kind, dict[str, float]]], float],
) -> dict[tuple[str, float], float]:
    """Mean paired difference of ``value`` between a row and a control; nan where it wasn't measured as planned."""
    wanted = [place for place in places if results.plan["data"][place[0]].get("robustness")]
    pairs = {place: results.pairs(*place, row, control=control) for place in wanted}
    return {
        place: float(np.mean([value(one) - value(other) for one, other in of])) if of else float("nan")
        for place, of in pairs.items()
    }


def _paired(values: Sequence[float], *, better: int) -> str:
    if not values:
        return ""
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):+.3f}{deviation} ({sum(better * value > 0 for value in values)} of {len(values)} better)"
