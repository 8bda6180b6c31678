# SPDX-License-Identifier: Apache-2.0
"""``dual-skd select`` with a budget: proposes small networks, and writes the options that train the first of them.

dual-skd select --large tf_efficientnet_lite2 --params 1e6 --data DATA --out students

Of several large networks it ranks the proposals of all, so that the images say which is worth selecting from.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dual_skd.cli.shared import write_lines
from dual_skd.errors import InputError
from dual_skd.options import Training, command
from dual_skd.options.arguments import Parser, add_options, given
from dual_skd.options.shared import Copies, Reading
from dual_skd.options.training import Division, Images
from dual_skd.utils.wording import closing, quoted

BUDGETS = {"params": "parameters", "macs": "macs", "ms": "milliseconds"}
MEANING = {
    "--params": "parameters",
    "--macs": "multiply-accumulates per image",
    "--ms": "ms per image on one CPU thread",
}
FOLDER = "students"
NOTES = (
    "ms: median for one image on one CPU thread, more while the computer is busy.",
    "order: the widest first; with --data, the best on your images.",
    "probe: macro AUC of ridge regression on the features before training, by cross-",
    "validation over patients of the training images. Small differences are chance.",
)
LARGE = ("large_options", "pretrained")
DATA = tuple(name for kind in (Reading, Images, Copies, Division) for name in kind.model_fields)
SELECTION = {"elements": "selection_student", "layers": "selection_layers", "mode": "selection_mode", "seed": "seed"}
OF_FILES = (  # arguments of select that say nothing about a budget
    "small", "small_options", "report", "family", "large_heads", "small_heads", "large_grid", "small_grid",
    "selected_only",
)  # fmt: skip


def add_arguments(parser: Parser) -> None:
    """Declares the budgets, and the options of training that say which network and which images."""
    for option, what in MEANING.items():
        parser.add_argument(
            option, type=_number, nargs="+", metavar="X",
            help=f"in place of --small: propose networks of at most so many {what}; several budgets at once too",
        )  # fmt: skip
    parser.add_argument("--data", metavar="DATA", help="rank the proposals on training images of these data")
    add_options(parser, Training, LARGE)
    add_options(parser, Training, DATA, everyday=True)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} isn't a number; write a million as 1e6") from None


def asked(args: argparse.Namespace) -> bool:
    """Whether a budget was given.

    Raises:
        InputError: two budgets, or arguments that don't go with a budget or need one.
    """
    found = [name for name in BUDGETS if getattr(args, name) is not None]
    others = [*found[1:], *(name for name in OF_FILES if getattr(args, name))]
    needing = [name for name in ("data", *DATA) if getattr(args, name) is not None]
    if found and others:
        raise InputError(f"--{found[0]} doesn't go with --{others[0].replace('_', '-')}; leave out one of the two.")
    if needing and not found:
        raise InputError(
            f"--{needing[0].replace('_', '-')} is of proposals for a budget; give one of --params, --macs and --ms."
        )
    return bool(found)


def main(args: argparse.Namespace, layers: Any) -> int:
    """Proposes small networks, shows and writes them, and returns the exit status.

    Args:
        args: of ``select``.
        layers: the layer rule, read already.
    """
    from dual_skd.evaluation.students import propose_students, table, write_students
    from dual_skd.utils.files import write_json

    name = next(name for name in BUDGETS if getattr(args, name) is not None)
    kind, folder = BUDGETS[name], Path(args.out or FOLDER)
    if len(args.large) > 1 and args.data is None:
        raise InputError("Several large networks are ranked by your images; give them as --data, or one network.")
    common = given(args, Training, (*LARGE, *DATA)) | _selection(args, layers)
    found = []
    for parent in args.large:
        values = common | parent_named(parent)
        proposed = propose_students(dataset_dir=args.data, **{kind: getattr(args, name)}, **values)
        found += [(student, values) for student in proposed]
    found.sort(key=lambda pair: -((pair[0].probe and pair[0].probe.value) or 0.0))
    students, values = [student for student, _ in found], found[0][1]
    write_students(students, kind, folder)
    values |= {"small": students[0].name, "small_options": students[0].options}
    write_json(folder / "options.json", values)
    notes = NOTES[:1] + NOTES[2:] if args.data else NOTES[:2]
    write_lines(*table(students), "", *notes, "")
    rows = [
        ("all", folder / "students.csv"),
        ("plot", folder / "students.svg" if args.data else ""),
        ("number 1", folder / "options.json"),
        ("", f"for dual-skd train DATA --config {quoted(folder / 'options.json')}"),
    ]
    start = f"dual-skd train {quoted(args.data) if args.data else 'DATA'} -o small"
    lines = closing(f"Proposed: {folder}", rows, command(start, values, Training, places=True))
    write_lines(*lines.splitlines())
    return 0


def parent_named(word: str) -> dict[str, str]:
    """The options of a large network from its name, or from ``NAME=FILE`` with its weights.

    Raises:
        InputError: it is a file of weights without a name.
    """
    from dual_skd.networks.weight_files import ENDINGS

    name, _, weights = word.partition("=")
    if not weights and Path(name).suffix in ENDINGS:
        raise InputError(f"A budget needs a network by name: --large {quoted(f'NAME={word}')}.")
    return {"large": name} | ({"pretrained": weights} if weights else {})


def _selection(args: argparse.Namespace, layers: Any) -> dict[str, Any]:
    """The arguments of ``select`` that training has too, under its names and without those at their default."""
    usual = {name: getattr(Training(), name) for name in SELECTION.values()} | {"selection_student": "uniform"}
    chosen = {option: getattr(args, name) for name, option in SELECTION.items()} | {"selection_layers": layers}
    return {option: value for option, value in chosen.items() if value != usual[option]}
