# SPDX-License-Identifier: Apache-2.0
"""``dual-skd report OUT``: the report of an evaluated run as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from dual_skd.cli.shared import add_split, write_lines
from dual_skd.options import Reporting, read
from dual_skd.options.arguments import Parser, add_options, given
from dual_skd.utils.wording import closing, metric_rows, quoted


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``report``."""
    parser.add_argument("run_dir", type=Path, metavar="OUT", help="folder of an evaluated run")
    add_split(parser)
    parser.add_argument("--show-names", action="store_true", help="show names of files and the data's description")
    parser.add_argument("--no-images", action="store_true", help="leave out the pictures of single images")
    parser.add_argument("--no-speed", action="store_true", help="don't measure the time per image")
    parser.add_argument("--resamples", type=int, default=2000, metavar="N", help="bootstrap resamples (default: 2000)")
    add_options(parser, Reporting)


def main(args: argparse.Namespace) -> int:
    """Writes the report, prints where it is with the main numbers, and returns 0."""
    from dual_skd.api.results import MAIN_METRICS
    from dual_skd.evaluation.analysis.recalibration import in_words as recalibration_in_words
    from dual_skd.evaluation.report.writer import write_report
    from dual_skd.evaluation.run_files import unfinished
    from dual_skd.options import training_command
    from dual_skd.utils.files import expanded, read_json

    options = read(Reporting, given(args, Reporting))
    path = write_report(
        args.run_dir,
        args.split,
        show_names=args.show_names,
        images=not args.no_images,
        speed=not args.no_speed,
        resamples=args.resamples,
        **given(args, Reporting),
    )
    folder, key = expanded(args.run_dir), path.parent.name if options.per == "patient" else ""
    run, entry = read_json(folder / "run.json"), read_json(folder / "metrics.json")[args.split]
    analysis = entry[key]["analysis"] if key else entry["analysis"]
    overall, level = analysis["metrics"]["overall"], analysis["settings"]["level"]
    warning = unfinished(run, "the command below")
    rows: list[tuple[str, str | Path]] = [("warning", warning), ("images", str(analysis["images"]))]
    if key:
        rows.insert(1, ("patients", str(analysis["rows"])))
    home = analysis["home"] or {"metrics": {}, "reason": ""}
    rows += metric_rows(overall, MAIN_METRICS, (home["metrics"], home["reason"]), level)
    rows += [("recalibrated", recalibration_in_words(analysis["recalibration"]))]
    rows += [("model card", path.with_name("model_card.md")), ("plots", path.with_name("plots"))]
    following = f"dual-skd predict IMAGES --model {quoted(args.run_dir)}"
    if warning:
        following = training_command(run.get("config") or {}, args.run_dir)
    elif not (folder / "models" / "model.pt").is_file():
        following = ""
    write_lines(*closing(f"Report: {path}", rows, following).splitlines())
    return 0
