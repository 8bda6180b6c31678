# SPDX-License-Identifier: Apache-2.0
"""The benchmark's plan, and one cell of it: which settings it has, how it is run, and what it found."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from benchmark_leave_out import leave_out, with_variants
from benchmark_store import (
    CORRUPTED,
    GRID,
    METRICS,
    Predictions,
    add_predictions,
    add_rows,
    cell_id,
    id_of,
    predictions_path,
    read_rows,
)

from dual_skd.cli.learning_curve import last_error
from dual_skd.errors import InputError
from dual_skd.metrics.calibration import fit_temperature, logits_of
from dual_skd.metrics.predictions import read_predictions as read_table
from dual_skd.metrics.probabilities import probabilities
from dual_skd.runs.recorder import score
from dual_skd.utils.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]

Plan = dict[str, Any]
Rows = Sequence[dict[str, str]]
# of a row of the plan: the row whose model it starts from, and the row whose learning rate it takes
NOT_SETTINGS = ("needs", "rate_of")


class CellFailed(Exception):
    """A run ended with an error; the message is its last line."""


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
        return cell_id(self.data, self.fraction, self.row, self.seed) + grid


# --- the plan ---------------------------------------------------------------------------------------------------------


def read_plan(path: Path) -> Plan:
    """Reads and checks a plan; entries that leave out one site after the other become a data set per site.

    Raises:
        InputError: it isn't there, or a tier names a data set, fraction or row that the plan doesn't have.
    """
    if not path.is_file():
        raise InputError(f"No plan {path}; give the path of a JSON file like scripts/benchmark_plan.json.")
    plan = read_json(path)
    missing = [key for key in ("data", "rows", "tiers") if key not in plan]
    if missing:
        raise InputError(f"{path} has no {', no '.join(missing)}; see scripts/benchmark_plan.json.")
    plan = with_variants(plan)
    wanted = [("row", row, plan["rows"]) for tier in plan["tiers"] for row in tier["rows"]]
    wanted += [("row", row[key], plan["rows"]) for row in plan["rows"].values() for key in NOT_SETTINGS if key in row]
    wanted += [("data set", data, plan["data"]) for tier in plan["tiers"] for data, _ in tier["on"]]
    for what, name, known in wanted:
        if name not in known:
            raise InputError(f"{path} names the {what} {name!r}, which it doesn't define; known: {', '.join(known)}.")
    for tier in plan["tiers"]:
        for data, fraction in tier["on"]:
            if str(float(fraction)) not in plan["data"][data]["epochs"]:
                raise InputError(f"{path}: {data} has no epochs for the fraction {fraction}; add them to its epochs.")
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
    """The cell whose model a cell starts from, if any."""
    row = plan["rows"][cell.row].get("needs")
    return replace(cell, row=row, learning_rate=None) if row else None


def configs_of(plan: Plan, data: str) -> list[str]:
    """Names of the configs that a data set's runs have."""
    return plan["data"][data].get("configs", ["train.json"])


def settings_of(plan: Plan, cell: Cell, tuned: Rows) -> dict[str, Any]:
    """Overrides of train.json that make a cell what it is; no paths, so that they compare between machines."""
    data = plan["data"][cell.data]
    settings = plan.get("common", {}) | {"epochs": data["epochs"][str(cell.fraction)]} | data.get("overrides", {})
    settings |= {key: value for key, value in plan["rows"][cell.row].items() if key not in NOT_SETTINGS}
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
    alike = {name for name in plan["data"] if configs_of(plan, name) == configs}
    means = grid_means([line for line in tuned if line["row"] == row and line["data"] in alike], by)
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


# --- one cell ---------------------------------------------------------------------------------------------------------


class Processes:
    """Runs lists of bundle runs in a process each, with one thread, and can end those that are running.

    The imports take longer than an epoch. So a process that has done them waits for cells, one a line, and forks for
    each; where forking isn't safe it runs the first cell itself, and the next cell gets another process.
    """

    # what `python -m monai.bundle run` calls, and what it imports of other packages: ours as it is when a cell starts
    IMPORTS = "import timm, torch.utils.tensorboard, SimpleITK; from monai.bundle import run"
    # the child leaves the loop and ends as any program does
    CODE = """
import json, os, sys
for line in sys.stdin:
    if sys.platform != "linux" or not os.fork():
        break
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
else:
    sys.exit()
runs, log = json.loads(line)
log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
os.dup2(log, 1), os.dup2(log, 2)
for each in runs:
    run(**each)
"""
    # keeps freed memory instead of giving it back to the system at every step: a tenth faster with glibc, else ignored
    MEMORY: ClassVar = {
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "4294967296",
        "MALLOC_TOP_PAD_": "268435456",
    }

    def __init__(self) -> None:
        self.running: set[subprocess.Popen] = set()
        self.waiting: list[subprocess.Popen] = []

    def __call__(self, runs: list[dict[str, Any]], log: Path) -> None:
        """Runs ``run(**each)`` one after the other with the output in ``log``; CellFailed has the last line of it."""
        process = self.waiting.pop() if self.waiting else self._start(log)
        self.running.add(process)
        try:
            process.stdin.write(json.dumps([runs, str(log)]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:  # it ended while it waited
            answer = ""
        self.running.discard(process)
        if answer:
            self.waiting.append(process)
        code = int(answer) if answer else process.wait()
        if code:
            raise CellFailed(last_error(log) or f"exit code {code}")

    def _start(self, log: Path) -> subprocess.Popen:
        env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | self.MEMORY
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "bundle"), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-c", self.IMPORTS + self.CODE]
        pipe = subprocess.PIPE
        with log.open("w", encoding="utf-8") as file:
            return subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=file, text=True, start_new_session=True
            )

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what still runs, with its children: nothing, unless the program was interrupted."""
        for process in [*self.running, *self.waiting]:
            with contextlib.suppress(ProcessLookupError):
                # a session of its own is a group of its own; a cell is run anew, so it has nothing to save on SIGTERM
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.running.clear()
        self.waiting.clear()


@dataclass
class Benchmark:
    """Where things are, and how a cell is run."""

    plan: Plan
    data_roots: Sequence[Path]
    results: Path
    work: Path
    execute: Processes

    @property
    def tuned(self) -> Rows:
        return read_rows(self.results, "tuned")

    @property
    def failed(self) -> dict[str, str]:
        return read_json(self.work / "failed.json")

    def note_failure(self, cell: Cell, reason: str | None) -> None:
        """Keeps the reason why a cell failed, or forgets it."""
        failed = {name: why for name, why in self.failed.items() if name != cell.id}
        write_json(self.work / "failed.json", failed | ({cell.id: reason} if reason else {}))

    def finished(self) -> set[str]:
        return {id_of(row) for row in read_rows(self.results)}

    def outdated(self) -> set[str]:
        return outdated_cells(self.plan, read_rows(self.results), self.tuned)

    def places(self, cell: Cell) -> dict[str, str]:
        """The overrides of train.json that are paths of this machine: the data and other files that a cell reads."""
        data = self.plan["data"][cell.data]
        names = {"dataset_dir": data["path"]} | data.get("files", {})
        found = {key: self._find(name) for key, name in names.items()}
        if "leave_out" in data:
            ((column, part),) = data["leave_out"].items()
            target = self.work / "leave_out" / f"{cell.data}.csv"
            label = data.get("overrides", {}).get("label_column", "label")
            found["dataset_dir"] = leave_out(found["dataset_dir"], column, part, target, label)
        return {key: str(path.absolute()) for key, path in found.items()}

    def _find(self, name: str) -> Path:
        found = next((root / name for root in self.data_roots if (root / name).exists()), None)
        if found is None:
            raise InputError(f"No {name} in {', '.join(map(str, self.data_roots))}; give its folder as --data_root.")
        return found

    def run(self, cell: Cell) -> dict[str, Any]:
        """Trains and, unless it is of the grid search, evaluates a cell.

        Returns:
            what is to be recorded: ``predictions``, and lines of the tables by name; of the grid search only ``tuned``.
        """
        out = (self.work / cell.id).absolute()
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        settings = settings_of(self.plan, cell, self.tuned)
        places = self.places(cell) | {"output_dir": str(out)}
        needed = needed_by(self.plan, cell)
        if needed:
            places["teacher_checkpoint"] = str(self.work.absolute() / needed.id / "models" / "model.pt")
            if not Path(places["teacher_checkpoint"]).is_file():
                raise CellFailed(
                    f"The model of {needed.id} isn't in {self.work}; remove the lines of that cell from benchmark.csv "
                    "to train it again."
                )
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        commit = current_commit()
        write_json(out / "settings.json", settings | places)
        configs = ROOT / "bundle" / "configs"
        files = [*(str(configs / name) for name in configs_of(self.plan, cell.data)), str(out / "settings.json")]
        runs = [{"run_id": "training", "config_file": files}]
        if cell.learning_rate is None:
            evaluate = {"run_id": "evaluating", "config_file": str(configs / "evaluate.json"), "output_dir": str(out)}
            evaluate["calibrate"] = False  # the tables are of the networks as they are
            evaluate["report"] = False
            evaluate |= {key: settings[key] for key in ("device", "num_workers") if key in settings}
            robustness = self.plan["data"][cell.data].get("robustness")
            if robustness:  # true, or options of corruption.json
                evaluate["config_file"] = [evaluate["config_file"], str(configs / "corruption.json")]
                evaluate |= robustness if isinstance(robustness, dict) else {}
            runs.append(evaluate)
        self.execute(runs, out / "log.txt")
        metrics, run = read_json(out / "metrics.json"), read_json(out / "run.json")
        clean_up(out, keep_model=any(row.get("needs") == cell.row for row in self.plan["rows"].values()))
        if cell.learning_rate is not None:
            best = metrics["best"]
            line = {name: getattr(cell, name) for name in GRID} | {"images": best["images"]}
            return {"tuned": [line | {name: _rounded(best["student"][name]) for name in METRICS}]}
        common = {"learning_rate": run["config"]["learning_rate"], "settings": fingerprint(self.plan, settings)}
        common |= {"commit": commit, "started": started}
        return {
            "benchmark": result_rows(cell, metrics, run, common),
            "predictions": read_predictions(out),
            "robustness": robustness_rows(cell, metrics.get("robustness")),
        }

    def record(self, cell: Cell, found: dict[str, Any]) -> None:
        """Keeps what a finished cell found: its line in benchmark.csv last, since that says that it is finished."""
        if "predictions" in found:
            path = predictions_path(self.results, cell.data, cell.fraction)
            add_predictions(path, cell.row, cell.seed, found["predictions"])
        for table in ("tuned", "robustness", "benchmark"):
            if found.get(table):
                add_rows(self.results, found[table], table)


def result_rows(cell: Cell, metrics: dict, run: dict, common: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of the CSV: one per network of the run."""
    test, validation = metrics["test"], metrics["best"]
    student = run["networks"]["student"]
    second = run["networks"]["large"] if run["config"]["method"] == "distill" else student
    both = {name: student[name] + second[name] for name in ("parameters", "macs")}
    rows = []
    for who, size in (("student", student), ("auxiliary", second), ("mean", both)):
        if who in test:
            rows.append(
                {"data": cell.data, "fraction": cell.fraction, "row": cell.row, "seed": cell.seed, "network": who}
                | {"images": test["images"]}
                | {name: _rounded(test[who][name]) for name in METRICS}
                | {f"val_{name}": _rounded(validation[who][name]) for name in METRICS}
                | {"parameters": size["parameters"], "macs": size["macs"]}
                | {"seconds": round(run["timings"]["total_seconds"])}
                | common
            )
    return rows


def robustness_rows(cell: Cell, found: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Lines of robustness.csv: one per network, corruption and strength; none where it wasn't measured."""
    if not found:
        return []
    measured = {("none", 0): found["clean"]} | {
        (name, int(strength)): networks
        for name, strengths in found["corrupted"].items()
        for strength, networks in strengths.items()
    }
    return [
        {"data": cell.data, "fraction": cell.fraction, "row": cell.row, "seed": cell.seed, "network": who}
        | {"corruption": name, "strength": strength}
        | {metric: _rounded(networks[who][metric]) for metric in CORRUPTED}
        for who in found["clean"]
        for (name, strength), networks in measured.items()
    ]


def read_predictions(out: Path) -> Predictions:
    """The probabilities that the evaluations of one run wrote, with the patients of its data list.

    The student's are there a second time with the temperature that fits the validation images, not below 1: without the
    prior that a model file's has, which came after the first rows and is none of the method.
    """
    tables = {
        who: read_table(out / f"predictions_{name}.csv")
        for who, name in (("student", "test"), ("auxiliary", "test_auxiliary"), ("validation", "validation"))
        if (out / f"predictions_{name}.csv").is_file()
    }
    validation, test = tables.pop("validation", None), tables["student"]
    networks, temperature = {who: table.probabilities for who, table in tables.items()}, 1.0
    if validation is not None:
        temperature = fit_temperature(
            logits_of(validation.probabilities), torch.from_numpy(validation.labels), sharpen=False, prior=0
        ).temperature
        networks["calibrated"] = probabilities(logits_of(test.probabilities), temperature).numpy()
    folder = os.path.commonpath(test.images)
    datalist = read_json(out / "datalist.json")
    of_image = {record["image"]: record.get("patient", "") for record in datalist["test"]}
    names = [of_image.get(image, "") for image in test.images]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(filter(None, names)))}
    labels = [record["label"] for record in datalist["training"]]
    return Predictions(
        images=[Path(os.path.relpath(image, folder)).as_posix() for image in test.images],
        labels=test.labels,
        patients=np.array([numbers.get(name, -1) for name in names]),
        networks=networks,
        counts=np.bincount(labels, minlength=len(test.class_names)),
        temperature=temperature,
    )


def clean_up(out: Path, *, keep_model: bool) -> None:
    """Leaves the records of a finished run and, where another run needs it, its model."""
    for name in (
        "last.pt",
        "previous.pt",
        "models/auxiliary.pt",
        "models/model.safetensors",
        *([] if keep_model else ["models/model.pt"]),
    ):
        (out / name).unlink(missing_ok=True)
    for name in ("cache", "tensorboard"):
        shutil.rmtree(out / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        (out / "models").rmdir()


def current_commit() -> str:
    """Short hash of the checked out commit, with + where the package was changed since; empty outside git."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "--", "bundle"], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 6)
