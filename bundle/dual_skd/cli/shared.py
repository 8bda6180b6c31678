# SPDX-License-Identifier: Apache-2.0
"""What several commands share: arguments, and how lines reach the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from dual_skd.errors import InputError, visible
from dual_skd.runs.workflow import Workflow


def add_option_files(parser: argparse.ArgumentParser, workflow: Workflow) -> None:
    """Declares ``--preset`` and ``--config``, files that options are read from."""
    presets = ", ".join(workflow.presets())
    parser.add_argument(
        "--preset", action="append", default=[], metavar="NAME", help=f"options for a purpose, one of: {presets}"
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="your own options by name, in a JSON or YAML file"
    )


def add_split(parser: argparse.ArgumentParser) -> None:
    """Declares ``--split``, the name of an evaluation."""
    parser.add_argument(
        "--split", default="test", metavar="NAME",
        help="which evaluation: test, val, or the name given as report_as (default: test)",
    )  # fmt: skip


def add_findings_file(parser: argparse.ArgumentParser) -> None:
    """Declares ``--json FILE`` of a command that looks for problems."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was found to FILE")


def require_other_file(written: Path, taken: Iterable[str | Path], whose: str) -> None:
    """Raises an ``InputError`` for a file to write that is one of those that are read, which belong to ``whose``."""
    if written.resolve() in {Path(one).resolve() for one in taken} and not written.is_dir():
        raise InputError(f"{written} belongs to the {whose}, and would be written over; give another file.")


def write_lines(*lines: str, to: TextIO | None = None) -> None:
    """Writes lines to the terminal, at once and each as one line, whatever names are in it.

    Args:
        lines: without ends of lines.
        to: stdout unless given.
    """
    stream = to or sys.stdout
    stream.write("".join(f"{visible(line)}\n" for line in lines))
    stream.flush()
