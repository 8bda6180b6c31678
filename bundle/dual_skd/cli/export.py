# SPDX-License-Identifier: Apache-2.0
"""``dual-skd export OUT``: a trained student for other runtimes, verified, measured and described."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dual_skd.cli.shared import write_lines
from dual_skd.options import read
from dual_skd.options.arguments import Parser, add_options, given
from dual_skd.options.shared import Reading
from dual_skd.serving.export.formats import BY_DEFAULT, FORMATS, read_by_page
from dual_skd.utils.wording import closing, quoted

OPTIONS_OF_DATA = {"label_column", "class_map", "image_column"}


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``export``."""
    parser.add_argument(
        "run_dir", type=Path, metavar="OUT", help="folder of a training run, or a model with --output and --data"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the files (default: OUT/export)")
    parser.add_argument(
        "--formats", nargs="+", choices=list(FORMATS), default=list(BY_DEFAULT), metavar="NAME",
        help=f"{', '.join(FORMATS)} (default: all but html, which fetches libraries from npm's registry)",
    )  # fmt: skip
    parser.add_argument(
        "--data", metavar="DATA", help="labelled images to verify on (default: the run's validation images)"
    )
    parser.add_argument(
        "--images", type=int, default=2000, metavar="N", help="verify on so many of them at most (default: 2000)"
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads for the times (default: 1)")
    parser.add_argument(
        "--seconds", type=float, default=3, metavar="X", help="for the times of a batch size (default: 3)"
    )
    parser.add_argument(
        "--timeout", type=float, default=900, metavar="X",
        help="seconds that one conversion or measurement may take (default: 900)",
    )  # fmt: skip
    add_options(parser, Reading, OPTIONS_OF_DATA)


def main(args: argparse.Namespace) -> int:
    """Exports; returns 0 if at least one artefact passed, else 1."""
    from dual_skd.serving.export.export import export  # brings PyTorch and MONAI, which help doesn't need

    reading = read(Reading, given(args, Reading, OPTIONS_OF_DATA)).model_dump(include=OPTIONS_OF_DATA)
    report = export(
        args.run_dir, args.output, formats=args.formats, data=args.data, images=args.images, threads=args.threads,
        seconds=args.seconds, timeout=args.timeout, **reading,
    )  # fmt: skip
    write_lines(*last_words(report, args.run_dir, args.output or args.run_dir / "export").splitlines())
    return 0 if report["fastest"] else 1


def last_words(report: Mapping[str, Any], run_dir: Path, output: Path) -> str:
    """Which formats passed and how fast each answers, where they are, and the next command."""
    large = next((row["ms"].get("1") for row in report["baselines"] if row["name"].startswith("large")), None)
    verified = report["verified_on"]
    rows: list[tuple[str, str | Path]] = [("verified", f"on {verified['images']} images, {verified['data']}")]
    for row in report["artefacts"]:
        one = row.get("ms", {}).get("1")
        facts = [
            row["status"] + (f" ({row['reason']})" if row.get("reason") else "") + read_by_page(row),
            f"first {row['float_layers']:.0%} of the layers in float" if row.get("float_layers") else "",
            f"{one:.2f} ms an image" if one else "",
            f"{large / one:.1f} times as fast as the large network"
            if one and large and "files_read" not in row
            else "",
            f"{row['bytes'] / 1e6:.2f} MB" if row.get("bytes") else "",
        ]
        rows.append((row["format"], ", ".join(filter(None, facts))))
    rows += [("fastest", report["fastest"] or "none passed"), ("table", output / "export.md")]
    done = "Exported" if report["fastest"] else "Nothing that passed"
    return closing(f"{done}: {output}", rows, f"dual-skd predict IMAGES --model {quoted(run_dir)}")
