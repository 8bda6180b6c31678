# SPDX-License-Identifier: Apache-2.0
"""Measures images per second, and memory over time, of ``run inference`` on a folder of many small images.

    python -m scripts.measure.inference [--images 5000] [--num_workers 0 2] [--model output]

Writes generated chest phantoms of 128 x 128 pixels, every second one as PNG, the others as DICOM files, into a folder
that is removed at the end, and runs configs/inference.json on them, for each number of workers in a process of its own.
A line per run: images per second, CPU time per image (of all its processes, so that a busy machine doesn't matter
much), resident memory of all its processes after the first tenth and at the end, and how much it grew between.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

WARM_UP = 0.1  # share of the images after which memory counts as settled
DRAWN_PHANTOMS = 60  # the files are copies of them


def write_images(folder: Path, count: int) -> Path:
    """``count`` files, PNG and DICOM by turns."""
    from PIL import Image

    from dual_skd.data import read_grey, write_demo

    demo = write_demo(folder / "demo", counts={"test": DRAWN_PHANTOMS})
    files = sorted((demo / "images").iterdir())
    for file in files:
        grey = read_grey(file).T / 16  # twelve bits to eight
        Image.fromarray(grey.byte().numpy()).save(file.with_suffix(".png"))
    images = folder / "images"
    images.mkdir()
    for number in range(count):
        suffix = (".png", ".dcm")[number % 2]
        shutil.copyfile(files[number // 2 % DRAWN_PHANTOMS].with_suffix(suffix), images / f"{number:06d}{suffix}")
    return images


def measure(images: Path, output: Path, workers: int, model: str) -> dict[str, float]:
    """One run of inference in this process."""
    import psutil
    import torch
    from ignite.engine import Engine, Events
    from monai.bundle import ConfigWorkflow

    from dual_skd.runs.model_file import bundle_root, model_file

    own = {"checkpoint": str(model_file(model))} if model else {}
    workflow = ConfigWorkflow(
        str(Path(bundle_root()) / "configs" / "inference.json"), workflow_type="inference", logging_file=False,
        dataset_dir=str(images), output_dir=str(output), num_workers=workers, device=torch.device("cpu"), **own,
    )  # fmt: skip
    workflow.initialize()
    evaluator = workflow.parser.get_parsed_content("evaluator")
    process, samples = psutil.Process(), []

    def sample(engine: Engine) -> None:
        family = [process, *process.children(recursive=True)]
        times = [each.cpu_times() for each in family]
        samples.append((
            engine.state.iteration * workflow.parser.get("batch_size"), time.perf_counter(),
            sum(each.user + each.system for each in times), sum(each.memory_info().rss for each in family) / 2**20,
        ))  # fmt: skip

    evaluator.add_event_handler(Events.ITERATION_COMPLETED(every=10), sample)
    workflow.run()
    warm = next(number for number, one in enumerate(samples) if one[0] >= WARM_UP * samples[-1][0])
    (first, began, cpu, before), (last, ended, used, after) = samples[warm], samples[-1]
    return {
        "workers": workers,
        "images_per_second": (last - first) / (ended - began),
        "cpu_ms_per_image": 1000 * (used - cpu) / (last - first),
        "memory_warm_mib": before,
        "memory_end_mib": after,
        "memory_highest_mib": max(one[3] for one in samples[warm:]),
        "growth_percent": 100 * (after / before - 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="how many (default: 5000)")
    parser.add_argument("--num_workers", type=int, nargs="+", default=[0, 2], help="one run for each (default: 0 2)")
    parser.add_argument("--model", default="", help="output_dir or model file of a run (default: the bundle's own)")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of the images, for the process of one run
    given = parser.parse_args(arguments)
    if given.folder is not None:
        found = measure(given.folder, given.folder.parent / "output", given.num_workers[0], given.model)
        sys.stdout.write("\n" + json.dumps({name: round(value, 2) for name, value in found.items()}) + "\n")
        return
    with tempfile.TemporaryDirectory(prefix="measure_inference_") as scratch:
        images = write_images(Path(scratch), given.images)
        for workers in given.num_workers:
            command = [sys.executable, "-m", "scripts.measure.inference", "--folder", str(images)]
            command += ["--num_workers", str(workers), "--model", given.model]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            sys.stdout.write(done.stdout.splitlines()[-1] + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
