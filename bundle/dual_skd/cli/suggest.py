# SPDX-License-Identifier: Apache-2.0
"""``dual-skd suggest OUT --unlabelled DIR``: which images without labels are worth labelling next."""

from __future__ import annotations

import argparse

from dual_skd import options
from dual_skd.api.result_base import last_words
from dual_skd.api.suggestions import suggest
from dual_skd.cli.shared import write_lines
from dual_skd.options.arguments import Parser, add_options, given


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``suggest``."""
    parser.add_argument("run_dir", metavar="OUT", help="folder of a training run, whose two networks are asked")
    add_options(parser, options.Suggestion)
    parser.epilog = "Writes suggestions.csv, suggestions.html and worklist.txt into OUT/suggestions."


def main(args: argparse.Namespace) -> int:
    """Writes the suggestions, and returns 0."""
    write_lines(*last_words(suggest(args.run_dir, **given(args, options.Suggestion))).splitlines())
    return 0
