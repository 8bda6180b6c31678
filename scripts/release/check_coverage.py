# SPDX-License-Identifier: Apache-2.0
"""Checks whether the tests reach enough of the package.

    python -m pytest -n 2 --cov --cov-report=json:coverage.json
    python -m scripts.release.check_coverage coverage.json

Ends with 1 where less than 90 % of the package's lines, or of the branches of a module that decides what a model learns
and what is kept of it, were executed, and names them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

MIN_PERCENT = 90.0
CRITICAL = (
    "selection/*",
    "training/losses",
    "training/ema",
    "training/schedule",
    "training/start",
    "training/task",
    "training/trainer",
    "runs/best_model",
    "runs/checkpoint",
    "runs/model_file",
)


def share(done: int, all_of_it: int) -> float:
    """Percent; all of nothing is 100."""
    return 100.0 * done / all_of_it if all_of_it else 100.0


def report(content: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Lines to print, and what is below the limit, of coverage's JSON."""
    totals = content["totals"]
    of_package = share(totals["covered_lines"], totals["num_statements"])
    lines, low = [f"{of_package:5.1f} % of the lines of the package"], []
    if of_package < MIN_PERCENT:
        low.append(f"below {MIN_PERCENT:g} %: lines of the package")
    found = set()
    for path, one in sorted(content["files"].items()):
        name = path.replace("\\", "/").split("dual_skd/", 1)[-1].removesuffix(".py")
        pattern = next((each for each in CRITICAL if fnmatch(name, each)), None)
        if pattern is not None:
            found.add(pattern)
            branches = share(one["summary"]["covered_branches"], one["summary"]["num_branches"])
            lines.append(f"{branches:5.1f} % of the branches of {name}")
            if branches < MIN_PERCENT:
                low.append(f"below {MIN_PERCENT:g} %: branches of {name}")
    return lines, low + [f"{pattern}: no such module was measured" for pattern in CRITICAL if pattern not in found]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the shares; returns 1 where one is below the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what pytest wrote by --cov-report=json:FILE")
    content = json.loads(parser.parse_args(arguments).file.read_text(encoding="utf-8"))
    lines, low = report(content)
    print(*lines, *low, sep="\n")
    return int(bool(low))


if __name__ == "__main__":
    sys.exit(main())
