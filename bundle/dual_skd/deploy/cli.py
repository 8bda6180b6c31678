# SPDX-License-Identifier: Apache-2.0
"""``dual-skd export OUT``: a trained student for other runtimes, verified, measured and described."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dual_skd.deploy.formats import FORMATS
from dual_skd.options import read
from dual_skd.options.arguments import Parser, add_options, given
from dual_skd.options.shared import Reading
from dual_skd.wording import closing, quoted

OF_DATA = {"label_column", "class_map", "image_column"}  # of those with which data are read


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``export``."""
    parser.add_argument("run_dir", type=Path, metavar="OUT", help="output_dir of a training run")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: OUT/export")
    parser.add_argument(
        "--formats", nargs="+", choices=list(FORMATS), default=list(FORMATS), metavar="FORMAT", help=", ".join(FORMATS)
    )
    parser.add_argument(
        "--data", metavar="DIR_OR_DATALIST", help="labelled images to verify on; default: the run's validation images"
    )
    parser.add_argument("--images", type=int, default=2000, help="verify on so many images at most, 2000 by default")
    parser.add_argument("--threads", type=int, default=1, help="threads for the times, 1 by default")
    parser.add_argument("--seconds", type=float, default=3, help="for the times of a batch size, 3 by default")
    parser.add_argument(
        "--timeout", type=float, default=900, help="seconds that one conversion or measurement may take"
    )
    add_options(parser, Reading, OF_DATA)


def main(args: argparse.Namespace) -> int:
    """Exports; returns 0 if at least one artefact passed, else 1."""
    from dual_skd.deploy.export import export  # brings PyTorch and MONAI, of which help has no need

    reading = read(Reading, given(args, Reading, OF_DATA)).model_dump(include=OF_DATA)
    report = export(
        args.run_dir, args.output, formats=args.formats, data=args.data, images=args.images, threads=args.threads,
        seconds=args.seconds, timeout=args.timeout, **reading,
    )  # fmt: skip
    sys.stdout.write(last_words(report, args.run_dir, args.output or args.run_dir / "export") + "\n")
    return 0 if report["fastest"] else 1


def last_words(report: Mapping[str, Any], run_dir: Path, output: Path) -> str:
    """Which formats passed and how fast each answers, where they are, and the next command."""
    large = next((row["ms"].get("1") for row in report["baselines"] if row["name"].startswith("large")), None)
    verified = report["verified_on"]
    rows: list[tuple[str, str | Path]] = [("verified", f"on {verified['images']} images, {verified['data']}")]
    for row in report["artefacts"]:
        one = row.get("ms", {}).get("1")
        facts = [
            row["status"] + (f" ({row['reason']})" if row.get("reason") else ""),
            f"{one:.2f} ms an image" if one else "",
            f"{large / one:.1f} times as fast as the large network" if one and large else "",
            f"{row['bytes'] / 1e6:.2f} MB" if row.get("bytes") else "",
        ]
        rows.append((row["format"], ", ".join(filter(None, facts))))
    rows += [("fastest", report["fastest"] or "none passed"), ("table", output / "export.md")]
    done = "Exported" if report["fastest"] else "Nothing that passed"
    return closing(f"{done}: {output}", rows, f"dual-skd predict IMAGES --model {quoted(run_dir)}")
