# SPDX-License-Identifier: Apache-2.0
"""``dual-skd learning-curve DATA -o CURVE``: how accuracy grows with the number of labelled images, on your own data.

Two curves over the same test images: the selected pair with self-distillation (``--method``), and plain fine-tuning of
the student from the same weights (``single``). Small shares get more epochs, so that each has about as many steps as
the whole set, at most eight times its epochs. The band is the standard deviation over seeds, each of which draws other
training images.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dual_skd.cli.shared import add_option_files, write_lines
from dual_skd.errors import InputError
from dual_skd.evaluation.learning_curve import CONTROL, METRICS, Cell, Measured, by_share, closing_lines, write
from dual_skd.options import Training, words_of
from dual_skd.options.arguments import Parser, add_options, given
from dual_skd.options.methods import METHODS
from dual_skd.options.shared import REST, Copies, Reading
from dual_skd.options.training import Distillation
from dual_skd.runs.lock import held
from dual_skd.runs.workflow import TRAIN, Gathered
from dual_skd.serving.export.worker import last_error
from dual_skd.utils.files import expanded, make_folder, read_json, write_json
from dual_skd.utils.wording import counted

MAX_EPOCH_FACTOR = 8  # a share gets at most so many times the epochs of the whole set
DIVISION_SOURCE = "split_made_of.json"
BY_THE_RUN = ("dataset_dir", "output_dir", "epochs", "seed", "train_fraction")  # set for each run
OF_RUNS = [name for name in Training.model_fields if name not in (*BY_THE_RUN, "fresh", "resume_from")]
# with which the shared division is made; the second, runs need as well
OF_DIVISION = (*Reading.model_fields, *Copies.model_fields, "test_fraction", "frame", "spatial_dims")
OF_BOTH = (*Copies.model_fields, "spatial_dims", "val_fraction")
# skd_ramp is also of images without labels
OF_A_SECOND_NETWORK = {*Distillation.model_fields} - {"selection_student", "skd_ramp"}
NO_TEACHER = (
    "learning-curve takes no teacher: one that is worth having has learned from images that the runs hold back or "
    "leave out. Train with it once, and compare the two runs with dual-skd compare."
)


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``learning-curve``, and the options of training, which are the same for all runs."""
    parser.add_argument("data", metavar="DATA", help="any data set that training takes")
    parser.add_argument(
        "-o", "--output-dir", dest="curve", required=True, type=Path, metavar="DIR",
        help="folder of the runs, the table, the plot",
    )  # fmt: skip
    parser.add_argument(
        "--fractions", nargs="+", type=float, default=[0.05, 0.1, 0.25, 0.5, 1.0], metavar="X",
        help="shares of the labelled images, above 0 and up to 1 (default: 0.05 0.1 0.25 0.5 1)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs per share and method (default: 3)")
    parser.add_argument(
        "--epochs", type=int, default=12, metavar="N", help="of the whole set; small shares get more (default: 12)"
    )
    parser.add_argument(
        "--minutes", type=float, default=600, metavar="X", help="no run is started after them (default: 600)"
    )
    add_option_files(parser, TRAIN)
    add_options(parser, Training, OF_RUNS, everyday=True)


def main(args: argparse.Namespace) -> int:
    """Makes the runs that are missing, writes table and plot, and returns 1 if a run failed, else 0."""
    refuse_impossible(args)
    wanted = TRAIN.gather(given(args, Training, OF_RUNS) | {"dataset_dir": args.data}, args.preset, args.config)
    if wanted.options.teacher_checkpoint is not None:
        raise InputError(NO_TEACHER)
    if taken := [name for name in wanted.values if name not in (*OF_RUNS, "dataset_dir")]:
        raise InputError(f"learning-curve sets {' and '.join(taken)} itself; leave that out of {args.config[-1]}.")
    with held(args.curve, "learning-curve"):
        return make_curve(args, wanted, expanded(args.curve))


def make_curve(args: argparse.Namespace, wanted: Gathered, curve: Path) -> int:
    """Makes the division and the runs that are missing, and returns the exit code of :func:`main`."""
    divide_once(args.data, of_division(wanted.options), curve / "split.json")
    make_folder(curve / "runs")
    values = {CONTROL: of_the_control(wanted.values), wanted.options.method: wanted.values}  # or one
    runs = Runs(curve, args.epochs, {method: words_of_runs(values[method], args.preset) for method in values})
    cells = [
        Cell(method, fraction, seed)
        for seed in range(args.seeds)
        for fraction in dict.fromkeys(args.fractions)
        for method in values
    ]
    failed: dict[Cell, str] = {}
    stopped: Any = 0
    try:
        with _ended_by_sigterm():
            failed = runs.make(cells, args.minutes)
    except (KeyboardInterrupt, SystemExit) as end:
        stopped = end.code if isinstance(end, SystemExit) else 128 + signal.SIGINT
        sys.stdout.write("stopped\n")
    done = [cell for cell in cells if runs.finished(cell)]
    found = by_share(runs.measured(cell) for cell in done)
    if found:
        write(found, curve)
        write_lines(*closing_lines(found, curve))
    for cell, reason in failed.items():
        write_lines(f"Failed: {cell.name}: {reason} (all of it in {curve / 'runs' / cell.name}.log)", to=sys.stderr)
    if len(done) < len(cells):
        write_lines(f"{len(done)} of {counted(len(cells), 'run')} finished; the same command goes on.", to=sys.stderr)
    return stopped or int(bool(failed) or not found)


def refuse_impossible(args: argparse.Namespace) -> None:
    """Raises an InputError for arguments out of range, before anything is read."""
    if not all(0 < fraction <= 1 for fraction in args.fractions):
        raise InputError(f"Fractions are above 0 and at most 1, found {' '.join(map(str, args.fractions))}.")
    asked = METHODS.get(given(args, Training, ["method"]).get("method", ""))
    if asked is not None and asked.auxiliary == "teacher":
        raise InputError(NO_TEACHER)
    if not args.minutes >= 0:
        raise InputError(f"Expected minutes of at least 0, found {args.minutes}.")
    if args.seeds < 1 or args.epochs < 1:
        raise InputError(f"Expected a seed and an epoch or more, found --seeds {args.seeds} --epochs {args.epochs}.")


# --- options of training ----------------------------------------------------------------------------------------------


def of_division(options: Training) -> dict[str, Any]:
    """The options that the division is made with, without those at their default."""
    rest = {"unlabelled": REST} if options.unlabelled == REST else {}  # entries without a label
    return rest | {
        name: getattr(options, name) for name in OF_DIVISION if getattr(options, name) != getattr(Training(), name)
    }


def of_the_control(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of plain fine-tuning beside another method: all but those of a second network."""
    left = {name: value for name, value in values.items() if name not in OF_A_SECOND_NETWORK}
    if not left.get("unlabelled_strength"):
        left.pop("unlabelled_loss", None)  # on one view, a network alone learns a class
    return left


def words_of_runs(values: Mapping[str, Any], presets: Sequence[str]) -> list[str]:
    """The options of every run of a method as words: all that were given but those of the division."""
    used_up = {*OF_DIVISION, "dataset_dir", "val_fraction", "method"}
    left = {name: value for name, value in values.items() if name not in used_up}
    left |= {name: value for name, value in values.items() if name in OF_BOTH}
    presets = [word for name in presets for word in ("--preset", name)]
    return [*presets, *words_of(left, Training.model_fields, places=True)]


# --- the division -----------------------------------------------------------------------------------------------------


def divide_once(data: str, options: Mapping[str, Any], path: Path) -> None:
    """Writes the division into training and test images that all runs share.

    The options of the data (``patient_pattern``, ``label_column`` ...) are used here; the file has patients and labels.
    What it was made of stands beside it.

    Raises:
        InputError: the data can't be read, its images have several labels or no test split, or the file was made of
            other data or with other options.
    """
    from dual_skd.data import DEMO_NAMES, load_records, save_split

    where = data if data in DEMO_NAMES else str(Path(data).expanduser().resolve())
    made_of = json.loads(json.dumps({"data": where, "options": options}))
    if path.is_file():
        former = read_json(path.with_name(DIVISION_SOURCE))
        if former and former != made_of:
            words = shlex.join(words_of(former["options"], Training.model_fields, places=True))
            raise InputError(
                f"{path.parent} holds the division of {former['data']} with the data options {words or 'left out'}; "
                "give these, or choose another folder after -o."
            )
        return
    found = load_records(data, **options, val_fraction=0.0)  # of which each run takes a share for itself
    if found.multi_label:
        raise InputError(f"{data} has several labels per image; name the column of one: --label-column NAME.")
    if not found.test:
        raise InputError(
            f"{data} has no test images, on which all runs are measured; add a split of them, or give data without any "
            "split, of which a fifth is carved for it."
        )
    write_json(path.with_name(DIVISION_SOURCE), made_of, private=True)
    save_split(found, path)


# --- the runs ---------------------------------------------------------------------------------------------------------


def epochs_of(fraction: float, epochs: int) -> int:
    """Epochs that give a share about the steps of the whole set."""
    return round(epochs * min(1 / fraction, MAX_EPOCH_FACTOR))


class Runs:
    """The runs of a curve, of which only those that are missing are made.

    Args:
        curve: folder of the curve.
        epochs: of the whole set.
        options: words of further options of training, by method.
    """

    def __init__(self, curve: Path, epochs: int, options: Mapping[str, Sequence[str]]) -> None:
        self.curve, self.epochs, self.options = curve, epochs, options

    def place(self, cell: Cell, ending: str = "") -> Path:
        """``output_dir`` of a run, or a file beside it."""
        return self.curve / "runs" / f"{cell.name}{ending}"

    def options_of(self, cell: Cell) -> list[str]:
        """The words that make a run what it is, without places."""
        epochs = epochs_of(cell.fraction, self.epochs)
        own = ["--method", cell.method, "--epochs", epochs, "--train-fraction", cell.fraction, "--seed", cell.seed]
        return [*map(str, own), *self.options[cell.method]]

    def commands_of(self, cell: Cell) -> list[list[str]]:
        """The commands of a run: training, and evaluating."""
        program, out = [sys.executable, "-m", "dual_skd"], str(self.place(cell).absolute())
        split = str((self.curve / "split.json").absolute())
        return [
            [*program, "train", split, "-o", out, *self.options_of(cell)],
            [*program, "evaluate", out, "--report", "false"],
        ]

    def finished(self, cell: Cell) -> bool:
        """Whether a run has its test numbers, and was made with the options that are given now."""
        measured = read_json(self.place(cell) / "metrics.json").get("test")
        return bool(measured) and read_json(self.place(cell, ".json")).get("options") == self.options_of(cell)

    def make(self, cells: Sequence[Cell], minutes: float) -> dict[Cell, str]:
        """Makes the missing runs with a line for each, and returns why some failed."""
        began, failed = time.monotonic(), {}
        for number, cell in enumerate(cells, 1):
            if self.finished(cell):
                continue
            if time.monotonic() - began >= 60 * minutes:
                break
            start = time.monotonic()
            share = f"{100 * cell.fraction:.4g} % of the images"
            sys.stdout.write(f"Run {number} of {len(cells)}: {cell.method}, {share}, seed {cell.seed} ... ")
            sys.stdout.flush()
            if reason := self._make(cell):
                failed[cell] = reason
                write_lines(f"failed: {reason}")
                continue
            write_json(self.place(cell, ".json"), {"options": self.options_of(cell)})
            value = self.measured(cell).metrics["balanced_accuracy"]
            shown, minutes_taken = "–" if value is None else f"{value:.3f}", (time.monotonic() - start) / 60
            write_lines(f"balanced accuracy {shown}, {minutes_taken:.1f} minutes")
        return failed

    def _make(self, cell: Cell) -> str:
        """Trains and evaluates; returns why that failed, or ""."""
        log = self.place(cell, ".log")
        log.unlink(missing_ok=True)
        codes = (run_command(command, log) for command in self.commands_of(cell))
        code = next(filter(None, codes), 0)
        return (last_error(log) or f"exit code {code}") if code else ""

    def measured(self, cell: Cell) -> Measured:
        """The test metrics of a finished run."""
        used, student = (read_json(self.place(cell) / name) for name in ("datalist.json", "metrics.json"))
        student = student["test"]["student"]
        images = sum(len(used.get(section) or []) for section in ("training", "validation"))
        return Measured(cell, images, {name: student.get(name) for name in METRICS})


def run_command(command: Sequence[str], log: Path) -> int:
    """Runs a command with its output at the end of a file, and returns its exit code; a signal lets it save."""
    with open(log, "a", encoding="utf-8", opener=for_the_user_alone) as file:  # it names paths of the data
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)  # noqa: S603
        try:
            return process.wait()
        except BaseException as end:
            if not isinstance(end, KeyboardInterrupt):  # Ctrl-C reaches both
                process.terminate()
            process.wait()
            raise


def for_the_user_alone(path: str, flags: int) -> int:
    """Opens a file, as :func:`open` asks for it, that nobody else may read if it is new."""
    return os.open(path, flags, 0o600)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Within it SIGTERM raises SystemExit, which ends the run in progress too."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
