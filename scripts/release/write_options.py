# SPDX-License-Identifier: Apache-2.0
"""Writes what follows from the options: their blocks in the configs, docs/options.md, and docs/commands.md.

    python -m scripts.release.write_options [--check]

In each of the three configs the entries from "imports" to the one that reads the options are written. The graph below
stays as it is.
The sums of the configs are noted in dual_skd/options/known_configs.py, so run it after any change of a config.
``--check`` writes nothing and ends with 1 where a file differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import textwrap

from dual_skd import options
from dual_skd.cli.dispatch import COMMANDS, overview, parser_of
from dual_skd.options.kinds import Options
from dual_skd.options.table import table
from scripts import ROOT

KINDS = {"train.json": options.Training, "evaluate.json": options.Evaluation, "inference.json": options.Prediction}
METADATA = "metadata.json"  # not run
# the two entries that read the options: evaluate.json has its own, as it is laid over train.json too
ENTRIES = {"evaluation": ("evaluation_given", "evaluation")}
WIDTH = 120
PAGE = """# Options

`python -m scripts.release.write_options` writes this page from `dual_skd.options`, which defines every option once.

* On the command line of `dual-skd`, write `--image-size 128` or `--image_size 128`. A list is several words
  (`--image-size 48 48 24`). A switch is `--amp`, `--amp true` or `--amp false`.
* With `python -m monai.bundle run`, options are entries of the config: `--image_size "[48,48,24]"`, `--amp true`.
* In Python, options are keyword arguments: `dual_skd.train("DATA", image_size=[48, 48, 24], amp=True)`.
"""
COMMANDS_PAGE = """# Commands

`python -m scripts.release.write_options` writes this page. It shows what `dual-skd -h` and `dual-skd COMMAND -h` print.
The [user guide](user_guide.md#commands) explains lists, switches, presets and files of options.
[options.md](options.md) lists all options.
"""


def block(kind: type[Options], function: str) -> str:
    """The entries of a config for the options: a default each, and the two that read them all."""
    marks = options.marks(kind)
    defaults = {name: marks[name].config or field.default for name, field in kind.model_fields.items()}
    lines = [f"    {json.dumps(name)}: {json.dumps(value)}," for name, value in defaults.items()]
    entries = [f'"{name}": "@{marks[name].at or name}"' for name in defaults]
    text = ", ".join(entries).replace('": "', '":\0"')
    wrapped = textwrap.wrap(text, WIDTH - 8, break_long_words=False, break_on_hyphens=False)
    inner = "\n".join(f"        {line}" for line in wrapped).replace("\0", " ")
    given, read = ENTRIES.get(function, ("given", "options"))
    last = f'    "{read}": "$dual_skd.options.{function}(**@{given})",\n'
    return "\n".join([*lines, f'    "{given}": {{', inner, "    },", last])


def with_block(text: str, kind: type[Options], function: str) -> str:
    """A config whose entries after "imports", up to the one that reads the options, are those of :func:`block`."""
    lines = text.splitlines(keepends=True)
    first = next(place for place, line in enumerate(lines) if line.startswith('    "imports"')) + 1
    read = ENTRIES.get(function, ("given", "options"))[1]
    last = next(place for place, line in enumerate(lines) if line.startswith(f'    "{read}"')) + 1
    return "".join([*lines[:first], block(kind, function), *lines[last:]])


def page() -> str:
    """docs/options.md: a table per group of options."""
    parts = [PAGE]
    for title, kind in (
        ("train", options.Training),
        ("evaluate", options.Evaluation),
        ("inference", options.Prediction),
    ):
        parts.append(f"## {title.capitalize()}\n")
        parts += table(kind)
    return "\n".join(parts)


def commands() -> str:
    """docs/commands.md: what ``-h`` shows, of every command."""
    os.environ["COLUMNS"] = "80"  # for argparse
    parts = [COMMANDS_PAGE, f"```text\n{overview()}```\n"]
    for name in COMMANDS:
        parts += [f"## {name}\n", f"```text\n{parser_of(name).format_help()}```\n"]
    return "\n".join(parts)


def with_sums(text: str, configs: dict[str, str]) -> str:
    """known_configs.py with the sums of the configs, name -> text."""
    lines = [f'    "{name}": "{hashlib.sha256(one.encode()).hexdigest()}",\n' for name, one in sorted(configs.items())]
    return re.sub(r"(?<=\nKNOWN = \{).*?(?=\})", lambda _: "\n" + "".join(lines), text, flags=re.DOTALL)


def main(arguments: list[str] | None = None) -> int:
    """Writes the files, or compares them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where a file differs")
    args = parser.parse_args(arguments)
    wanted = {ROOT / "docs" / "options.md": page(), ROOT / "docs" / "commands.md": commands()}
    folder = ROOT / "bundle" / "configs"
    configs = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    for name, kind in KINDS.items():
        configs[name] = with_block(configs[name], kind, kind.__name__.lower())
        wanted[folder / name] = configs[name]
    sums = ROOT / "bundle" / "dual_skd" / "options" / "known_configs.py"
    wanted[sums] = with_sums(sums.read_text(encoding="utf-8"), {n: one for n, one in configs.items() if n != METADATA})
    different = [
        path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path in different:
        if args.check:
            print(f"{path.relative_to(ROOT)} isn't what the options say; run python -m scripts.release.write_options.")
        else:
            path.write_text(wanted[path], encoding="utf-8")
            print(f"{path.relative_to(ROOT)} written.")
    return 1 if args.check and different else 0


if __name__ == "__main__":
    sys.exit(main())
