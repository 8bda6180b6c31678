# SPDX-License-Identifier: Apache-2.0
"""``python -m dual_skd report RUN_DIR``: the report of an evaluated run as one HTML page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``report``."""
    parser.add_argument("run_dir", type=Path, help="output_dir of a run that was evaluated")
    parser.add_argument("--split", default="test", help="which evaluation: test, val, or the name given as report_as")
    parser.add_argument("--show-names", action="store_true", help="show names of files and the data's description")
    parser.add_argument("--no-images", action="store_true", help="leave out the pictures of single images")
    parser.add_argument("--no-speed", action="store_true", help="don't measure the time per image")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples, 2000 by default")


def main(args: argparse.Namespace) -> int:
    """Writes the report, prints where it is, and returns 0."""
    from dual_skd.evaluation.report.writer import write_report

    path = write_report(
        args.run_dir,
        args.split,
        show_names=args.show_names,
        images=not args.no_images,
        speed=not args.no_speed,
        resamples=args.resamples,
    )
    sys.stdout.write(f"{path}\n")
    return 0
