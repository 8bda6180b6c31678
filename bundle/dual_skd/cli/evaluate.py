# SPDX-License-Identifier: Apache-2.0
"""``dual-skd evaluate OUT``: measures a run's model by the bundle's evaluate.json."""

from __future__ import annotations

import argparse

from dual_skd.cli.shared import add_option_files
from dual_skd.options import Evaluation
from dual_skd.options.arguments import Parser, add_options, given
from dual_skd.runs.workflow import EVALUATE


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``evaluate``."""
    add_option_files(parser, EVALUATE)
    add_options(parser, Evaluation, everyday=True, places={"output_dir": "OUT"})


def main(args: argparse.Namespace) -> int:
    """Evaluates, and returns 0."""
    from dual_skd.api.functions import evaluate

    evaluate(preset=args.preset, config=args.config, **given(args, Evaluation))
    return 0
