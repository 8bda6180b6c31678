# SPDX-License-Identifier: Apache-2.0
"""A benchmark of tiny networks, run in this process."""

from __future__ import annotations

import csv
import json
from contextlib import nullcontext
from pathlib import Path

import torch
from monai.bundle import ConfigWorkflow

from dual_skd.errors import input_error_behind

LARGE = {"layers": [1, 1, 1, 1], "channels": [16, 16, 16, 16]}
SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


class InProcess(nullcontext):
    """Runs the bundle's configs in this process: the imports of another would take longer than the runs."""

    def __init__(self, failure: type[Exception]) -> None:
        super().__init__(self)
        self.failure = failure
        self.trained: list[str] = []

    def __call__(self, runs: list[dict], log: Path) -> None:
        for run in runs:
            options = dict(run)
            kind = {"training": "train", "evaluating": "eval"}[options.pop("run_id")]
            workflow = ConfigWorkflow(
                options.pop("config_file"),
                logging_file=False,
                workflow_type=kind,
                device=torch.device("cpu"),
                **options,
            )
            try:
                workflow.initialize()
                workflow.run()
            except Exception as error:  # a process would end with this sentence
                raise self.failure(str(input_error_behind(error))) from error
            workflow.finalize()
            if kind == "train":
                self.trained.append(log.parent.name)


def lines(folder: Path, table: str = "benchmark") -> list[dict]:
    with (folder / "results" / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def changed(plan: Path, name: str, change) -> Path:
    content = json.loads(plan.read_text())
    change(content)
    path = plan.with_name(name)
    path.write_text(json.dumps(content))
    return path


def grid_line(data: str, row: str, rate: float, nll: float, images: int = 9) -> dict[str, str]:
    found = {"data": data, "fraction": 1.0, "row": row, "seed": 0, "learning_rate": rate, "images": images, "nll": nll}
    return {name: str(value) for name, value in found.items()}
