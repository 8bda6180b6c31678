# SPDX-License-Identifier: Apache-2.0
"""The benchmark's plan: its cells, and the settings that each is trained with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dual_skd.errors import InputError
from dual_skd.runs.recorder import score
from dual_skd.utils.files import read_json
from scripts import ROOT
from scripts.benchmark.leave_out import with_variants
from scripts.benchmark.store import CELL_COLUMNS, cell_id

PLAN = Path(__file__).with_name("plan.json")
RESULTS = ROOT / "docs" / "results"
ROW_REFERENCES = ("needs", "rate_of")
"""Of a row of the plan: the row whose model it starts from, and the row whose learning rate it takes."""

Plan = dict[str, Any]
Rows = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Cell:
    """One training and its evaluation, or with ``learning_rate`` one training of the grid search."""

    data: str
    fraction: float
    row: str
    seed: int
    learning_rate: float | None = None

    @property
    def id(self) -> str:
        grid = "" if self.learning_rate is None else f"_tune_{self.learning_rate:g}"
        return cell_id(**self.key) + grid

    @property
    def key(self) -> dict[str, Any]:
        """What its lines in all tables have."""
        return {name: getattr(self, name) for name in CELL_COLUMNS}


def read_plan(path: Path) -> Plan:
    """Reads and checks a plan; entries that leave out one site after the other become a data set per site.

    Raises:
        InputError: it isn't there, or a tier names a data set, fraction or row that the plan doesn't have.
    """
    if not path.is_file():
        raise InputError(f"No plan {path}; give the path of a JSON file like scripts/benchmark/plan.json.")
    plan = read_json(path)
    missing = [key for key in ("data", "rows", "tiers") if key not in plan]
    if missing:
        raise InputError(f"{path} has no {', no '.join(missing)}; see scripts/benchmark/plan.json.")
    plan = with_variants(plan)
    wanted = [("row", row, plan["rows"]) for tier in plan["tiers"] for row in tier["rows"]]
    wanted += [("row", row[key], plan["rows"]) for row in plan["rows"].values() for key in ROW_REFERENCES if key in row]
    wanted += [("data set", data, plan["data"]) for tier in plan["tiers"] for data, _ in tier["on"]]
    wanted += [("data set", data["teacher"], plan["data"]) for data in plan["data"].values() if "teacher" in data]
    across = [cell for pair in plan.get("claims", {}).get("across", []) for cell in pair]
    wanted += [("data set", data, plan["data"]) for data, _, _ in across]
    wanted += [("row", row, plan["rows"]) for _, _, row in across]
    for what, name, known in wanted:
        if name not in known:
            raise InputError(f"{path} names the {what} {name!r}, which it doesn't define; known: {', '.join(known)}.")
    for cell in planned_cells(plan):
        if str(cell.fraction) not in plan["data"][cell.data]["epochs"]:
            raise InputError(
                f"{path}: {cell.data} has no epochs for the fraction {cell.fraction}; add them to its epochs."
            )
    return plan


def planned_cells(plan: Plan) -> list[Cell]:
    """All cells in the order in which they are wanted, each once; a cell that another needs comes before it."""
    cells: dict[Cell, None] = {}
    for tier in plan["tiers"]:
        for seed in tier["seeds"]:
            for data, fraction in tier["on"]:
                for row in tier["rows"]:
                    cell = Cell(data, float(fraction), row, seed)
                    needed = needed_by(plan, cell)
                    cells |= {needed: None, cell: None} if needed else {cell: None}
    return list(cells)


def needed_by(plan: Plan, cell: Cell) -> Cell | None:
    """The cell whose model a cell starts from, if any; a data set's ``teacher`` names the data set of that cell."""
    row, data = plan["rows"][cell.row].get("needs"), plan["data"][cell.data].get("teacher", cell.data)
    return replace(cell, data=data, row=row, learning_rate=None) if row else None


def configs_of(plan: Plan, data: str) -> list[str]:
    """Names of the configs that a data set's runs have."""
    return plan["data"][data].get("configs", ["train.json"])


def settings_of(plan: Plan, cell: Cell, tuned: Rows) -> dict[str, Any]:
    """Overrides of train.json that make a cell what it is; no paths, so that they compare between machines."""
    data = plan["data"][cell.data]
    settings = plan.get("common", {}) | {"epochs": data["epochs"][str(cell.fraction)]} | data.get("overrides", {})
    settings |= {key: value for key, value in plan["rows"][cell.row].items() if key not in ROW_REFERENCES}
    settings |= {"train_fraction": cell.fraction, "seed": cell.seed}
    if cell.learning_rate:
        # as many training images, and more to choose by than a cell of the table has
        shares = plan["tune"].get("shares", {}).get(f"{cell.data}_{cell.fraction}", {})
        return settings | {"learning_rate": cell.learning_rate} | shares
    rate = chosen_rate(plan, cell, tuned)
    return settings | ({"learning_rate": rate} if rate else {})


def chosen_rate(plan: Plan, cell: Cell, tuned: Rows) -> float | None:
    """The learning rate of a cell: the best one over all held-out images of the grid; None where it has no say.

    One rate for a row and not one per data set, where few images would choose by chance. Only data sets of the same
    configs count: another network has another rate.
    """
    if "tune" not in plan:
        return None
    row, by = plan["rows"][cell.row].get("rate_of", cell.row), plan["tune"]["by"]
    configs = configs_of(plan, cell.data)
    with_same_configs = {name for name in plan["data"] if configs_of(plan, name) == configs}
    means = grid_means([line for line in tuned if line["row"] == row and line["data"] in with_same_configs], by)
    return max(means, key=lambda rate: score({by: means[rate]}, by), default=None)


def grid_means(found: Rows, metric: str) -> dict[float, float]:
    """Mean of a metric per learning rate, a data set counting as much as it has images.

    Only of the rates that every data set and seed of the lines was tried with.
    """
    lines: dict[float, dict[tuple[str, ...], dict[str, str]]] = {}
    for line in found:
        if line[metric] == "":  # not defined on these images
            continue
        lines.setdefault(float(line["learning_rate"]), {})[line["data"], line["fraction"], line["seed"]] = line
    places = set().union(*lines.values())
    whole = {rate: list(of.values()) for rate, of in sorted(lines.items()) if of.keys() == places}
    return {
        rate: float(np.average([float(line[metric]) for line in of], weights=[int(line["images"]) for line in of]))
        for rate, of in whole.items()
    }


def fingerprint(plan: Plan, settings: dict[str, Any]) -> str:
    """Eight digits that tell whether all seeds of a row ran with the same settings; their learning rate is a column.

    A plan's ``revision`` counts, too: it is raised when a change of the code makes finished cells out of date.
    """
    settings = {k: v for k, v in settings.items() if k not in ("seed", "learning_rate")}
    settings |= {"revision": plan["revision"]} if "revision" in plan else {}
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def outdated_cells(plan: Plan, lines: Rows, tuned: Rows) -> set[str]:
    """Cells of benchmark.csv that the plan has, and that ran with other settings than it has for them now."""
    found = set()
    for line in lines:
        cell = Cell(line["data"], float(line["fraction"]), line["row"], int(line["seed"]))
        epochs = plan["data"].get(cell.data, {}).get("epochs", {})
        if str(cell.fraction) in epochs and cell.row in plan["rows"]:
            settings, rate = settings_of(plan, cell, tuned), float(line["learning_rate"])
            planned = fingerprint(plan, settings), settings.get("learning_rate", rate)
            if planned != (line["settings"], rate):
                found.add(cell.id)
    return found
