# SPDX-License-Identifier: Apache-2.0
"""Measures what a long run and many runs in one process leave behind: memory, tensors, threads, files, processes.

    python -m scripts.measure.long_run [--iterations 2000] [--runs 50] [--num_workers 1]

Trains tiny networks on generated phantoms by the bundle's own configuration, with validation, checkpoints, TensorBoard.
First one run of many iterations, then many runs of 2 epochs. Prints a table in Markdown; the exit code is 0 where the
resident memory grew by less than 2 % after the first quarter and nothing else grew at all.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow

from dual_skd.data import write_demo
from scripts import TRAIN
from scripts.markdown import table_head, table_row

MAX_MEMORY_GROWTH = 0.02
ITERATIONS_PER_EPOCH = 20
TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
SETTINGS = {
    "image_size": 32, "batch_size": 8, "large": "resnet18", "large_options": TINY, "pretrained": "none",
    "small": "resnet18", "small_options": TINY, "cache": "none", "checkpoint_minutes": 0.05,
}  # fmt: skip


def held() -> dict[str, float]:
    """What this process holds now, after the garbage collector has been."""
    gc.collect()
    process = psutil.Process()
    with process.oneshot():
        return {
            "memory (MB)": process.memory_info().rss / 1e6,
            "tensors": sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects()),
            "threads": process.num_threads(),
            "file handles": process.num_fds(),
            "processes": len(process.children(recursive=True)),
        }


def train(output: Path, after_epoch: Callable[[int], Any] | None = None, **settings: Any) -> None:
    """One run of the bundle's training, quietly; ``after_epoch`` gets the number of iterations so far."""
    settings = SETTINGS | {"output_dir": str(output), "device": torch.device("cpu")} | settings
    workflow = ConfigWorkflow(str(TRAIN), workflow_type="train", logging_file=False, **settings)
    with contextlib.redirect_stderr(io.StringIO()):
        workflow.initialize()
        if after_epoch:
            trainer = workflow.parser.get_parsed_content("train#trainer")
            trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: after_epoch(trainer.state.iteration))
        workflow.run()


def table(rows: list[tuple[str, dict[str, float]]]) -> str:
    """A Markdown table."""
    lines = table_head(["after", *rows[0][1]])
    for name, values in rows:
        lines.append(table_row([name, *(f"{value:.1f}".removesuffix(".0") for value in values.values())]))
    return "\n".join(lines)


def grew(first: dict[str, float], last: dict[str, float]) -> list[str]:
    """Names of what grew more than it may."""
    limits = {"memory (MB)": 1 + MAX_MEMORY_GROWTH}
    return [name for name in first if last[name] > first[name] * limits.get(name, 1)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--num_workers", type=int, default=1, help="processes of each loader")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows, bad = [], []
    with tempfile.TemporaryDirectory() as folder:
        demo = write_demo(Path(folder) / "demo", counts={"train": 8 * ITERATIONS_PER_EPOCH, "val": 9, "test": 9})
        shared = {"dataset_dir": str(demo), "num_workers": args.num_workers}
        epochs = max(args.iterations // ITERATIONS_PER_EPOCH, 4)
        wanted = [ITERATIONS_PER_EPOCH * (epochs * quarter // 4) for quarter in range(1, 5)]

        def note(iteration: int) -> None:
            if iteration in wanted:
                rows.append((f"{iteration} iterations", held()))

        train(Path(folder) / "long", note, epochs=epochs, **shared)
        bad += grew(rows[0][1], rows[-1][1])
        first = len(rows)
        for number in range(1, args.runs + 1):
            train(Path(folder) / str(number), epochs=2, **shared)
            if number in {max(1, args.runs * quarter // 4) for quarter in range(1, 5)}:
                rows.append((f"{number} further runs", held()))
        bad += grew(rows[first][1], rows[-1][1])
    sys.stdout.write(table(rows) + "\n" + (f"Grew: {', '.join(bad)}\n" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
