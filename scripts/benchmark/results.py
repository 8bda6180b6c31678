# SPDX-License-Identifier: Apache-2.0
"""Reads what the benchmark has measured so far, for its report and its claims."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from dual_skd.errors import InputError
from dual_skd.metrics.classification import classification_metrics
from dual_skd.metrics.paired import Difference, paired_differences
from scripts.benchmark.plan import Plan, outdated_cells
from scripts.benchmark.store import for_equal_classes, id_of, predictions_path, probabilities, read_rows

METRIC_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_auc": "AUC",
    "f1": "F1",
    "nll": "NLL",
    "ece": "ECE",
    "brier": "Brier",
}
COMPARED_METRICS = ("balanced_accuracy", "macro_auc", "nll", "ece")
SHARED_COLUMNS = ("fraction", "row", "seed", "network", "settings", "learning_rate", "parameters", "macs")
"""What a line for all sites or folds takes from that of the first."""
CORRECTIONS = ("calibrated", "equal classes")
"""Of a student's probabilities: by its temperature, or by how frequent each class was in training."""


@dataclass
class Results:
    """The CSV and the predictions, by row of the plan."""

    folder: Path
    plan: Plan
    _loaded: dict[tuple[str, float], dict[str, np.ndarray]] = field(default_factory=dict, repr=False)
    _compared: dict[tuple, dict[str, Difference]] = field(default_factory=dict, repr=False)

    @cached_property
    def outdated(self) -> set[str]:
        """Cells that ran with other settings than the plan has now."""
        return outdated_cells(self.plan, read_rows(self.folder), read_rows(self.folder, "tuned"))

    @cached_property
    def hidden(self) -> set[str]:
        """Outdated cells of tables that have others: no table mixes them."""
        lines = read_rows(self.folder)
        new = {place_of(line) for line in lines if id_of(line) not in self.outdated}
        return {id_of(line) for line in lines if place_of(line) in new} & self.outdated

    @cached_property
    def lines(self) -> list[dict[str, str]]:
        measured = [line for line in read_rows(self.folder) if id_of(line) not in self.hidden]
        return measured + self._pooled(measured)

    def parts(self, data: str) -> list[str]:
        """The data sets whose test images together are those of a data set: its sites or folds, else itself."""
        return self.plan.get("pooled", {}).get(data, [data])

    def whole(self, data: str) -> str:
        """The data set that a data set is a site or fold of, else itself."""
        return next((whole for whole, parts in self.plan.get("pooled", {}).items() if data in parts), data)

    def mark(self, data: str, fraction: float) -> str:
        """A dagger for a table of outdated cells."""
        places = {(part, float(fraction)) for part in self.parts(data)}
        shown = {id_of(line) for line in self.lines if place_of(line) in places}
        return " †" if shown & self.outdated else ""

    def of(self, data: str, fraction: float, row: str, network: str = "student") -> dict[int, dict[str, str]]:
        """Lines of one row of a table, by seed."""
        key = (data, float(fraction), row, network)
        found = [r for r in self.lines if (r["data"], float(r["fraction"]), r["row"], r["network"]) == key]
        return {int(r["seed"]): r for r in found}

    def values(self, data: str, fraction: float, row: str, name: str, network: str = "student") -> np.ndarray:
        """A metric for all seeds; those where it isn't defined are left out."""
        lines = self.of(data, fraction, row, network)
        if name == "brier":  # of the probabilities, see store.FORMER_COLUMNS
            found = [self.metrics(data, fraction, row, seed, network).get(name) for seed in lines]
            return np.array([value for value in found if value is not None])
        return np.array([float(line[name]) for line in lines.values() if line[name] != ""])

    def shared_means(self, data: str, fraction: float, rows: Sequence[str], name: str) -> np.ndarray:
        """Per row the mean of a student's metric over the seeds that all of the rows have; nan without any."""
        return self.means_of([(data, fraction, row) for row in rows], name)

    def means_of(self, cells: Sequence[tuple[str, float, str]], name: str) -> np.ndarray:
        """The same for rows (data set, fraction, row) of several tables, over the seeds that all of them have."""
        return self.shared_values(cells, name).mean(axis=1)

    def shared_values(self, cells: Sequence[tuple[str, float, str]], name: str) -> np.ndarray:
        """A student's metric (rows, seeds) for rows of several tables and the seeds that all have; nan without any."""
        lines = [self.of(*cell) for cell in cells]
        seeds = sorted(set.intersection(*(set(of_row) for of_row in lines)))
        values = [[float(of_row[seed][name] or "nan") for seed in seeds] for of_row in lines]
        return np.array(values) if seeds else np.full((len(cells), 1), np.nan)

    def tables(self) -> list[tuple[str, float, list[str]]]:
        """Data set, fraction and rows of every table: those of the plan, and what else was measured.

        A data set with parts stands before them.
        """
        tables: dict[tuple[str, float], list[str]] = {}
        for tier in self.plan["tiers"]:
            for data, fraction in tier["on"]:
                for name in (self.whole(data), data):
                    tables.setdefault((name, float(fraction)), []).extend(tier["rows"])
        for line in self.lines:
            tables.setdefault((line["data"], float(line["fraction"])), []).append(line["row"])
        places = {row: place for place, row in enumerate(self.plan["rows"])}
        return [  # rows that the plan no longer has come last, as they were measured
            (data, fraction, sorted(dict.fromkeys(rows), key=lambda row: places.get(row, len(places))))
            for (data, fraction), rows in tables.items()
        ]

    def predictions(
        self, data: str, fraction: float, row: str, seed: int, network: str = "student"
    ) -> np.ndarray | None:
        """Test probabilities (N, K) of one cell; None where they aren't kept.

        Of a data set with parts: those of all parts' networks, one part after the other.

        Args:
            network: ``student``, ``auxiliary`` or ``mean``; or one of :data:`CORRECTIONS`, which are the student's.
        """
        found = []
        for part in self.parts(data):
            stored = self._stored(part, fraction)
            p = probabilities(stored, row, seed, "student" if network == "equal classes" else network)
            found.append(for_equal_classes(stored, row, seed, p) if network == "equal classes" else p)
        return None if any(p is None for p in found) else np.concatenate(found)

    def metrics(self, data: str, fraction: float, row: str, seed: int, network: str) -> dict[str, float | None]:
        """Metrics of the probabilities (see :meth:`predictions`); empty where they aren't kept."""
        p = self.predictions(data, fraction, row, seed, network)
        return {} if p is None else self.metrics_of(p, data, fraction)

    def metrics_of(self, p: np.ndarray, data: str, fraction: float) -> dict[str, float | None]:
        """Metrics of probabilities (N, K) of the test images."""
        return classification_metrics(torch.from_numpy(p).log(), torch.from_numpy(self.labels(data, fraction)).long())

    def temperatures(self, data: str, fraction: float, row: str) -> np.ndarray:
        """The temperatures of a row's calibrated students, of all seeds and parts."""
        stored = [self._stored(part, fraction) for part in self.parts(data)]
        keys = [f"{row}/{seed}/temperature" for seed in self.of(data, fraction, row)]
        return np.array([float(of_part[key]) for of_part in stored for key in keys if key in of_part])

    def training_images(self, data: str, fraction: float) -> int:
        """How many images the networks were trained on, mean over what was run."""
        stored = [self._stored(part, fraction) for part in self.parts(data)]
        return round(np.mean([of[key].sum() for of in stored for key in of if key.endswith("/counts")]))

    def labels(self, data: str, fraction: float) -> np.ndarray:
        """Class indices (N,) of the test images."""
        return np.concatenate([self._stored(part, fraction)["labels"] for part in self.parts(data)])

    def patients(self, data: str, fraction: float) -> list[str]:
        """Patients (N) of the test images, empty where unknown; those of two parts are never the same."""
        return [
            f"{part} {number}" if number >= 0 else ""
            for part in self.parts(data)
            for number in self._stored(part, fraction)["patients"]
        ]

    def differences(
        self,
        data: str,
        fraction: float,
        row: str,
        control: str,
        network: str = "student",
        first_seed: int = 0,
        of: tuple[str, float] | None = None,
    ) -> dict[str, Difference]:
        """Paired differences to the control's student, over the seeds that both have; empty without any.

        Args:
            network: as of :meth:`predictions`; one of :data:`CORRECTIONS` is compared with the same of the control.
            first_seed: earlier ones don't count.
            of: data set and fraction of the control, if it was trained otherwise; the test images are the same.

        Raises:
            InputError: the test images aren't the same.
        """
        read, there = network in CORRECTIONS, of or (data, fraction)
        if row == control and there == (data, fraction) and (read or network == "student"):
            return {}
        own = self.of(data, fraction, row, "student" if read else network)
        seeds = sorted(seed for seed in own.keys() & self.of(*there, control).keys() if seed >= first_seed)
        pairs = [
            (
                self.predictions(data, fraction, row, seed, network),
                self.predictions(*there, control, seed, network if read else "student"),
            )
            for seed in seeds
        ]
        pairs = [pair for pair in pairs if pair[0] is not None and pair[1] is not None]
        if not pairs:
            return {}
        if self._stored(data, fraction).get("images") != self._stored(*there).get("images"):
            raise InputError(f"{data} and {there[0]} have other test images; compare rows that have the same.")
        one, other = (np.stack(side) for side in zip(*pairs, strict=True))
        labels, patients = self.labels(data, fraction), self.patients(data, fraction)
        asked = (data, float(fraction), row, *there, control, network, first_seed)
        if asked not in self._compared:
            self._compared[asked] = paired_differences(
                one, other, labels, metrics=COMPARED_METRICS, patients=patients, new_trainings=True
            )
        return self._compared[asked]

    def digest(self, *texts: str) -> str:
        """Of the measurements, the plan and texts: what is made of them can say from which."""
        tables = [path.read_text(encoding="utf-8") for path in sorted(self.folder.glob("*.csv"))]  # whatever line ends
        found = hashlib.sha256(json.dumps([self.plan, tables, texts], sort_keys=True).encode())
        for path in sorted((self.folder / "predictions").glob("*.npz")):
            found.update(path.name.encode() + path.read_bytes())
        return f"sha256:{found.hexdigest()}"

    def _pooled(self, lines: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        """A line for each network that has been tested on all parts of a data set, with the metrics of them all."""
        pooled = []
        for whole, parts in self.plan.get("pooled", {}).items():
            groups: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
            for line in lines:
                if line["data"] in parts:
                    key = (line["fraction"], line["row"], line["seed"], line["network"])
                    groups.setdefault(key, {})[line["data"]] = line
            for (fraction, row, seed, network), found in groups.items():
                metrics = self.metrics(whole, float(fraction), row, int(seed), network)
                if len(found) < len(parts) or not metrics:
                    continue
                kept = {name: found[parts[0]][name] for name in SHARED_COLUMNS}
                values = {
                    name: "" if metrics[name] is None else str(metrics[name]) for name in ("accuracy", *METRIC_NAMES)
                }
                pooled.append(dict.fromkeys(found[parts[0]], "") | kept | values | {"data": whole})
        return pooled

    def _stored(self, data: str, fraction: float) -> dict[str, np.ndarray]:
        place = (data, float(fraction))
        if place not in self._loaded:
            path = predictions_path(self.folder, data, fraction)
            self._loaded[place] = dict(np.load(path)) if path.is_file() else {}
        return self._loaded[place]


def place_of(line: dict[str, str]) -> tuple[str, float]:
    return line["data"], float(line["fraction"])


def is_worse(name: str, difference: float) -> bool:
    """Whether a difference of a metric is for the worse."""
    return difference > 0 if name in ("nll", "ece") else difference < 0
