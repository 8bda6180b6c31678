# SPDX-License-Identifier: Apache-2.0
"""Tries faults on purpose and writes a table: tried, survived, lost.

    python -m scripts.measure.faults.run --work /tmp/faults [--only REGEX] [--list]

Data and networks are tiny, and generated. Every fault has a fresh folder below --work. A fault whose row is finished is
not tried again: give the command again after an interruption, or remove its file in WORK/rows. Survived means: the
command ended with the exit code and the sentence that the docs promise, or went on; after the same command again, the
folder holds what an undisturbed command leaves, bit by bit (tensors of weights, text of tables and JSON files) as far
as two undisturbed commands agree; no file is cut short, no draft is left, no process either. Some faults need root, for
mounts and other users; without it their rows say so. Prints the table in Markdown and writes WORK/faults.csv, with
notes; the exit code is 0 where nothing was lost.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from scripts.markdown import table_head, table_row

MODULES = ("kills", "places", "data", "computer", "resuming", "several")
COLUMNS = ("fault", "tried", "survived", "lost", "note")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the trials and of the table")
    parser.add_argument("--only", default="", metavar="REGEX", help="the faults whose name it finds")
    parser.add_argument("--list", action="store_true", help="say what would be tried, and what should happen")
    args = parser.parse_args(arguments)
    from scripts.measure.faults.bench import ROWS, Bench, Outcome, is_root
    from scripts.measure.faults.process import import_all

    for name in MODULES:
        import_module(f"scripts.measure.faults.{name}")
    chosen = [row for row in ROWS.values() if re.search(args.only, row.name)]
    if args.list:
        sys.stdout.writelines(f"{row.name}: {row.done}; {row.expected}\n" for row in chosen)
        return 0
    import_all()
    bench, folder = Bench(args.work), args.work / "rows"
    folder.mkdir(exist_ok=True)
    rows = []
    for row in chosen:
        record = folder / f"{re.sub(r'[^a-zA-Z0-9]+', '_', row.name)}.json"
        if not record.is_file():
            sys.stderr.write(f"{row.name} ...\n")
            refused = row.needs_root and not is_root()
            outcome = Outcome(not_tried="needs root") if refused else row.try_it(bench)
            record.write_text(json.dumps(asdict(outcome), indent=1))
            sys.stderr.writelines(f"    LOST {line}\n" for line in outcome.lost)
        outcome = Outcome(**json.loads(record.read_text()))
        notes = [f"not tried: {outcome.not_tried}"] if outcome.not_tried else outcome.lost + outcome.notes
        counts = (outcome.tried, outcome.tried - len(outcome.lost), len(outcome.lost))
        rows.append((f"{row.name}: {row.done}", *map(str, counts), "; ".join(notes)))
    total = [str(sum(int(row[place]) for row in rows)) for place in (1, 2, 3)]
    with (args.work / "faults.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    lines = [*table_head(COLUMNS[:4]), *(table_row(row[:4]) for row in rows), table_row(["all", *total])]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(total[2] != "0")


if __name__ == "__main__":
    sys.exit(main())
