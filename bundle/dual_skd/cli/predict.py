# SPDX-License-Identifier: Apache-2.0
"""``dual-skd predict IMAGE...``: probabilities of images, a line each."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from dual_skd import options
from dual_skd.api.inference_result import InferenceResult
from dual_skd.api.result_base import last_words
from dual_skd.cli.shared import require_other_file, write_lines
from dual_skd.errors import InputError, visible
from dual_skd.options.arguments import Parser, add_options, given

if TYPE_CHECKING:
    from dual_skd.serving.prediction import Prediction

OPTIONS = ("calibrate", "alpha", "unexpected_input", "image_column", "allow_outside")


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``predict``."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, DICOM series, folders or tables of them")
    parser.add_argument(
        "--model", metavar="OUT", help="folder or model file of a run, or demo (default: the bundle's own)"
    )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1 or auto (default: cpu)")
    parser.add_argument("--json", action="store_true", help="a JSON object per line")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a table in place of lines")
    add_options(parser, options.Prediction, OPTIONS)
    parser.epilog = (
        "Maps of what an answer rests on and DICOM Structured Reports are written by `python -m monai.bundle run "
        "inference`, see docs/deployment.md."
    )


def main(args: argparse.Namespace) -> int:
    """Prints the predictions; returns 1 if an image could not be used, else 0."""
    asked = options.read(options.Prediction, given(args, options.Prediction, OPTIONS))
    from dual_skd.data.reading.locators import path_of
    from dual_skd.serving.prediction import Prediction, PredictionTable
    from dual_skd.serving.predictor import load_predictor, predict_iter

    loading = {"model": args.model, "device": args.device}
    loading |= {name: getattr(asked, name) for name in ("calibrate", "alpha", "unexpected_input")}
    reading = {"image_column": asked.image_column, "allow_outside": asked.allow_outside}
    predictor = load_predictor(**loading)
    if args.csv is not None:
        require_other_file(args.csv, [predictor.path], "model")
    table = None if args.csv is None else PredictionTable(args.csv, predictor.rules.columns())
    runtime = predictor.runtime if args.verbose else ""
    not_found: list[Prediction] = []

    def images() -> Iterator[str]:
        for path in args.images:
            try:
                found = predictor.images_in(Path(path).absolute(), **reading)
            except InputError as error:  # the others are predicted
                not_found.append(Prediction(path, problem=str(error)))
                continue
            if args.csv is not None:
                require_other_file(args.csv, [path, *map(path_of, found)], "images")
            yield from found

    failed = False
    for found in chain(predict_iter(images(), on_bad_file="skip", **loading), not_found):
        failed |= bool(found.problem)
        if table is not None:
            table.append([found])
        else:
            write_lines(json_of(found) if args.json else line_of(found, runtime))
    if table is not None:
        table.publish()
        write_lines(*last_words(InferenceResult(args.csv)).splitlines())
    return int(failed)


def json_of(found: Prediction) -> str:
    """The prediction as JSON on one line, in letters that every terminal shows."""
    return json.dumps(dataclasses.asdict(found)).replace("\x7f", "\\u007f")  # the one that json leaves as it is


def line_of(found: Prediction, runtime: str = "") -> str:
    """One line for a reader: the predicted class, how sure it is, and every class; and the runtime if it is given."""
    if found.problem:
        path = Path(found.image)  # stands at the beginning of the line
        name = visible(path.name)
        problem = found.problem.replace(visible(path.absolute()), name).replace(visible(found.image), name)
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
