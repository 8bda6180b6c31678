# SPDX-License-Identifier: Apache-2.0
"""``dual-skd compare OUT OTHER``: two evaluated runs on the images that both have, with paired tests."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dual_skd.cli.shared import add_split, write_lines
from dual_skd.errors import InputError
from dual_skd.options import PerPatient, read, words_of
from dual_skd.options.arguments import Parser, add_options, given
from dual_skd.utils.wording import WIDTH, closing, quoted

if TYPE_CHECKING:
    from dual_skd.evaluation.run_files import RunFiles


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``compare``."""
    parser.add_argument("output_dir", type=Path, metavar="OUT", help="folder of an evaluated run")
    parser.add_argument("other", type=Path, metavar="OTHER", help="folder of another one; differences are OUT - OTHER")
    add_split(parser)
    add_options(parser, PerPatient)


def main(args: argparse.Namespace) -> int:
    """Prints the comparison, writes its page, and returns 0."""
    for line in compare(args.output_dir, args.other, args.split, read(PerPatient, given(args, PerPatient))):
        write_lines(line)
    return 0


def compare(directory: Path, other: Path, split: str, unit: PerPatient) -> Iterator[str]:
    """Writes the page of a comparison beside the report of the first run, and yields what a terminal shows.

    Args:
        directory: ``output_dir`` of an evaluated run; its report is left as it is.
        other: ``output_dir`` of the other run.
        split: which evaluation of both.
        unit: whether images are compared, or patients.

    Raises:
        InputError: no such run, one that wasn't evaluated, twice the same, or runs that can't be compared.
    """
    from dual_skd.evaluation.comparison import compare_runs, different_options
    from dual_skd.evaluation.report.comparison_page import comparison_page, terminal_lines
    from dual_skd.evaluation.run_files import Unit, read_run, report_folder, unfinished
    from dual_skd.utils.files import expanded, write_text

    names = names_of(expanded(directory), expanded(other))
    one, two = read_run(directory, split), read_run(other, split)
    measured = Unit("patient", unit.combine) if unit.per == "patient" else Unit()
    found = compare_runs(one, two, names=names, combine=measured.combine)
    options = different_options(one, two)
    runs = zip(names, (one, two), strict=True)
    stopped = (unfinished(run.run, f"the training command of {name}") for name, run in runs)
    early = " ".join(filter(None, stopped))
    optimistic = "validation" in (one.section, two.section)
    page = comparison_page(found, names, options, split=split, unfinished=early, optimistic=optimistic)
    path = report_folder(expanded(directory), split, measured) / f"compared_with_{names[1].replace('/', '_')}.html"
    write_text(path, page)
    yield from textwrap.wrap(early, WIDTH)
    yield from terminal_lines(found, names, options)
    rows, following = [("adds", "the AUC of each class, and p before Holm's correction")], ""
    if one.section and two.section and (found["only_one"] or found["only_other"]):
        rows.append(("for all images", "train both on one division, B on that of A for instance"))
        following = on_division(expanded(directory) / "datalist.json", two)
    elif not (path.parent / "report.html").is_file():
        chosen = {name: value for name, value in vars(unit).items() if value != PerPatient.model_fields[name].default}
        words = [] if split == "test" else ["--split", quoted(split)]
        following = " ".join(
            [f"dual-skd report {quoted(directory)}", *words, *words_of(chosen, PerPatient.model_fields)]
        )
    yield from closing(f"Page: {path}", rows, following).splitlines()


def on_division(division: Path, run: RunFiles) -> str:
    """The command that trains as a run did, on the division of another."""
    from dual_skd.options import Training, command, marks
    from dual_skd.options.derived import chosen
    from dual_skd.options.shared import Reading
    from dual_skd.options.training import Division, Places
    from dual_skd.options.words import lost

    used_up = {*Places.model_fields, *Reading.model_fields, *Division.model_fields, "frame"} - {"train_fraction"}
    used_up |= {name for name, one in marks(Training).items() if one.free}  # of the machine, not of the result
    settings = run.run.get("config") or {}
    values = {name: value for name, value in chosen(settings).items() if name not in used_up}
    return command(f"dual-skd train {quoted(division)} -o NEW", values, Training, places=True) + lost(settings)


def names_of(one: Path, other: Path) -> tuple[str, str]:
    """What two runs are called: the ends of their paths, as long as it takes to tell them apart.

    Raises:
        InputError: they are the same.
    """
    first, second = (path.resolve() for path in (one, other))
    if first == second:
        raise InputError(f"{one} and {other} are the same run; give two to compare.")
    count = next(n for n in range(1, len(first.parts) + 1) if first.parts[-n:] != second.parts[-n:])
    return Path(*first.parts[-count:]).as_posix(), Path(*second.parts[-count:]).as_posix()
