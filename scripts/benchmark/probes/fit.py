# SPDX-License-Identifier: Apache-2.0
"""Compares the ways of making images square (``fit``) on validation images.

    python -m scripts.benchmark.probes.fit lung_ct --work runs -- --epochs 30
    python -m scripts.benchmark.probes.fit chest_xray --work runs --cut 0.6 -- --epochs 24 --train_fraction 0.17 \\
        --val_fraction 0.5 --patient_pattern '(person[0-9]+_(?:virus|bacteria))'

Each fit is trained with each seed by plain fine-tuning at 96 px; what follows ``--`` are further options of training.
A finished run in WORK isn't trained again. ``--cut`` first copies the set, each picture cut to a shape of its own:
width by height is drawn between the number and its inverse, whatever the class. That makes a set that was published in
squares one of portraits and landscapes. Prints a Markdown table: means and standard deviations over the seeds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from scripts import TRAIN
from scripts.markdown import mean_and_deviation, table_head, table_row

FITS = ("stretch", "pad", "crop")
METRICS = ("balanced_accuracy", "macro_auc", "nll")


def cut_copies(source: Path, target: Path, shape: float, seed: int = 0) -> Path:
    """Copies the pictures of a folder as PNG, each cut at a random place to a random shape.

    Args:
        source: folder of pictures at any depth.
        target: where the copies go, in folders of the same names.
        shape: the narrowest width by height; its inverse is the widest. Drawn evenly on a logarithmic scale.
        seed: of shapes and places.
    """
    rng = np.random.default_rng(seed)
    for path in sorted(each for each in source.rglob("*") if each.suffix.lower() in (".png", ".jpg", ".jpeg")):
        with Image.open(path) as picture:
            ratio = np.exp(rng.uniform(np.log(shape), -np.log(shape)))
            width, height = round(picture.width * min(ratio, 1)), round(picture.height * min(1 / ratio, 1))
            left, top = rng.integers(picture.width - width + 1), rng.integers(picture.height - height + 1)
            copy = target / path.relative_to(source).with_suffix(".png")
            copy.parent.mkdir(parents=True, exist_ok=True)
            picture.crop((left, top, left + width, top + height)).save(copy)
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a data set")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--cut", type=float, help="cut the pictures to shapes from this to its inverse")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("options", nargs="*", help="options of training, after --")
    args = parser.parse_args(arguments)
    data = args.data
    if args.cut:
        data = args.work / f"{data.name}_cut"
        if not data.is_dir():
            cut_copies(args.data, data, args.cut)
    print(*table_head([data.name, *METRICS]), sep="\n")
    for fit in FITS:
        found = [run(data, args.work, fit, seed, args.options) for seed in range(args.seeds)]
        cells = [mean_and_deviation([metrics[name] for metrics in found]) for name in METRICS]
        print(table_row([fit, *cells]), flush=True)


def run(data: Path, work: Path, fit: str, seed: int, options: Sequence[str]) -> dict[str, float]:
    """Validation metrics of the student of one training."""
    out = work / f"{data.name}_{fit}_{seed}"
    metrics = out / "metrics.json"
    if not metrics.is_file() or "final" not in json.loads(metrics.read_text(encoding="utf-8")):
        settings = {"dataset_dir": data, "output_dir": out, "fit": fit, "seed": seed, "method": "single"}
        settings |= {"val_interval": "$@epochs", "twin_search": "never"}
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(TRAIN)]
        subprocess.run([*command, *words, *options], check=True, stdout=subprocess.DEVNULL)
    return json.loads(metrics.read_text(encoding="utf-8"))["final"]["student"]


if __name__ == "__main__":
    main()
