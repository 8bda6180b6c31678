# SPDX-License-Identifier: Apache-2.0
"""Measures how long a command takes to start: processor time of its whole process, the median of several.

    python -m scripts.measure.startup [--rounds 5] [--predict FILE --model OUT]

Prints a row of a table for the help of every command, and for the answer to one image, if there is one. All take turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from resource import RUSAGE_CHILDREN, getrusage

from dual_skd.cli.dispatch import COMMANDS


def processor_seconds(words: list[str]) -> float:
    """Processor time of ``python -m dual_skd`` with these words, which has to end well."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "dual_skd", *words], check=True, stdout=subprocess.DEVNULL)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes per command, 5 by default")
    parser.add_argument("--predict", metavar="FILE", help="an image to ask about, too")
    parser.add_argument("--model", default="demo", help="output_dir of the run that is asked, or demo (the default)")
    args = parser.parse_args(arguments)
    measured = [["-h"], *([name, "-h"] for name in COMMANDS)]
    measured += [["predict", args.predict, "--model", args.model]] if args.predict else []
    times = [[processor_seconds(words) for words in measured] for _ in range(args.rounds)]
    for words, seconds in zip(measured, zip(*times, strict=True), strict=True):
        sys.stdout.write(f"| `{' '.join(words)}` | {statistics.median(seconds):.2f} |\n")


if __name__ == "__main__":
    main()
