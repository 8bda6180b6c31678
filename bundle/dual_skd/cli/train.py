# SPDX-License-Identifier: Apache-2.0
"""``dual-skd train DATA -o OUT``: trains by the bundle's train.json."""

from __future__ import annotations

import argparse

from dual_skd.cli.shared import add_option_files
from dual_skd.options import Training
from dual_skd.options.arguments import Parser, add_options, given
from dual_skd.runs.workflow import TRAIN


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``train``."""
    add_option_files(parser, TRAIN)
    add_options(parser, Training, everyday=True, short={"output_dir": "-o"}, places={"dataset_dir": "DATA"})


def main(args: argparse.Namespace) -> int:
    """Trains, and returns 0."""
    from dual_skd.api.functions import train

    train(preset=args.preset, config=args.config, **given(args, Training))
    return 0
