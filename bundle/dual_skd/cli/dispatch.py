# SPDX-License-Identifier: Apache-2.0
"""The command ``dual-skd``: one module per command, see :data:`COMMANDS`."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from dual_skd.errors import STOPPED, STOPPED_CODE, did_you_mean, sentence_of, stopped_by_user, visible
from dual_skd.utils.log import set_up

if TYPE_CHECKING:
    from dual_skd.options.arguments import Parser


class Command(NamedTuple):
    """A command; its module, of the same name, has ``add_arguments(parser)`` and ``main(args) -> int``."""

    purpose: str
    examples: tuple[str, ...]


COMMANDS = {  # in the order of use
    "check": Command(
        "look through a data set before training: bad files, leaks",
        ("dual-skd check DATA --page check.html", "dual-skd check DATA --clean-list clean.csv"),
    ),
    "train": Command(
        "train a light classifier on your images",
        ("dual-skd train DATA -o output", "dual-skd train VOLUMES -o output3d --preset volume --epochs 40"),
    ),
    "evaluate": Command(
        "measure a trained model on its test images, or on others",
        ("dual-skd evaluate output", "dual-skd evaluate output --dataset-dir OTHER_HOSPITAL"),
    ),
    "report": Command("write the report of an evaluated run again, otherwise", ("dual-skd report output --no-images",)),
    "compare": Command("compare two evaluated runs on the images that both have", ("dual-skd compare output output2",)),
    "predict": Command(
        "ask a trained model about images, a line each",
        ("dual-skd predict scan.dcm FOLDER --model output", "dual-skd predict FOLDER --model output --csv answers.csv"),
    ),
    "export": Command(
        "make the model a file for other programs, verified",
        ("dual-skd export output", "dual-skd export output --formats onnx openvino_fp16"),
    ),
    "learning-curve": Command(
        "see how accuracy grows with the number of labelled images", ("dual-skd learning-curve DATA -o curve",)
    ),
    "suggest": Command(
        "order images without labels by what labelling them would teach",
        (
            "dual-skd suggest output --unlabelled FOLDER",
            "dual-skd suggest output --unlabelled FOLDER --number 20 --per patient",
        ),
    ),
    "select": Command(
        "select small weights from large ones, or shapes for a budget",
        (
            "dual-skd select --large large.pth --small small.pth --out new.safetensors",
            "dual-skd select --large tf_efficientnet_lite2 --params 1e6 --data DATA",
        ),
    ),
    "audit": Command("see what a bundle's configs would run, before they are run", ("dual-skd audit BUNDLE",)),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; an error that the user can mend is one sentence on stderr."""
    _open_closed_streams()
    name, *words = (sys.argv[1:] if argv is None else argv) or ["-h"]
    try:
        code = _run(name, words)
        sys.stdout.flush()
    except BrokenPipeError:  # as of `| head`
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
        near = did_you_mean(name, COMMANDS)
        sys.stderr.write(f"Error: Unknown command {visible(name)}{near}; `dual-skd -h` lists them.\n")
        return 2
    try:
        args = parser_of(name).parse(words)
        set_up(verbose=args.verbose, quiet=args.quiet)
        return module_of(name).main(args)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if stopped_by_user(error):
            sys.stderr.write(STOPPED)
            return STOPPED_CODE
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


def module_of(name: str) -> Any:
    """The module of a command."""
    return import_module(f"dual_skd.cli.{name.replace('-', '_')}")


def parser_of(name: str) -> Parser:
    """The parser of a command."""
    from dual_skd.options.arguments import Parser  # with pydantic, which the overview does without

    command = COMMANDS[name]
    parser = Parser(f"dual-skd {name}", command.purpose, command.examples)
    module_of(name).add_arguments(parser)  # imports what it needs, and no other command's
    for option, meaning in (("--verbose", "say more"), ("--quiet", "say warnings and errors alone, and show no bars")):
        if not parser.knows(option):
            parser.add_argument(option, action="store_true", help=meaning)
    if not parser.knows("--help-all"):  # where -h shows all
        parser.add_argument("--help-all", action="help", help=argparse.SUPPRESS)
    return parser
