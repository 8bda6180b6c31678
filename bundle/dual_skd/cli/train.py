# SPDX-License-Identifier: Apache-2.0
"""``dual-skd train DATA -o OUT``: trains by the bundle's train.json."""

from __future__ import annotations

import argparse

from dual_skd.options import Training
from dual_skd.options.arguments import Parser, add_options, given
from dual_skd.runs.workflow import TRAIN, Workflow


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``train``."""
    add_files(parser, TRAIN)
    add_options(parser, Training, everyday=True, short={"output_dir": "-o"}, places={"dataset_dir": "DATA"})


def add_files(parser: Parser, workflow: Workflow) -> None:
    """Declares what options may be taken from."""
    presets = ", ".join(workflow.presets())
    parser.add_argument(
        "--preset", action="append", default=[], metavar="NAME", help=f"options for a purpose, one of: {presets}"
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="your own options by name, in a JSON or YAML file"
    )


def main(args: argparse.Namespace) -> int:
    """Trains, and returns 0."""
    from dual_skd.api.functions import train

    train(preset=args.preset, config=args.config, **given(args, Training))
    return 0
