# SPDX-License-Identifier: Apache-2.0
"""Trains once without interruption and once killed at random moments, and compares what is left, bit by bit.

    python -m scripts.measure.kill_and_resume DATA --work /tmp/kill [--signals KILL TERM INT] -- --epochs 6 ...

What follows ``--`` are options of train.json. Every part of the killed run is the same command, with no option to go
on, with a checkpoint after every iteration. The iterations are drawn, and up to half a second after them. Prints tables
in Markdown; the exit code is 0 where all sums agree.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from dual_skd.runs.checkpoint import NEWEST, PREVIOUS
from dual_skd.utils.files import sha256_of
from dual_skd.utils.tensor_files import read_tensors
from scripts import ROOT, TRAIN
from scripts.markdown import table_head, table_row


def tensors_sum(path: Path) -> str:
    """SHA-256 over names and values of a model's tensors."""
    found = hashlib.sha256()
    for name, tensor in torch.load(path, weights_only=True).items():
        found.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


COMPARED = {
    "student (`models/model.pt`, tensors)": ("models/model.pt", tensors_sum),
    "auxiliary (`models/auxiliary.pt`, tensors)": ("models/auxiliary.pt", tensors_sum),
    "`metrics.json`": ("metrics.json", sha256_of),
    "`predictions_validation.csv`": ("predictions_validation.csv", sha256_of),
}


def start(data: str, output: Path, options: list[str]) -> subprocess.Popen:
    """Starts the bundle's training, its output at the end of ``<output>.log``."""
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(TRAIN)]
    command += ["--dataset_dir", data, "--output_dir", str(output), "--checkpoint_minutes", "0", *options]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "bundle"), os.environ.get("PYTHONPATH", "")])}
    with output.with_suffix(".log").open("a", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=env)


def progress(output: Path) -> tuple[int, int]:
    """Iterations that the newest whole checkpoint has had, and those of an epoch."""
    for path in (output / NEWEST, output / PREVIOUS):
        with contextlib.suppress(ValueError):  # not there, or just being replaced
            state = read_tensors(path)["trainer"]
            return state["iteration"], state["epoch_length"]
    return 0, 1


def kill_once(data: str, output: Path, options: list[str], name: str, iteration: int, seconds: float) -> list[str]:
    """Runs a part, sends it a signal some time after that iteration, and returns its row of the table."""
    process = start(data, output, options)
    while process.poll() is None and progress(output)[0] < iteration:
        time.sleep(0.05)
    time.sleep(seconds)
    process.send_signal(signal.Signals[f"SIG{name}"])
    code = process.wait()
    done, length = progress(output)
    reached = f"{done // length} epochs and {done % length} of {length} iterations"
    return [f"SIG{name}", f"{iteration} + {seconds:.2f} s", str(code), reached]


def table(names: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join([*table_head(names), *map(table_row, rows)])


def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else list(arguments)
    own, options = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a data set, as for --dataset_dir")
    parser.add_argument("--work", type=Path, required=True, help="new folder for both runs")
    parser.add_argument("--signals", nargs="+", default=["KILL", "TERM", "INT"], choices=["KILL", "TERM", "INT"])
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args(own)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and their children, ignore it
    whole, parts = args.work / "whole", args.work / "parts"
    shutil.rmtree(parts, ignore_errors=True)
    args.work.mkdir(parents=True, exist_ok=True)
    if start(args.data, whole, options).wait():
        sys.stderr.write(f"The uninterrupted run failed; see {whole.with_suffix('.log')}.\n")
        return 1
    draw = random.Random(args.seed)
    moments = sorted(draw.sample(range(1, progress(whole)[0]), len(args.signals)))
    rows = [kill_once(args.data, parts, options, name, moment, draw.uniform(0, 0.5))
            for name, moment in zip(args.signals, moments, strict=True)]  # fmt: skip
    code = start(args.data, parts, options).wait()
    rows.append(["none", "to its end", str(code), "all"])
    sys.stdout.write(table(["ended by", "after iteration", "exit code", "last checkpoint"], rows) + "\n\n")
    sums = [[what, *(sum_of(folder / name)[:16] for folder in (whole, parts))]
            for what, (name, sum_of) in COMPARED.items()]  # fmt: skip
    same = all(first == second for _, first, second in sums)
    rows = [[*row, "equal" if row[1] == row[2] else "DIFFERENT"] for row in sums]
    sys.stdout.write(table(["SHA-256 (its first 16 digits)", "uninterrupted", "killed", ""], rows) + "\n")
    return 0 if same and not code else 1


if __name__ == "__main__":
    sys.exit(main())
