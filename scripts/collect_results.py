#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Makes one Markdown table of finished runs (trained and evaluated), for docs/results.md.

    python scripts/collect_results.py runs/chest_dual_0 runs/chest_single_0 ... [--auxiliary]

Numbers are those of the test split in metrics.json. The interval of balanced accuracy and AUC is the 2.5 to 97.5
percentile over 1,000 bootstrap resamples of the test images, drawn within each class (seed 0), from
predictions_test.csv.
Seconds are those of the whole training with validation, after decoding.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bundle"))

from dual_skd.evaluation import classification_metrics  # noqa: E402

RESAMPLES = 1000


def read_predictions(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, K) and labels (N,) of a predictions CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [column[2:] for column in rows[0] if column.startswith("p_")]
    probabilities = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows])
    return probabilities, np.array([names.index(row["label"]) for row in rows])


def intervals(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals of balanced accuracy and macro AUC; classes keep their sizes, so both stay defined."""
    random = np.random.default_rng(0)
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    logits = torch.from_numpy(np.log(probabilities.clip(1e-7)))
    targets = torch.from_numpy(labels)
    drawn: dict[str, list[float]] = {"balanced_accuracy": [], "macro_auc": []}
    for _ in range(RESAMPLES):
        chosen = np.concatenate([random.choice(group, len(group)) for group in members])
        values = classification_metrics(logits[chosen], targets[chosen])
        for name, found in drawn.items():
            found.append(values[name])
    return {name: tuple(np.percentile(found, (2.5, 97.5))) for name, found in drawn.items()}


def rows_of(folder: Path, with_auxiliary: bool) -> list[list[str]]:
    """Table rows of one run: the student's, and if asked the auxiliary's and the mean's."""
    metrics = json.loads((folder / "metrics.json").read_text())["test"]
    run = json.loads((folder / "run.json").read_text())
    config = run["config"]
    interval = intervals(*read_predictions(folder / "predictions_test.csv"))
    rows = []
    for who in ("student", "auxiliary", "mean") if with_auxiliary else ("student",):
        if who not in metrics:
            continue
        values = metrics[who]

        def cell(name: str, values=values, who=who) -> str:
            text = f"{values[name]:.3f}"
            return f"{text} ({interval[name][0]:.3f} to {interval[name][1]:.3f})" if who == "student" else text

        share = "" if config["train_fraction"] == 1 else f", {config['train_fraction']:.0%}"
        parameters = run["networks"]["student"]["parameters"]
        rows.append([
            Path(config["dataset_dir"]).name + share,
            config["method"] + ("" if who == "student" else f": {who}"),
            str(config["seed"]),
            f"{values['accuracy']:.3f}",
            cell("balanced_accuracy"),
            cell("macro_auc"),
            f"{values['ece']:.3f}",
            f"{run['timings']['total_seconds']:.0f}",
            f"{parameters * (2 if who == 'mean' else 1) / 1e6:.2f} M",
        ])  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="output_dir of each run")
    parser.add_argument("--auxiliary", action="store_true", help="rows of the auxiliary and of the mean too")
    args = parser.parse_args()
    head = ["data", "method", "seed", "accuracy", "balanced accuracy", "AUC", "ECE", "seconds", "parameters"]
    lines = [head, ["---"] * len(head)]
    for folder in args.runs:
        lines += rows_of(folder, args.auxiliary)
    sys.stdout.write("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")


if __name__ == "__main__":
    main()
