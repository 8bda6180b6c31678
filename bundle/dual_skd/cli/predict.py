# SPDX-License-Identifier: Apache-2.0
"""``dual-skd predict IMAGE...``: probabilities of images, a line each."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dual_skd import options
from dual_skd.errors import InputError
from dual_skd.options.arguments import Parser, add_options, given

if TYPE_CHECKING:
    from dual_skd.serving.outcome import Prediction

OF_PREDICTION = ("calibrate", "alpha", "unexpected_input", "image_column", "allow_outside")


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``predict``."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, DICOM series, folders or tables of them")
    parser.add_argument(
        "--model", metavar="OUT", help="folder or model file of a run, or demo (default: the bundle's own)"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1 or auto (default: cpu)")
    parser.add_argument("--json", action="store_true", help="a JSON object per line")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a table in place of lines")
    add_options(parser, options.Prediction, OF_PREDICTION)
    parser.epilog = (
        "Maps of what an answer rests on and DICOM Structured Reports are written by `python -m monai.bundle run "
        "inference`, see docs/deployment.md."
    )


def main(args: argparse.Namespace) -> int:
    """Prints the answers; returns 1 if an image could not be used, else 0."""
    asked = options.read(options.Prediction, given(args, options.Prediction, OF_PREDICTION))
    from dual_skd.data import find_images
    from dual_skd.serving.outcome import Prediction, columns_of
    from dual_skd.serving.predictor import load_predictor, predict_iter

    how = {"model": args.model, "device": args.device}
    how |= {name: getattr(asked, name) for name in ("calibrate", "alpha", "unexpected_input")}
    predictor = load_predictor(**how)
    dims, frame = predictor.preprocessing.get("spatial_dims", 2), predictor.preprocessing.get("frame")
    runtime = predictor.runtime if args.verbose else ""

    failed = False
    table: list[Prediction] = []

    def say(found: Prediction) -> None:
        nonlocal failed
        failed |= bool(found.problem)
        if args.csv is not None:
            table.append(found)
            return
        sys.stdout.write((json.dumps(dataclasses.asdict(found)) if args.json else line_of(found, runtime)) + "\n")
        sys.stdout.flush()

    def images() -> Iterator[str]:
        reading = {"image_column": asked.image_column, "allow_outside": asked.allow_outside}
        for one in args.images:
            try:
                yield from find_images(Path(one).absolute(), dims, frame=frame, **reading)
            except InputError as error:  # the others are answered
                say(Prediction(one, problem=str(error)))

    for found in predict_iter(images(), on_bad_file="skip", **how):
        say(found)
    if args.csv is not None:
        classes, auxiliary = predictor.class_names, len(predictor.networks) > 1
        write_table(args.csv, table, columns_of(classes, auxiliary=auxiliary, sets=predictor.sets is not None))
    return int(failed)


def write_table(path: Path, found: Sequence[Prediction], columns: Sequence[str]) -> None:
    """Writes answers as ``run inference`` writes its predictions.csv, and prints the last words.

    Raises:
        InputError: the file can't be written.
    """
    from dual_skd.api.inference_result import InferenceResult
    from dual_skd.api.results import last_words
    from dual_skd.serving.outcome import row_of
    from dual_skd.utils.files import replace_file

    def write(draft: Path) -> None:
        with draft.open("w", newline="", encoding="utf-8") as file:
            rows = csv.DictWriter(file, columns, restval="")
            rows.writeheader()
            rows.writerows(map(row_of, found))

    replace_file(path, write)
    sys.stdout.write(f"{last_words(InferenceResult(path))}\n")


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
