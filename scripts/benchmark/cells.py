# SPDX-License-Identifier: Apache-2.0
"""Runs one cell of the benchmark, and collects what it found."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dual_skd.errors import InputError
from dual_skd.metrics.calibration import fit_temperature, logits_of
from dual_skd.metrics.predictions import read_predictions
from dual_skd.metrics.probabilities import probabilities
from dual_skd.utils.files import read_json, write_json
from scripts import CONFIGS, ROOT
from scripts.benchmark.leave_out import elsewhere, leave_out
from scripts.benchmark.plan import Cell, Plan, Rows, configs_of, fingerprint, needed_by, outdated_cells, settings_of
from scripts.benchmark.processes import CellFailed, Processes
from scripts.benchmark.store import (
    CORRUPTION_METRICS,
    METRICS,
    Predictions,
    add_predictions,
    add_rows,
    id_of,
    predictions_path,
    read_rows,
)


@dataclass
class Benchmark:
    """Runs and records the cells of a plan.

    Attributes:
        plan: of :func:`scripts.benchmark.plan.read_plan`.
        data_roots: folders that data sets and other files are looked for in.
        results: folder of the tables.
        work: folder of the runs.
        execute: runs the bundle, see :class:`scripts.benchmark.processes.Processes`.
    """

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
        if "elsewhere" in data:
            other, folder = self._find(data["elsewhere"]), self.work / "elsewhere" / cell.data
            found["dataset_dir"], further = elsewhere(found["dataset_dir"], other, folder)
            if self.plan["rows"][cell.row].get("unlabelled") == "elsewhere":
                found["unlabelled"] = further
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
        places = self.places(cell) | {"output_dir": str(out)} | self._teacher(cell)
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        commit = current_commit()
        write_json(out / "settings.json", settings | places)
        self.execute(self._runs(cell, out, settings), out / "log.txt")
        metrics, run = read_json(out / "metrics.json"), read_json(out / "run.json")
        clean_up(out, keep_model=any(row.get("needs") == cell.row for row in self.plan["rows"].values()))
        if cell.learning_rate is not None:
            best = metrics["best"]
            line = cell.key | {"learning_rate": cell.learning_rate, "images": best["images"]}
            return {"tuned": [line | {name: _rounded(best["student"][name]) for name in METRICS}]}
        common = {"learning_rate": run["config"]["learning_rate"], "settings": fingerprint(self.plan, settings)}
        common |= {"commit": commit, "started": started}
        return {
            "benchmark": result_rows(cell, metrics, run, common),
            "predictions": predictions_of(out),
            "robustness": robustness_rows(cell, metrics.get("robustness")),
        }

    def _teacher(self, cell: Cell) -> dict[str, str]:
        """The override that names the model a cell starts from; empty where it needs none."""
        needed = needed_by(self.plan, cell)
        if not needed:
            return {}
        model = self.work.absolute() / needed.id / "models" / "model.pt"
        if not model.is_file():
            raise CellFailed(
                f"The model of {needed.id} isn't in {self.work}; remove the lines of that cell from benchmark.csv "
                "to train it again."
            )
        return {"teacher_checkpoint": str(model)}

    def _runs(self, cell: Cell, out: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Arguments of the bundle's runs: a training and, unless it is of the grid search, an evaluation."""
        files = [*(str(CONFIGS / name) for name in configs_of(self.plan, cell.data)), str(out / "settings.json")]
        runs: list[dict[str, Any]] = [{"run_id": "training", "config_file": files}]
        if cell.learning_rate is not None:
            return runs
        evaluate = {"run_id": "evaluating", "config_file": str(CONFIGS / "evaluate.json"), "output_dir": str(out)}
        evaluate |= {"calibrate": False, "report": False}  # the tables are of the networks as they are
        evaluate |= {key: settings[key] for key in ("device", "num_workers") if key in settings}
        robustness = self.plan["data"][cell.data].get("robustness")
        if robustness:  # true, or options of corruption.json
            evaluate["config_file"] = [evaluate["config_file"], str(CONFIGS / "corruption.json")]
            evaluate |= robustness if isinstance(robustness, dict) else {}
        return [*runs, evaluate]

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
    for role, size in (("student", student), ("auxiliary", second), ("mean", both)):
        if role in test:
            rows.append(
                cell.key
                | {"network": role, "images": test["images"]}
                | {name: _rounded(test[role][name]) for name in METRICS}
                | {f"val_{name}": _rounded(validation[role][name]) for name in METRICS}
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
        cell.key
        | {"network": role, "corruption": name, "strength": strength}
        | {metric: _rounded(networks[role][metric]) for metric in CORRUPTION_METRICS}
        for role in found["clean"]
        for (name, strength), networks in measured.items()
    ]


def predictions_of(out: Path) -> Predictions:
    """The probabilities that the evaluations of one run wrote, with the patients of its data list.

    The student's are there a second time with the temperature that fits the validation images, not below 1: without the
    prior that a model file's has, which came after the first rows and is none of the method.
    """
    tables = {
        role: read_predictions(out / f"predictions_{name}.csv")
        for role, name in (("student", "test"), ("auxiliary", "test_auxiliary"), ("validation", "validation"))
        if (out / f"predictions_{name}.csv").is_file()
    }
    validation, test = tables.pop("validation", None), tables["student"]
    networks, temperature = {role: table.probabilities for role, table in tables.items()}, 1.0
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
