# SPDX-License-Identifier: Apache-2.0
"""The command ``dual-skd``: one module per command, see :data:`COMMANDS`."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from dual_skd.errors import did_you_mean, sentence_of
from dual_skd.utils.log import set_up

if TYPE_CHECKING:
    from dual_skd.options.arguments import Parser


class Command(NamedTuple):
    """A command: its module has ``add_arguments(parser)`` and ``main(args) -> int``."""

    module: str
    purpose: str
    examples: tuple[str, ...]


COMMANDS = {  # in the order of use
    "check": Command(
        "dual_skd.cli.check",
        "look through a data set before training: bad files, leaks",
        ("dual-skd check DATA --page check.html", "dual-skd check DATA --clean-list clean.csv"),
    ),
    "train": Command(
        "dual_skd.cli.train",
        "train a light classifier on your images",
        ("dual-skd train DATA -o output", "dual-skd train VOLUMES -o output3d --preset volume --epochs 40"),
    ),
    "evaluate": Command(
        "dual_skd.cli.evaluate",
        "measure a trained model on its test images, or on others",
        ("dual-skd evaluate output", "dual-skd evaluate output --dataset-dir OTHER_HOSPITAL"),
    ),
    "report": Command(
        "dual_skd.cli.report",
        "write the report of an evaluated run again, otherwise",
        ("dual-skd report output --no-images",),
    ),
    "compare": Command(
        "dual_skd.cli.compare",
        "compare two evaluated runs on the images that both have",
        ("dual-skd compare output output2",),
    ),
    "predict": Command(
        "dual_skd.cli.predict",
        "ask a trained model about images, a line each",
        ("dual-skd predict scan.dcm FOLDER --model output", "dual-skd predict FOLDER --model output --csv answers.csv"),
    ),
    "export": Command(
        "dual_skd.cli.export",
        "make the model a file for other programs, verified",
        ("dual-skd export output", "dual-skd export output --formats onnx openvino_fp16"),
    ),
    "learning-curve": Command(
        "dual_skd.cli.learning_curve",
        "see how accuracy grows with the number of labelled images",
        ("dual-skd learning-curve DATA -o curve",),
    ),
    "select": Command(
        "dual_skd.cli.select",
        "select small weights from large ones, without training",
        ("dual-skd select --large large.pth --small small.pth --out new.safetensors",),
    ),
    "audit": Command(
        "dual_skd.cli.audit",
        "see what a bundle's configs would run, before they are run",
        ("dual-skd audit BUNDLE",),
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; what the user can mend is one sentence on stderr."""
    _open_closed_streams()
    name, *words = (sys.argv[1:] if argv is None else argv) or ["-h"]
    try:
        code = _run(name, words)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _open_closed_streams() -> None:
    """Gives a process that was started without some of its streams (``>&-``) ones that lead nowhere."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def _run(name: str, words: list[str]) -> int:
    if name in ("-h", "--help"):
        sys.stdout.write(overview())
        return 0
    if name not in COMMANDS:
        sys.stderr.write(f"Error: Unknown command {name}{did_you_mean(name, COMMANDS)}; `dual-skd -h` lists them.\n")
        return 2
    try:
        args = parser_of(name).parse(words)
        set_up(verbose=args.verbose, quiet=args.quiet)
        return import_module(COMMANDS[name].module).main(args)
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped by Ctrl-C.\n")
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        sys.stderr.write(f"Error: {sentence}\n")
        return 1


def overview() -> str:
    """What ``dual-skd -h`` shows: an example of the whole way, and a line per command."""
    lines = ["  dual-skd train DATA -o output && dual-skd evaluate output", "", "Commands, in the order of use:"]
    lines += [f"  {name:15} {command.purpose}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "`dual-skd COMMAND -h` shows what a command takes.", ""])


def parser_of(name: str) -> Parser:
    """The parser of a command."""
    from dual_skd.options.arguments import Parser  # with pydantic, which the overview does without

    command = COMMANDS[name]
    parser = Parser(f"dual-skd {name}", command.purpose, command.examples)
    import_module(command.module).add_arguments(parser)  # which imports what it needs, and no other command's
    for option, meaning in (("--verbose", "say more"), ("--quiet", "say warnings and errors alone, and show no bars")):
        if not parser.knows(option):
            parser.add_argument(option, action="store_true", help=meaning)
    if not parser.knows("--help-all"):  # where -h shows all
        parser.add_argument("--help-all", action="help", help=argparse.SUPPRESS)
    return parser
