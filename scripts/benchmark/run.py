# SPDX-License-Identifier: Apache-2.0
"""Runs a table of methods x data sets x training fractions x seeds, and goes on where it stopped.

    python -m scripts.benchmark.run --data_root DATA --work runs --minutes 60 [--jobs 2] [--only REGEX] [--list]
    python -m scripts.benchmark.run --data_root DATA --work runs --tune        # learning rates first, by validation

The plan (scripts/benchmark/plan.json) names data sets, the files that they need beside them, rows (overrides of
train.json) and tiers: lists of cells, the decisive ones first, within a tier one seed of everything before the next
seed. A cell is an ordinary bundle run in a process of its own: training, then evaluating on the test images. Finished
cells have a line in RESULTS/benchmark.csv and their test probabilities in RESULTS/predictions, and are not run again;
failed ones are listed in WORK/failed.json and run again with --retry, and with --renew those whose settings have
changed since, in the plan or by --tune. Kill it at any time: the cells in progress are lost, nothing else. One such
program per RESULTS.
Tables and plots: scripts/benchmark/report.py.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from dual_skd.errors import InputError
from scripts.benchmark.cells import Benchmark
from scripts.benchmark.plan import PLAN, RESULTS, Cell, Plan, Rows, needed_by, planned_cells, read_plan
from scripts.benchmark.processes import CellFailed, Processes
from scripts.benchmark.store import id_of


def run_cells(
    cells: Iterable[Cell],
    benchmark: Benchmark,
    *,
    minutes: float,
    jobs: int,
) -> None:
    """Runs cells in order, several at a time, and starts none after the minutes are over.

    A cell waits for the one whose model it needs. A cell that fails is noted and the others go on.
    """
    pending, running, broken = list(cells), {}, set()
    deadline = time.monotonic() + 60 * minutes

    def ready(cell: Cell) -> bool:
        needed = needed_by(benchmark.plan, cell)
        return needed not in pending and needed not in running.values()

    with ThreadPoolExecutor(jobs) as pool, benchmark.execute:
        while True:
            while len(running) < jobs and time.monotonic() < deadline:
                cell = next(filter(ready, pending), None)
                if cell is None:
                    break
                pending.remove(cell)
                running[pool.submit(benchmark.run, cell)] = cell
                say(f"started {cell.id} ({len(pending)} to go)")
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(done)
                if not _recorded(cell, done, benchmark):
                    broken.add(cell.id)
    say(f"{len(pending)} cells are left, {len(broken)} failed" + (f": {', '.join(sorted(broken))}" if broken else ""))


def _recorded(cell: Cell, done: Future, benchmark: Benchmark) -> bool:
    try:
        benchmark.record(cell, done.result())
    except (CellFailed, InputError, OSError, KeyError) as error:
        reason = str(error) if isinstance(error, CellFailed | InputError) else f"{type(error).__name__}: {error}"
        benchmark.note_failure(cell, reason)
        say(f"failed {cell.id}: {reason}")
        return False
    benchmark.note_failure(cell, None)
    say(f"finished {cell.id}")
    return True


def grid_cells(plan: Plan, cells: Iterable[Cell], tuned: Rows) -> list[Cell]:
    """The grid search: every learning rate that a row hasn't been tried with on a data set, with its first seed.

    Raises:
        InputError: the plan has no grid.
    """
    if "tune" not in plan:
        raise InputError('The plan has no learning rates to compare; add "tune" as in scripts/benchmark/plan.json.')
    firsts: dict[tuple[str, float, str], Cell] = {}
    for cell in cells:
        firsts.setdefault((cell.data, cell.fraction, cell.row), cell)
    grid = [replace(cell, learning_rate=rate) for cell in firsts.values() for rate in plan["tune"]["learning_rate"]]
    tried = {(id_of(line), float(line["learning_rate"])) for line in tuned}
    return [cell for cell in grid if (replace(cell, learning_rate=None).id, cell.learning_rate) not in tried]


def say(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {text}", flush=True)


def main(arguments: Sequence[str] | None = None, execute: Processes | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data_root", nargs="+", type=Path, required=True, help="folders of the data sets and other files"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs themselves")
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--minutes", type=float, default=60, help="no cell is started after them")
    parser.add_argument("--jobs", type=int, default=2, help="cells at a time, one thread each")
    parser.add_argument("--only", default="", help="regular expression searched in data_fraction_row_seed")
    parser.add_argument("--list", action="store_true", help="show the cells and their state, run none")
    parser.add_argument("--retry", action="store_true", help="run failed cells again")
    parser.add_argument("--renew", action="store_true", help="run cells again that ran with other settings")
    parser.add_argument("--tune", action="store_true", help="choose learning rates by validation, no test images used")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both ways of ending it are one
    try:
        benchmark = Benchmark(read_plan(args.plan), args.data_root, args.results, args.work, execute or Processes())
        cells = planned_cells(benchmark.plan)
        wanted = {cell for cell in cells if re.search(args.only, cell.id)}
        wanted |= {needed_by(benchmark.plan, cell) for cell in wanted} - {None}
        cells = [cell for cell in cells if cell in wanted]
        finished, failed = benchmark.finished(), benchmark.failed
        outdated = benchmark.outdated()
        if outdated:
            names = ", ".join(sorted(outdated))
            say(f"ran with other settings than the plan has now, and again with --renew: {names}")
        if args.list:
            for cell in cells:
                state = "finished" if cell.id in finished else f"failed: {failed[cell.id]}" if cell.id in failed else ""
                print(f"{cell.id:45} {state}".rstrip())
            return
        if args.renew:
            finished -= outdated
        if args.tune:
            cells = grid_cells(benchmark.plan, cells, benchmark.tuned)
        skipped = finished if args.retry else finished | failed.keys()
        open_cells = [cell for cell in cells if cell.id not in skipped]
        for cell in open_cells:
            benchmark.places(cell)
        run_cells(open_cells, benchmark, minutes=args.minutes, jobs=args.jobs)
    except InputError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped; the cells in progress are lost, the finished ones are kept.")


if __name__ == "__main__":
    main()
