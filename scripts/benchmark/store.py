# SPDX-License-Identifier: Apache-2.0
"""Reads and writes the benchmark's files: CSV tables with lines per cell, and all test probabilities."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dual_skd.errors import InputError
from dual_skd.utils.files import replace_file

METRICS = ("accuracy", "balanced_accuracy", "macro_auc", "f1", "nll", "ece")
CELL_COLUMNS = ("data", "fraction", "row", "seed")
COLUMNS = (
    *CELL_COLUMNS, "network", "images", *METRICS, *(f"val_{name}" for name in METRICS), "parameters", "macs", "seconds",
    "learning_rate", "settings", "commit", "started",
)  # fmt: skip
CORRUPTION_METRICS = ("accuracy", "balanced_accuracy", "macro_auc", "nll", "ece")
# of the CSV files by name; images as they are have the corruption "none" and the strength 0
# the Brier score is computed from the probabilities: versions before its scale changed kept columns of it
FORMER_COLUMNS = ("brier", "val_brier")
TABLES = {
    "benchmark": COLUMNS,
    "robustness": (*CELL_COLUMNS, "network", "corruption", "strength", *CORRUPTION_METRICS),
    "tuned": (*CELL_COLUMNS, "learning_rate", "images", *METRICS),
    "latency": ("network", "size", "parameters", "macs", "milliseconds", "of_large", "load", "machine", "measured"),
}


class Predictions(NamedTuple):
    """Test probabilities of one run.

    Attributes:
        images: names in order of evaluation; only their hash is kept.
        labels: class indices (N,).
        patients: number of each image's patient (N,), -1 where unknown.
        networks: probabilities (N, K) of ``student``, of ``auxiliary`` if there is one, and of ``calibrated``: the
            student with its temperature, if there were validation images to fit one.
        counts: training images of each class (K,).
        temperature: of ``calibrated``; 1 without validation images.
    """

    images: list[str]
    labels: np.ndarray
    patients: np.ndarray
    networks: dict[str, np.ndarray]
    counts: np.ndarray
    temperature: float = 1.0


def cell_id(data: str, fraction: float | str, row: str, seed: int | str) -> str:
    """Name of a cell, of its folder and of its keys."""
    return f"{data}_{float(fraction)}_{row}_{int(seed)}"


def id_of(line: dict[str, Any]) -> str:
    """Name of the cell that a line of a table is of."""
    return cell_id(*(line[name] for name in CELL_COLUMNS))


def read_rows(results: Path, table: str = "benchmark") -> list[dict[str, str]]:
    """All lines of one of the :data:`TABLES`; none without the file.

    Raises:
        InputError: it has other columns than this program writes, or a line has another number of fields.
    """
    path, columns = results / f"{table}.csv", TABLES[table]
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(name for name in reader.fieldnames or () if name not in FORMER_COLUMNS) != columns:
            raise InputError(
                f"{path} has the columns {', '.join(reader.fieldnames or ())}, expected {', '.join(columns)}; "
                "move it away or correct its first line."
            )
        rows = [{name: value for name, value in row.items() if name not in FORMER_COLUMNS} for row in reader]
    for number, row in enumerate(rows, start=2):
        if tuple(row) != columns or None in row.values():  # as DictReader has fields too many, and too few
            raise InputError(f"{path}, line {number}, has more or fewer fields than columns; correct that line.")
    return rows


def add_rows(results: Path, rows: Sequence[dict[str, Any]], table: str = "benchmark") -> None:
    """Adds the lines of one cell in one go; a killed program leaves the former file or the new one."""

    def cell(row: dict[str, Any]) -> tuple[str, float | None]:
        rate = float(row["learning_rate"]) if table == "tuned" else None
        return id_of(row), rate

    new = {cell(row) for row in rows}
    write_rows(results, [*(row for row in read_rows(results, table) if cell(row) not in new), *rows], table)


def write_rows(results: Path, rows: Sequence[dict[str, Any]], table: str) -> None:
    """Writes a whole table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, TABLES[table], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_text(results / f"{table}.csv", text.getvalue())


def replace_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all; makes its folder."""
    replace_file(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def predictions_path(results: Path, data: str, fraction: float | str) -> Path:
    return results / "predictions" / f"{data}_{float(fraction)}.npz"


def add_predictions(path: Path, row: str, seed: int, found: Predictions) -> None:
    """Adds the probabilities of one cell, as float16, under ``row/seed/network``; its ``counts`` and ``temperature``.

    Raises:
        InputError: the file holds predictions of other images, or of other labels of them.
    """
    names = np.array(hashlib.sha256("\n".join(found.images).encode()).hexdigest())
    kept = dict(np.load(path)) if path.is_file() else {}
    if kept and (kept["images"] != names or not np.array_equal(kept["labels"], found.labels)):
        raise InputError(
            f"{path} holds predictions of {len(kept['labels'])} other test images than the {len(found.labels)} that "
            f"{row} with seed {seed} was measured on; fix the division (datalist#seed in the plan), or move the file "
            "and its lines of benchmark.csv away."
        )
    kept |= {"images": names, "labels": found.labels.astype(np.int16), "patients": found.patients.astype(np.int32)}
    kept |= {f"{row}/{seed}/{role}": p.astype(np.float16) for role, p in found.networks.items()}
    kept[f"{row}/{seed}/counts"] = found.counts.astype(np.int32)
    kept[f"{row}/{seed}/temperature"] = np.array(found.temperature)

    def write(draft: Path) -> None:
        with draft.open("wb") as file:
            np.savez_compressed(file, **kept)

    replace_file(path, write)


def probabilities(stored: dict[str, np.ndarray], row: str, seed: int | str, network: str) -> np.ndarray | None:
    """Probabilities (N, K) of one cell in double precision; ``mean`` is the mean of both networks. None if not there.

    float16 is fine near 0 and coarse near 1, so the largest of each image is what the others leave of 1.
    """
    if network == "mean":
        both = [probabilities(stored, row, seed, role) for role in ("student", "auxiliary")]
        return None if both[1] is None else (both[0] + both[1]) / 2
    if f"{row}/{seed}/{network}" not in stored:
        return None
    p = stored[f"{row}/{seed}/{network}"].astype(float)
    top = p.argmax(axis=1)[:, None]
    np.put_along_axis(p, top, 0, axis=1)
    np.put_along_axis(p, top, 1 - p.sum(axis=1, keepdims=True), axis=1)
    return p.clip(1e-7)


def for_equal_classes(
    stored: dict[str, np.ndarray], row: str, seed: int | str, p: np.ndarray | None
) -> np.ndarray | None:
    """The probabilities that a network would give were all classes equally frequent (Saerens et al. 2002).

        p_k / n_k, divided by its sum over the classes

    with n_k training images of class k: what those said of how frequent the classes are is taken back. None where
    these or the probabilities weren't stored.
    """
    counts = stored.get(f"{row}/{seed}/counts")
    if counts is None or p is None:
        return None
    shares = p / counts
    return shares / shares.sum(axis=1, keepdims=True)
