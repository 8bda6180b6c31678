# SPDX-License-Identifier: Apache-2.0
"""Measures what a temperature fitted on validation images does to the test images, per finished run.

    python -m scripts.benchmark.probes.temperature runs/*
    python -m scripts.benchmark.probes.temperature --draw 38 runs/*_tune_*

NLL of the test images as the network gives them, with the temperature that fits the validation images best, and with
one that may only soften; beside them the temperature that the test images themselves would have asked for, which nobody
has. Takes runs that were evaluated with ``--calibrate False``, as those of scripts/benchmark/run.py are.

With ``--draw`` no test images are used: so many of a run's validation images, drawn at random, fit a temperature that
may only soften, and the others judge it; means over the draws. A model file's temperature has a prior besides, see
scripts/benchmark/probes/prior.py; here there is none.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from dual_skd.metrics import fit_temperature, read_predictions
from dual_skd.metrics.calibration import logits_of
from dual_skd.metrics.classification import classification_metrics
from scripts.markdown import table_head, table_row

DRAWS = 50
HEAD_OF_DRAWS = ["NLL", "with T", "ECE", "with T"]


def read(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, up to a constant, and labels of a table of predictions."""
    table = read_predictions(path)
    return logits_of(table.probabilities), torch.from_numpy(table.labels)


def row(run: Path) -> list[str] | None:
    """One line of the table; None for a run without both tables of uncalibrated predictions."""
    paths = [run / f"predictions_{part}.csv" for part in ("validation", "test")]
    if (
        not all(path.is_file() for path in paths)
        or "calibrated" in json.loads((run / "metrics.json").read_text())["test"]
    ):
        return None
    validation, (logits, labels) = read(paths[0]), read(paths[1])
    fitted, wanted = (fit_temperature(*part, prior=0).temperature for part in (validation, (logits, labels)))
    nll = [classification_metrics(logits / t, labels)["nll"] for t in (1.0, fitted, max(fitted, 1.0))]
    return [run.name, str(len(validation[1])), f"{fitted:.2f}", f"{wanted:.2f}", *(f"{value:.3f}" for value in nll)]


def row_of_draws(run: Path, images: int) -> list[str] | None:
    """One line of the table for ``--draw``; None for a run whose validation images aren't twice as many."""
    path = run / "predictions_validation.csv"
    logits, labels = read(path) if path.is_file() else (torch.empty(0), torch.empty(0))
    if len(labels) < 2 * images:
        return None
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(DRAWS):
        fitting, judging = torch.randperm(len(labels), generator=generator).split([images, len(labels) - images])
        temperature = fit_temperature(logits[fitting], labels[fitting], sharpen=False, prior=0).temperature
        before, after = (classification_metrics(logits[judging] / t, labels[judging]) for t in (1.0, temperature))
        found.append([temperature, *(metrics[name] for name in ("nll", "ece") for metrics in (before, after))])
    means = torch.tensor(found).mean(0).tolist()
    return [run.name, str(len(labels)), f"{means[0]:.2f}", *(f"{value:.3f}" for value in means[1:])]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="output folders")
    parser.add_argument("--draw", type=int, metavar="IMAGES", help="fit on so many validation images, use no others")
    args = parser.parse_args(arguments)
    head = ["run", "validation images", "T fitted"]
    head += ["T of the test images", "test NLL", "with T", "T not below 1"] if args.draw is None else HEAD_OF_DRAWS
    print(*table_head(head), sep="\n")
    for run in args.runs:
        line = row(run) if args.draw is None else row_of_draws(run, args.draw)
        if line:
            print(table_row(line))


if __name__ == "__main__":
    main()
