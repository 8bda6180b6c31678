# SPDX-License-Identifier: Apache-2.0
"""``python -m dual_skd export RUN_DIR``: a trained student for other runtimes, verified, measured and described."""

from __future__ import annotations

import argparse
from pathlib import Path

from dual_skd.deploy.formats import FORMATS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of ``export``."""
    parser.add_argument("run_dir", type=Path, help="output_dir of a training run")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: RUN_DIR/export")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument(
        "--data", metavar="DIR_OR_DATALIST", help="labelled images to verify on; default: the run's validation images"
    )
    parser.add_argument(
        "--label-column", action="extend", nargs="+", metavar="COLUMN",
        help="column of the label in a table given as --data, `label` by default; several for multi-label tables",
    )  # fmt: skip
    parser.add_argument("--class-map", metavar="MAP", help="names of labels in --data, as in training")
    parser.add_argument("--image-column", metavar="COLUMN", help="of a table given as --data")
    parser.add_argument("--images", type=int, default=2000, help="verify on so many images at most, 2000 by default")
    parser.add_argument("--threads", type=int, default=1, help="threads for the times, 1 by default")
    parser.add_argument("--seconds", type=float, default=3, help="for the times of a batch size, 3 by default")
    parser.add_argument(
        "--timeout", type=float, default=900, help="seconds that one conversion or measurement may take"
    )


def main(args: argparse.Namespace) -> int:
    """Exports; returns 0 if at least one artefact passed, else 1."""
    from dual_skd.deploy.export import export  # brings PyTorch and MONAI, of which help has no need

    columns = args.label_column or ["label"]
    report = export(
        args.run_dir, args.output, formats=args.formats, data=args.data,
        label_column=columns[0] if len(columns) == 1 else columns, class_map=args.class_map,
        image_column=args.image_column, images=args.images, threads=args.threads, seconds=args.seconds,
        timeout=args.timeout,
    )  # fmt: skip
    return 0 if report["fastest"] else 1
