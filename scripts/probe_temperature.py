# SPDX-License-Identifier: Apache-2.0
"""What a temperature fitted on validation images does to the test images, per finished run:

    python scripts/probe_temperature.py runs/*

NLL of the test images as the network gives them, with the temperature that fits the validation images best, and with
one that may only soften; beside them the temperature that the test images themselves would have asked for, which nobody
has. Takes runs that were evaluated with ``--calibrate False``, as those of scripts/benchmark.py are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from dual_skd.evaluation import fit_temperature, read_predictions
from dual_skd.evaluation.metrics import classification_metrics


def logits_of(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, up to a constant, and labels of a table of predictions."""
    table = read_predictions(path)
    return torch.from_numpy(table.probabilities).clamp_min(1e-9).log(), torch.from_numpy(table.labels)


def row(run: Path) -> list[str] | None:
    """One line of the table; None for a run without both tables of uncalibrated predictions."""
    paths = [run / f"predictions_{part}.csv" for part in ("validation", "test")]
    if (
        not all(path.is_file() for path in paths)
        or "calibrated" in json.loads((run / "metrics.json").read_text())["test"]
    ):
        return None
    validation, (logits, labels) = logits_of(paths[0]), logits_of(paths[1])
    fitted, wanted = (fit_temperature(*part).temperature for part in (validation, (logits, labels)))
    nll = [classification_metrics(logits / t, labels)["nll"] for t in (1.0, fitted, max(fitted, 1.0))]
    return [run.name, str(len(validation[1])), f"{fitted:.2f}", f"{wanted:.2f}", *(f"{value:.3f}" for value in nll)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="output folders")
    args = parser.parse_args(arguments)
    head = ["run", "validation images", "T fitted", "T of the test images", "test NLL", "with T", "T not below 1"]
    print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|")
    for run in args.runs:
        line = row(run)
        if line:
            print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
