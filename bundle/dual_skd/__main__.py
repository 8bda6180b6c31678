# SPDX-License-Identifier: Apache-2.0
"""``python -m dual_skd check ...``, and so on: one module per command, see :data:`COMMANDS`."""

from __future__ import annotations

import argparse
import logging
import sys
from importlib import import_module

from dual_skd.errors import InputError

COMMANDS = {
    "check": (
        "dual_skd.data.checking.cli",
        "look through a data set before any training: bad files, leaks, labels",
    ),
    "select": ("dual_skd.selection.cli", "large weights in, small weights and a per-layer table out"),
    "audit": ("dual_skd.security.cli", "what the configs of a bundle would run, before they are run"),
    "predict": ("dual_skd.prediction.cli", "probabilities of images by a trained model, a line each"),
    "export": ("dual_skd.deploy.cli", "a trained student for other runtimes, verified and measured"),
    "report": ("dual_skd.evaluation.report.cli", "an evaluated run as one HTML page, with plots and a model card"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; what the user can mend is one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m dual_skd", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    argv = [_with_dashes(word) for word in (sys.argv[1:] if argv is None else argv)]
    for name, (module, purpose) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        if name in argv[:1]:  # each command imports what it needs, and no other
            import_module(module).add_arguments(command)
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("dual_skd").setLevel(logging.INFO)  # other libraries only where they warn
    try:
        return import_module(COMMANDS[args.command][0]).main(args)
    except InputError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1


def _with_dashes(word: str) -> str:
    """An option as the parsers know it, also where it is written as in the configs: ``--label_column``."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else word


if __name__ == "__main__":
    sys.exit(main())
