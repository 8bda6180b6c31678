# SPDX-License-Identifier: Apache-2.0
"""Measures how much faster an exported student is than the large network, as a Markdown table on the output.

    python -m scripts.benchmark.deployment [--sizes 96 224] [--threads 1 2] [--rounds 5] [--seconds 2]

The pair is the default one of bundle/configs/train.json, untrained, since weights don't change the time, and MONAI's
DenseNet-121 stands beside it. In every round the candidates take turns, each in a process of its own, one image at a
time; the figures are medians over the rounds, the ratios medians of the rounds' ratios. With one thread the time is
that of the processor, else that of the clock, which other programs on the machine disturb.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from dual_skd.networks.build import build_network
from dual_skd.runs.model_file import save_model
from dual_skd.serving.export.export import machine
from dual_skd.serving.export.formats import CALIBRATION, FORMATS, SPEC, definition
from dual_skd.serving.export.worker import WorkerFailed, run_module
from dual_skd.utils.files import read_json
from scripts import TRAIN

CLASSES = 2  # the classifier's few weights don't matter
EAGER = "large network, eager PyTorch"
DENSENET = "MONAI DenseNet-121, eager PyTorch"
LIMIT_SECONDS = 900  # of one process

Candidates = dict[str, tuple[str, str | dict[str, Any], float | None]]  # name -> runtime, source, MB


def candidates(size: int, work: Path) -> Candidates:
    """Makes all that is measured at an image size; formats that can't be made here are named on standard error."""
    config = read_json(TRAIN)
    common = {"num_classes": CLASSES, "in_channels": 1, "spatial_dims": 2}
    large = {"name": config["large"], **config["large_options"], **common}
    small = {"name": config["small"], **config["small_options"], **common}
    preprocessing = {"spatial_dims": 2, "image_size": size, "window": "percentile"}
    network = build_network(**small)
    with torch.no_grad():
        for _ in range(3):  # activations of ordinary size, for the ranges that int8 has
            network(torch.rand(8, 1, size, size) * 2 - 1)
    model = save_model(
        work, network, architecture=small, class_names=["a", "b"], preprocessing=preprocessing, safetensors=False
    )
    densenet = {"_target_": "monai.networks.nets.DenseNet121", "spatial_dims": 2, "in_channels": 1}
    np.save(work / CALIBRATION, np.random.default_rng(0).uniform(-1, 1, (16, 1, size, size)).astype(np.float32))
    (work / SPEC).write_text(json.dumps(preprocessing), encoding="utf-8")
    found: Candidates = {
        EAGER: ("eager", definition(large), None),
        DENSENET: ("eager", densenet | {"out_channels": CLASSES}, None),
        "student, eager PyTorch": ("eager", str(model), model.stat().st_size / 1e6),
    }
    for name, known in FORMATS.items():
        try:
            if known.obstacle():
                raise WorkerFailed(known.obstacle())
            run_module(
                "dual_skd.serving.export.formats", [name, str(model), str(work)], work=work, seconds=LIMIT_SECONDS
            )
        except WorkerFailed as error:
            sys.stderr.write(f"{name}: not measured ({error})\n")
            continue
        files = [work / file for file in known.files]
        found[f"student, {name}"] = (known.runtime, str(files[0]), sum(file.stat().st_size for file in files) / 1e6)
    return found


def milliseconds(
    found: Candidates, size: int, work: Path, *, threads: int, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Milliseconds for one image of every candidate in every round."""
    times: dict[str, list[float]] = {name: [] for name in found}
    answer = work / "answer.json"
    for _ in range(rounds):
        for name, (runtime, source, _) in found.items():
            given = {
                "runtime": runtime, "source": source, "images": None, "shape": [1, size, size], "threads": threads,
                "seconds": seconds, "batches": [1], "answer": str(answer),
            }  # fmt: skip
            run_module(
                "dual_skd.serving.export.latency",
                [json.dumps(given)],
                work=work,
                seconds=LIMIT_SECONDS,
                threads=threads,
            )
            times[name].append(read_json(answer)["ms"]["1"])
    return times


def lines(found: Candidates, times: Mapping[str, Sequence[float]], size: int, threads: int) -> list[str]:
    """Rows of the table."""

    def ratio(name: str, to: str) -> str:
        return f"{median(one / other for one, other in zip(times[to], times[name], strict=True)):.1f}"

    return [
        f"| {size} | {threads} | {name} | {median(times[name]):.2f} | {ratio(name, EAGER)} | {ratio(name, DENSENET)} | "
        f"{'' if megabytes is None else f'{megabytes:.2f}'} |"
        for name, (_, _, megabytes) in found.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 224], help="pixels")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="per candidate and round")
    args = parser.parse_args(arguments)
    print(f"{machine()}, torch {torch.__version__}\n")
    print("| pixels | threads | | ms per image | times faster than large | than DenseNet-121 | file, MB |")
    print("|---|---|---|---|---|---|---|")
    for size in args.sizes:
        with tempfile.TemporaryDirectory(prefix="benchmark_deployment_") as folder:
            work = Path(folder).resolve()
            found = candidates(size, work)
            for threads in args.threads:
                times = milliseconds(found, size, work, threads=threads, rounds=args.rounds, seconds=args.seconds)
                print("\n".join(lines(found, times, size, threads)), flush=True)


if __name__ == "__main__":
    main()
