# SPDX-License-Identifier: Apache-2.0
"""Measures what the second network costs, as ratios from one run, and prints a Markdown table.

    python -m scripts.measure.step_time [--steps 20] [--rounds 7] [--image_size 96] [--batch_size 32] [--device cpu]

The kinds of step take turns, a few steps each, so that a drift of the machine's speed hits all of them; each figure is
the median over the rounds. The student's network and the sizes are those of bundle/configs/train.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from dual_skd.serving.export.export import machine
from scripts import TRAIN
from scripts.markdown import table_head, table_row

Key = TypeVar("Key")
STUDENT = {"name": "tf_efficientnet_lite2", "depths": [1, 3, 3, 2, 1, 1], "num_classes": 3, "in_channels": 1}

# Runs in its own process, so that its peak memory is the selection's own. Prints seconds and peak memory over weights.
SELECTION = """
import resource, time
import timm, torch
from dual_skd.selection import plan_selection

with torch.device("meta"):  # shapes alone, so that the peak before the selection is that of the weights
    shapes = timm.create_model("vit_large_patch16_224").state_dict()
    small = timm.create_model("vit_tiny_patch16_224")
# random numbers, not zeros: untouched zero pages would not count as memory
large = {name: torch.rand(tensor.shape) for name, tensor in shapes.items()}
size = sum(tensor.numel() * tensor.element_size() for tensor in large.values())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
seconds = []
for _ in range(5):
    start = time.perf_counter()
    weights = plan_selection(large, small).apply(large)
    seconds.append(time.perf_counter() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(sorted(seconds)[2], 1 + (peak - before) / size)
"""


def trainer_for(update: str, batches: list[dict], device: torch.device, network: dict = STUDENT):
    """A DualModelTrainer as train.json builds it, fed from tensors in memory."""
    from dual_skd import DualModelTask, DualModelTrainer, Schedule, build_network

    torch.manual_seed(0)
    student, auxiliary = (build_network(**network).to(device, memory_format=torch.channels_last) for _ in range(2))
    task = DualModelTask(
        student,
        torch.nn.CrossEntropyLoss(),
        auxiliary,
        update=update,
        schedule=Schedule(epochs=1, ramp_up=0.0),
        auxiliary_optimizer=torch.optim.AdamW(auxiliary.parameters(), lr=1e-4) if update == "mutual" else None,
    )
    return DualModelTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=batches,
        optimizer=torch.optim.AdamW(student.parameters(), lr=1e-4),
        task=task,
        decollate=False,
    )


def seconds_by_round(trainers: Mapping[Key, Any], rounds: int, clock: Callable[[], float]) -> dict[Key, list[float]]:
    """Seconds of one run of each trainer in every round. They take turns, after a round that warms up."""
    seconds: dict[Key, list[float]] = {key: [] for key in trainers}
    for round_number in range(rounds + 1):
        for key, trainer in trainers.items():
            trainer.state.epoch = trainer.state.iteration = 0
            start = clock()
            trainer.run()
            if round_number:
                seconds[key].append(clock() - start)
    return seconds


def step_ratios(steps: int, rounds: int, image_size: int, batch_size: int, device: torch.device) -> dict[str, float]:
    """Median over the rounds of (seconds of a dual step) / (seconds of a plain student step in the same round)."""
    batches = [
        {
            "image": torch.randn(batch_size, 1, image_size, image_size),
            "label": torch.randint(STUDENT["num_classes"], (batch_size,)),
        }
        for _ in range(steps)
    ]
    trainers = {update: trainer_for(update, batches, device) for update in ("none", "ema", "mutual")}

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    seconds = seconds_by_round(trainers, rounds, clock)
    return {
        "student step, ms": 1000 * statistics.median(seconds["none"]) / steps,
        "dual EMA step / student step": statistics.median(
            a / b for a, b in zip(seconds["ema"], seconds["none"], strict=True)
        ),
        "dual mutual step / student step": statistics.median(
            a / b for a, b in zip(seconds["mutual"], seconds["none"], strict=True)
        ),
    }


def data_wait_share(image_size: int, batch_size: int) -> float:
    """Share of the training time of train.json, demo data in the cache, in which the step waits for its batch."""
    from ignite.engine import Events
    from monai.bundle import ConfigWorkflow

    with tempfile.TemporaryDirectory() as output:
        workflow = ConfigWorkflow(
            str(TRAIN),
            logging_file=False,
            output_dir=output,
            image_size=image_size,
            batch_size=batch_size,
            epochs=4,
            val_interval=100,
        )
        workflow.initialize()
        trainer = workflow.trainer
        moments: dict[str, list[float]] = {"asked": [], "got": []}
        trainer.add_event_handler(Events.GET_BATCH_STARTED, lambda _: moments["asked"].append(time.perf_counter()))
        trainer.add_event_handler(Events.GET_BATCH_COMPLETED, lambda _: moments["got"].append(time.perf_counter()))
        workflow.run()
        waited = sum(got - asked for asked, got in zip(moments["asked"], moments["got"], strict=False))
    return waited / trainer.state.times["COMPLETED"]


def selection_cost() -> tuple[float, float]:
    """Seconds, and peak memory over the size of the large weights, of ViT-L -> ViT-T."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", SELECTION], env=environment, check=True, capture_output=True, text=True
    )
    seconds, memory = result.stdout.split()
    return float(seconds), float(memory)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="steps of one kind per round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)

    figures: dict[str, float] = step_ratios(
        args.steps, args.rounds, args.image_size, args.batch_size, torch.device(args.device)
    )
    figures["share of the step spent waiting for cached data"] = data_wait_share(args.image_size, args.batch_size)
    figures["selection ViT-L -> ViT-T, s"], figures["its peak memory / large weights"] = selection_cost()

    print(f"{machine()}, torch {torch.__version__} on {args.device}, batch {args.batch_size} of {args.image_size} px\n")
    print(*table_head(["figure", "median"]), sep="\n")
    for name, value in figures.items():
        print(table_row([name, f"{value:.3g}"]))


if __name__ == "__main__":
    main()
