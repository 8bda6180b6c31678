# SPDX-License-Identifier: Apache-2.0
"""Measures what training costs at several image sizes: CPU seconds for 100 images and one epoch, as a Markdown table.

    OMP_NUM_THREADS=1 python -m scripts.measure.epoch [--sizes 96 160 224] [--rounds 5] [--batch_size 16]

One training step of the default student alone, of the dual model (``coupled``), and of the large network. Steps of
all kinds and sizes take turns, and processor time counts, so that other work on the machine matters little. Reading
files, augmentation and validation aren't in it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch

from scripts.markdown import table_head, table_row
from scripts.measure.step_time import STUDENT, seconds_by_round, trainer_for

KINDS = {  # update, network
    "student alone": ("none", STUDENT),
    "dual model": ("mutual", STUDENT),
    "large network": ("none", {name: value for name, value in STUDENT.items() if name != "depths"}),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 160, 224])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=16)
    args = parser.parse_args(arguments)
    trainers = {}
    for size in args.sizes:
        shape = (args.batch_size, 1, size, size)
        batch = {"image": torch.randn(shape), "label": torch.arange(args.batch_size) % STUDENT["num_classes"]}
        for kind, (update, network) in KINDS.items():
            trainers[size, kind] = trainer_for(update, [batch], torch.device("cpu"), network)
    seconds = seconds_by_round(trainers, args.rounds, time.process_time)
    middle = {key: statistics.median(values) * 100 / args.batch_size for key, values in seconds.items()}
    print(*table_head(["pixels", *KINDS]), sep="\n")
    for size in args.sizes:
        cells = [
            f"{middle[size, kind]:.1f} s ({middle[size, kind] / middle[args.sizes[0], kind]:.1f})" for kind in KINDS
        ]
        print(table_row([str(size), *cells]), flush=True)


if __name__ == "__main__":
    main()
