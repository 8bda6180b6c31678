# SPDX-License-Identifier: Apache-2.0
"""``dual-skd predict FILE...``: probabilities of images, a line each."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dual_skd.prediction.outcome import Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``predict``."""
    parser.add_argument("images", nargs="+", metavar="FILE", help="images, DICOM series, or folders of them")
    parser.add_argument("--model", help="output_dir or model file of a run, or demo (default: the bundle's own)")
    parser.add_argument("--image-column", metavar="COLUMN", help="of a table: column of the images")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 or auto (default: cpu)")
    parser.add_argument(
        "--unexpected-input",
        choices=("refuse", "accept"),
        default="refuse",
        help="images of another kind than the model was trained on (default: refuse)",
    )
    parser.add_argument("--json", action="store_true", help="a JSON object per line")
    parser.add_argument("--verbose", action="store_true", help="say in each line what computed the answer")


def main(args: argparse.Namespace) -> int:
    """Prints the answers; returns 1 if an image could not be used, else 0."""
    from dual_skd.data import find_images
    from dual_skd.errors import InputError
    from dual_skd.prediction.outcome import Prediction
    from dual_skd.prediction.predictor import load_predictor, predict_iter

    how = {"model": args.model, "device": args.device, "unexpected_input": args.unexpected_input}
    predictor = load_predictor(**how)
    dims, frame = predictor.preprocessing.get("spatial_dims", 2), predictor.preprocessing.get("frame")
    runtime = predictor.runtime if args.verbose else ""

    failed = False

    def say(found: Prediction) -> None:
        nonlocal failed
        failed |= bool(found.problem)
        sys.stdout.write((json.dumps(dataclasses.asdict(found)) if args.json else line_of(found, runtime)) + "\n")
        sys.stdout.flush()

    def images() -> Iterator[str]:
        for given in args.images:
            try:
                yield from find_images(Path(given).absolute(), dims, frame=frame, image_column=args.image_column)
            except InputError as error:  # the others are answered
                say(Prediction(given, problem=str(error)))

    for found in predict_iter(images(), on_bad_file="skip", **how):
        say(found)
    return int(failed)


def line_of(found: Prediction, runtime: str = "") -> str:
    """One line for a reader: the answer, how sure it is, and every class; where it is given, also what computed."""
    if found.problem:
        path = Path(found.image)  # stands at the beginning of the line
        problem = found.problem.replace(str(path.absolute()), path.name).replace(found.image, path.name)
        return f"{found.image}: not used: {problem}"
    parts = [f"uncertainty {found.uncertainty:.3f}"]
    if found.disagreement is not None:
        parts.append(f"disagreement {found.disagreement:.3f}")
    if found.prediction_set is not None:
        parts.append(f"set {'|'.join(found.prediction_set)}")
    if runtime:
        parts.append(f"by {runtime}")
    classes = ", ".join(f"{name} {value:.3f}" for name, value in found.probabilities.items())
    return f"{found.image}: {found.label or 'none'} ({classes}; {', '.join(parts)})"
