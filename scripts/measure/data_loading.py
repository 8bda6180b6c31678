# SPDX-License-Identifier: Apache-2.0
"""Measures the data side of a training run, and prints a Markdown table.

    python -m scripts.measure.data_loading [--images 2000] [--records 100000] [--image_size 96] [--batch_size 32]

* images per second of the whole training command (train.json: files, cache, augmentation, optimiser, handlers) from the
  second epoch on, against the same trainer fed from tensors in memory; the two take turns, and the figure is a median
  of ratios,
* seconds from the start to the first finished step for ``--records`` files, and
* peak memory with a tenth and with all of them, images kept on disk.

The files are generated textures in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dual_skd.serving.export.export import machine
from scripts import TRAIN
from scripts.markdown import table_head, table_row

FILE_PIXELS = 128


def write_images(folder: Path, count: int) -> Path:
    """Two class folders of ``count`` different pictures in all."""
    for label in range(2):
        (folder / f"class{label}").mkdir(parents=True)
    for place in range(count):
        coarse = np.random.default_rng(place).integers(0, 256, (12, 12), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((FILE_PIXELS, FILE_PIXELS), Image.Resampling.BICUBIC)
        picture.save(folder / f"class{place % 2}" / f"{place}.jpg", quality=85)
    return folder


def workflow(data: Path, output: Path, **options):
    """train.json on ``data``, initialised, without validation in between."""
    from monai.bundle import ConfigWorkflow

    options = {"val_interval": 1000, "keep_twins": True, "test_fraction": 0.05, "val_fraction": 0.05} | options
    built = ConfigWorkflow(str(TRAIN), logging_file=False, dataset_dir=str(data), output_dir=str(output), **options)
    built.initialize()
    return built


def throughput(data: Path, output: Path, rounds: int, **options) -> dict[str, float]:
    """Images per second of whole epochs from files, and of the same trainer fed from tensors."""
    from ignite.engine import Events

    figures: dict[str, float] = {}
    for cache in ("memory", "disk"):
        built = workflow(data, output / cache, epochs=2 * rounds + 2, cache=cache, **options)
        trainer, loader = built.trainer, built.parser.get_parsed_content("train#dataloader")
        in_memory = list(loader)
        images = sum(len(batch["label"]) for batch in in_memory)
        rates: dict[str, list[float]] = {"files": [], "tensors": []}
        started = [0.0]

        def begin(engine, started=started) -> None:
            started[0] = time.perf_counter()

        def end(engine, started=started, rates=rates, images=images, loader=loader, in_memory=in_memory) -> None:
            source = "tensors" if engine.state.dataloader is in_memory else "files"
            if engine.state.epoch > 2:  # the first epoch of each kind warms up
                rates[source].append(images / (time.perf_counter() - started[0]))
            engine.set_data(loader if source == "tensors" else in_memory)

        trainer.add_event_handler(Events.EPOCH_STARTED, begin)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, end)
        built.run()
        figures[f"images/s, cache {cache}"] = statistics.median(rates["files"])
        figures[f"images/s from tensors ({cache} run)"] = statistics.median(rates["tensors"])
        pairs = zip(rates["files"], rates["tensors"], strict=False)
        figures[f"files / tensors, cache {cache}"] = statistics.median(a / b for a, b in pairs)
    return figures


def start(data: Path, output: Path, **options) -> tuple[float, float]:
    """Seconds to the first finished step, and peak memory in MB, of this process and its workers."""
    from ignite.engine import Events

    began = time.perf_counter()
    built = workflow(data, output, epochs=1, keep_twins=False, **options)
    seconds = []

    def stop(engine) -> None:
        seconds.append(time.perf_counter() - began)
        engine.terminate()

    built.trainer.add_event_handler(Events.ITERATION_COMPLETED, stop)
    built.run()
    return seconds[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="files of the throughput measurement")
    parser.add_argument("--records", type=int, default=100_000, help="files of the start measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image_size", type=int, default=96)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)  # one start, in a process of its own
    args = parser.parse_args(arguments)
    options = {"image_size": args.image_size, "batch_size": args.batch_size, "num_workers": args.num_workers}

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if args.start:
            print(json.dumps(start(args.start, root / "run", **options)))
            return
        figures = throughput(write_images(root / "images", args.images), root / "runs", args.rounds, **options)
        for count in (args.records // 10, args.records):
            data = write_images(root / f"records{count}", count)
            command = [sys.executable, "-m", "scripts.measure.data_loading", "--start", str(data)]
            command += [f"--{name}={value}" for name, value in options.items()]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds, memory = json.loads(result.stdout.splitlines()[-1])
            figures[f"{count:,} files: s to the first step"] = seconds
            figures[f"{count:,} files: peak memory, MB"] = memory
    print(f"{machine()}, batch {args.batch_size} of {args.image_size} px\n")
    print(*table_head(["figure", "median"]), sep="\n")
    for name, value in figures.items():
        print(table_row([name, f"{value:.3g}"]))


if __name__ == "__main__":
    main()
