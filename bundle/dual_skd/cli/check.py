# SPDX-License-Identifier: Apache-2.0
"""``dual-skd check D``: files, labels, leaks and shortcuts of a data set, before any training."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dual_skd.cli.shared import add_findings_file, require_other_file, write_lines
from dual_skd.data.records.rows import UNLABELLED
from dual_skd.errors import InputError, visible
from dual_skd.options import Training, command, read
from dual_skd.options.arguments import Parser, add_options, given
from dual_skd.options.shared import REST, Reading
from dual_skd.options.training import Images, Unlabelled
from dual_skd.runs.workflow import TRAIN
from dual_skd.utils.files import expanded, write_csv, write_json, write_text
from dual_skd.utils.log import silenced
from dual_skd.utils.wording import closing, counted, quoted

if TYPE_CHECKING:
    from dual_skd.data.checking.findings import Findings, Group
    from dual_skd.data.records.datalist import DataList
    from dual_skd.data.records.record import Record

WHERE_UNLABELLED = ("unlabelled",)
NETWORK_INPUT = ("image_size", "window", "spacing", "fit")  # options that no list of images answers
OFFENDERS_SHOWN = 10  # offenders per kind in the terminal; all of them stand in the JSON file and in the fix list
REPORT_COLUMNS = 120


def add_arguments(parser: Parser) -> None:
    """Declares the arguments of ``check``."""
    parser.add_argument("dataset_dir", metavar="DATA", help="what training would take as DATA")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write an HTML page: images of each class, findings")
    add_findings_file(parser)
    parser.add_argument("--fix-list", type=Path, metavar="FILE", help="write a CSV table of all images to look at")
    parser.add_argument(
        "--clean-list", type=Path, metavar="FILE",
        help="write a datalist.csv of what is left: one of every group of copies",
    )  # fmt: skip
    parser.add_argument("--no-twins", action="store_true", help="don't look for copies among the images")
    add_options(parser, Images)
    add_options(parser, Reading)
    add_options(parser, Unlabelled, WHERE_UNLABELLED)


def main(args: argparse.Namespace) -> int:
    """Checks, prints what was found, and returns 0 when nothing is wrong, else 1."""
    from dual_skd.data.checking.findings import COLUMNS, check_records, dimensions_of_nearly_all
    from dual_skd.data.checking.salvage import load_for_check

    asked = given(args, Images) | given(args, Reading) | given(args, Unlabelled, WHERE_UNLABELLED)
    options = read(Training, asked)
    reading = {name: getattr(options, name) for name in Reading.model_fields}
    with silenced("dual_skd.data.records.training_records"):  # the report says it all
        data, known = load_for_check(
            args.dataset_dir,
            spatial_dims=options.spatial_dims,
            frame=options.frame,
            unlabelled=options.unlabelled,
            **reading,
        )
    given_as = [args.dataset_dir, *tables_of(options.unlabelled)]
    _spare(data, given_as, [args.page, args.json, args.fix_list, args.clean_list])
    with _without_remarks_of_decoders():
        findings = check_records(data, known=known, twins=not args.no_twins)
    if args.json is not None:
        content = {"data": str(args.dataset_dir), "hash": data.hash if data.source else "", **findings.as_dict()}
        write_json(args.json, content, indent=2, private=True)
    if args.fix_list is not None:
        rows_to_fix = ([visible(one.get(name, "")) for name in COLUMNS] for one in findings.offenders)
        write_csv(args.fix_list, [COLUMNS, *rows_to_fix], private=True)  # for a person, who reads it line by line
    if not data.source:  # nothing could be read at all
        write_lines(*(f"Error: {sentence}" for sentence in findings.errors), to=sys.stderr)
        return 1
    *lines, verdict = report(data, findings)
    trains, dimensions = findings.ok, dimensions_of_nearly_all(data, findings)
    kept = Counter({split: len(data.splits[split]) for split in data.splits})
    rows: list[tuple[str, str | Path]] = [
        ("page", args.page or "--page FILE.html shows images of each class, and the findings."),
        ("all findings", args.json or ""),
        ("fix list", args.fix_list or ""),
    ]
    if args.clean_list is not None:
        from dual_skd.data.checking.clean_list import clean_records, write_clean_list

        splits, notes = clean_records(data, findings)
        write_clean_list(data, splits, args.clean_list)
        records = [record for of_split in splits.values() for record in of_split]
        kept = Counter({split: len(of_split) for split, of_split in splits.items()})
        left = counted(len(records), "image is", "images are")
        rows += [("clean list", args.clean_list), ("", "; ".join([f"{left} left", *notes]))]
        labels = [record.label for record in records if record.label is not None]
        trains = bool(labels) if data.multi_label else len(set(labels)) > 1
    elif not (findings.ok or dimensions):
        rows.append(("clean list", "--clean-list FILE.csv writes one of what is left to train on."))
    if dimensions:
        following = check_again(args, asked | {"spatial_dims": dimensions})
    elif trains or args.clean_list is None:
        following = next_command(args, data, asked, kept if trains else None)
    else:  # too little is left
        following = ""
    if args.page is not None:
        _write_page(args, data, findings, given(args, Images), verdict, following)
    write_lines(*lines, *closing(verdict, rows, following).splitlines())
    return 0 if findings.ok else 1


def next_command(
    args: argparse.Namespace, data: DataList, values: Mapping[str, Any], images: Counter[str] | None
) -> str:
    """The command that trains on what was checked, or on the clean list of it, or that writes such a list.

    Args:
        args: of the check.
        data: what was read.
        values: options of the data that the check was given, by name.
        images: of each split, to train on; None where training would refuse them.
    """
    from dual_skd.data import DEMO_NAMES
    from dual_skd.data.checking.clean_list import like_empty_cells

    values, table = dict(values), args.clean_list
    if images is None:
        again = command(f"dual-skd check {quoted(args.dataset_dir)}", values, Training, places=True)
        return f"{again} --clean-list clean.csv"
    output = free_folder()
    start = f"dual-skd train {quoted(table or args.dataset_dir)} -o {output}"
    preset = "volume" if values.pop("spatial_dims", 2) == 3 else None
    if table is not None:  # a clean list, which has a column per class or one named label, and needs no other options
        columns = {"label_column": list(data.class_names)} if data.multi_label else {}
        seen = {name: value for name, value in values.items() if name in NETWORK_INPUT}
        values = seen | columns | ({"class_map": class_map} if (class_map := like_empty_cells(data)) else {})
    if args.dataset_dir not in DEMO_NAMES:
        defaults = TRAIN.gather({"dataset_dir": args.dataset_dir, "output_dir": output}, preset, None).options
        values |= more_epochs(images, defaults)
    return command(f"{start} --preset {preset}" if preset else start, values, Training, places=True)


def more_epochs(images: Mapping[str, int], options: Training) -> dict[str, int]:
    """The option that gives few training images enough steps, or none.

    Args:
        images: of each split that is given.
        options: that training would have without.
    """
    from dual_skd.training.schedule import ADVISED_STEPS, advised_epochs

    count: float = images["train"]
    if not images["val"]:  # training divides it from them, and the test where no split is given at all
        count *= (1 - options.val_fraction) * (1 if images["test"] else 1 - options.test_fraction)
    steps = max(int(count) // options.batch_size, 1)
    return {"epochs": advised_epochs(steps)} if options.epochs * steps < ADVISED_STEPS else {}


def free_folder() -> str:
    """The first of ``output``, ``output2`` ... that doesn't exist here."""
    names = ("output" if number == 1 else f"output{number}" for number in count(1))
    return next(name for name in names if not Path(name).exists())


def check_again(args: argparse.Namespace, values: Mapping[str, Any]) -> str:
    """The command of the same check with other dimensions; sizes and spacings were meant for the former ones."""
    values = {name: value for name, value in values.items() if name not in ("image_size", "spacing")}
    files = {"--page": args.page, "--json": args.json, "--fix-list": args.fix_list, "--clean-list": args.clean_list}
    own = [f"{name} {quoted(path)}" for name, path in files.items() if path is not None]
    start = " ".join(["dual-skd check", quoted(args.dataset_dir), *own, *["--no-twins"] * args.no_twins])
    return command(start, values, Training, places=True)


def report(data: DataList, findings: Findings) -> Iterator[str]:
    """Lines of the report: what was read, then what was found, the gravest first."""
    yield f"Data: {data.source}"
    yield from _table_of_counts(data, findings)
    for note in notes_on(data, findings):
        yield from _wrapped(f"{note[0].upper()}{note[1:]}.", "  ")
    for severity, heading in (("error", "ERRORS"), ("warning", "WARNINGS")):
        groups = findings.groups(severity)
        if groups:
            yield ""
            yield heading
        for group in groups:
            yield from _group(group)
    yield ""
    yield _closing(findings)


def notes_on(data: DataList, findings: Findings) -> list[str]:
    """Notes on the data set."""
    given = [] if data.val or data.test else ["no split is given: training makes one"]
    return [*given, *(note for note in data.notes if note not in data.doubts), *findings.notes]  # doubts are warnings


def _table_of_counts(data: DataList, findings: Findings) -> Iterator[str]:
    rows = [["", *map(visible, data.class_names), "images", "patients"]]
    divided = bool(data.val or data.test)
    of_splits: list[tuple[str, list[Record], Sequence[object]]] = [
        (split if divided else "all", data.splits[split], list(counts.values()))
        for split, counts in findings.counts.items()
    ]
    for name, records, counts in [*of_splits, (UNLABELLED, data.unlabelled, [""] * data.num_classes)]:
        patients = len({record.patient for record in records if record.patient})
        if records:
            rows.append([name, *map(str, counts), str(len(records)), str(patients or "unknown")])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 2 * len(widths) > 2 * REPORT_COLUMNS:  # a table of very many classes can't be read in a terminal
        rows = [[row[0], *row[-2:]] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))


def _group(group: Group) -> Iterator[str]:
    yield from _wrapped(f"{group.headline}.", "- ")
    named = [offender for offender in group.offenders if offender["image"]]
    before = ""
    for offender in named[:OFFENDERS_SHOWN]:
        where = ", ".join(filter(None, (offender["split"], offender["label"])))
        image = f"{offender['image']}{f' ({where})' if where else ''}"
        lines = _wrapped(f"{image}: {offender['detail']}", "    ")
        detail = offender["detail"].replace(Path(offender["image"]).name, "")
        # a long sentence stands once
        yield from _wrapped(f"{image}: the same", "    ") if detail == before and len(lines) > 1 else lines
        before = detail
    if len(named) > OFFENDERS_SHOWN:
        yield f"    ... and {len(named) - OFFENDERS_SHOWN} more (--fix-list FILE.csv or --json FILE writes all)"
    if not named and group.example:
        yield from _wrapped("; ".join(offender["detail"] for offender in group.offenders[:OFFENDERS_SHOWN]), "    ")
    for remedy in group.remedies[:3]:
        yield from _wrapped(f"{remedy[0].upper()}{remedy[1:]}.", "  > ")


def _closing(findings: Findings) -> str:
    errors = len(findings.errors)
    warnings = counted(len(findings.warnings), "kind of warning", "kinds of warning")
    if errors:
        images = len({one["image"] for one in findings.offenders if one["severity"] == "error" and one["image"]})
        concerned = f" ({counted(images, 'image')})" if images else ""
        found = f"{counted(errors, 'kind of error', 'kinds of error')}{concerned} and {warnings} found"
        return f"{found}: no result counts before the errors are mended."
    if findings.warnings:
        return f"No errors and {warnings} found: the set can be trained on, after a look at the warnings."
    return "No errors and no warnings found: the set can be trained on."


def _write_page(
    args: argparse.Namespace, data: DataList, findings: Findings, options: dict[str, Any], verdict: str, following: str
) -> None:
    from dual_skd.cli.check_page import check_page

    name, notes = Path(args.dataset_dir).resolve().name, notes_on(data, findings)
    with silenced("dual_skd.data"), _without_remarks_of_decoders():  # the findings have it all
        page = check_page(name, data, findings, options, notes=notes, verdict=verdict, following=following)
    write_text(args.page, page, private=True)


def _wrapped(text: str, mark: str) -> list[str]:
    deeper = " " * len(mark) + "  "
    return textwrap.wrap(visible(text), REPORT_COLUMNS, initial_indent=mark, subsequent_indent=deeper,
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip


def tables_of(unlabelled: str | None) -> list[Path]:
    """What ``unlabelled`` names, where it is a file, or the tables in a folder of that name."""
    from dual_skd.data.records.sources import TABLE_NAMES

    if unlabelled is None or unlabelled == REST:
        return []
    place = expanded(unlabelled)
    return [path for path in (place, *(place / name for name in TABLE_NAMES)) if path.is_file()]


def _spare(data: DataList, given_as: Sequence[str | Path], outputs: Sequence[Path | None]) -> None:
    """Refuses to write over the data, or one output over another.

    Raises:
        InputError: a file that is to be written is part of the data, or is named twice.
    """
    written = [path.resolve() for path in outputs if path is not None]
    taken = [*given_as, *(record.image for split in (*data.splits.values(), data.unlabelled) for record in split)]
    for path in written:
        table = [path] if str(path) in data.source else []  # which names the table in a folder
        require_other_file(path, [*taken, *table], "data")
    if len(set(written)) < len(written):
        raise InputError("Two of --page, --json, --fix-list and --clean-list name the same file; give each its own.")


@contextmanager
def _without_remarks_of_decoders() -> Iterator[None]:
    """Keeps from the terminal what decoders in C write to descriptor 2, even about files that they read."""
    before = sys.stderr
    streams = (one for one in logging.getLogger().handlers if isinstance(one, logging.StreamHandler))
    handlers = [one for one in streams if one.stream is before]
    with open(os.dup(2), "w", encoding="utf-8", errors="backslashreplace") as ours, open(os.devnull, "wb") as nowhere:
        # a stream that stands in for that of the process, as in a notebook, has its own way out
        sys.stderr = ours if before is sys.__stderr__ else before
        for handler in handlers:
            handler.setStream(sys.stderr)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            ours.flush()
            os.dup2(ours.fileno(), 2)
            sys.stderr = before
            for handler in handlers:
                handler.setStream(before)
