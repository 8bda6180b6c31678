# SPDX-License-Identifier: Apache-2.0
"""Reads the files of tables (CSV, JSON data lists), and finds their columns."""

from __future__ import annotations

import csv
import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dual_skd.data.reading.formats import TEXT, UNKNOWN, WORKBOOKS, content_of
from dual_skd.data.records.image_files import IMAGE_SUFFIXES
from dual_skd.data.records.labels import word_of
from dual_skd.data.records.record import LeftOut
from dual_skd.data.records.rows import SPLIT_WORDS, UNLABELLED, cell_text
from dual_skd.data.records.table_images import names_a_file
from dual_skd.errors import InputError
from dual_skd.utils.csv_text import escaped, unescaped
from dual_skd.utils.spelling import bare, key_of, known
from dual_skd.utils.wording import counted

MAX_LABEL_WORDS = 20  # words of a column that is offered as that of the labels
TABLE_SUFFIXES = (".csv", ".tsv", ".json")
KNOWN_COLUMNS = ("image", "split", "patient", "site")
LISTS_OF_SPLIT_FILES = ("left_out", "unusable")  # what a split file lists beside its splits
SAMPLED_ENTRIES = 100  # entries that tell which column names the images
# what others call these columns, without case, spaces and underscores: for image and label only ever a hint in an error
OTHER_NAMES = {
    "image": ("path", "file", "filename", "filepath", "imagepath", "imagefile", "img", "name"),
    "label": ("class", "target", "category", "diagnosis", "finding", "y"),
    "patient": ("patientid", "subject", "subjectid"),
    "split": ("set", "subset", "partition"),
}


@dataclass(frozen=True)
class Table:
    """A table as it stands in its file.

    Args:
        path: the file.
        entries: one dictionary per row; the known columns have their names in small letters.
        numbers: number of a label, as text -> class name, in the order of the numbers, where the file declares them.
        left_out, twins_searched: see :class:`Source`, of a split file.
        notes, doubts: see :class:`Source`.
    """

    path: Path
    entries: list[dict]
    numbers: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    twins_searched: bool = False
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the order that the file declares, empty when it declares none."""
        return tuple(self.numbers.values())

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(key for entry in self.entries for key in entry))


def read_table(path: Path, image_column: str | None = None) -> Table:
    """Reads a CSV table (separated by comma, semicolon or tab) or a JSON data list.

    Args:
        path: the file.
        image_column: the column that names the images, ``image`` in what is returned. Default: that name, else the
            column whose cells name image files that exist.

    Raises:
        InputError: the file can't be understood, lists nothing, or has several columns that name images.
    """
    kind = content_of(path) or UNKNOWN
    if path.suffix.lower() not in TABLE_SUFFIXES or kind not in (TEXT, UNKNOWN):
        remedy = "save the sheet as CSV UTF-8" if kind in WORKBOOKS else "give a folder, or a .csv, .json or .npz file"
        raise InputError(f"{path} is neither a folder nor a table that is read: its content is {kind}; {remedy}.")
    table = _read_json(path) if path.suffix.lower() == ".json" else Table(path, _read_csv(path))
    if not table.entries:
        raise InputError(f"{path} lists no images.")
    columns = {name: same_name(name, table.columns) for name in KNOWN_COLUMNS}
    if image_column is not None:
        found = columns["image"] = same_name(image_column, table.columns) or image_column
        require_columns(table, [found])
    elif columns["image"] is None and (of_files := _column_of_files(table)) is not None:
        columns["image"] = of_files
        table = replace(table, doubts=_other_file_names(table, of_files))
    rename = {found: name for name, found in columns.items() if found and found != name}
    if not rename:
        return table
    entries = [
        {rename.get(key, key): value for key, value in entry.items() if key in rename or key not in rename.values()}
        for entry in table.entries
    ]
    notes = table.notes
    if columns["image"] in rename and key_of(columns["image"]) != "image":
        notes += (f"the column {columns['image']} of {path.name} counts as image",)
    return replace(table, entries=entries, notes=notes)


def _column_of_files(table: Table) -> str | None:
    """The column in which at least half of a sample of the cells name image files that exist."""
    root = str(table.path.parent.absolute())
    found = []
    for name in table.columns:
        cells = _sample(table, name)
        if cells and 2 * sum(names_a_file(root, cell) for cell in cells) >= len(cells):
            found.append(name)
    if len(found) > 1:
        raise InputError(
            f"{table.path} has no column image, and several that name files: {', '.join(found)}; give --image-column "
            "the one with the images."
        )
    return found[0] if found else None


def _sample(table: Table, name: str) -> list:
    """The known cells of a column among at most ``SAMPLED_ENTRIES`` entries."""
    step = max(-(-len(table.entries) // SAMPLED_ENTRIES), 1)
    return [entry.get(name) for entry in table.entries[::step] if known(cell_text(entry.get(name)))]


def _other_file_names(table: Table, chosen: str) -> tuple[str, ...]:
    """A sentence for each further column that looks like file names."""
    return tuple(
        f"the column {chosen} of {table.path.name} counts as image as its files exist, and {name} looks like file "
        f"names too; if that one has the images, correct its paths and give --image-column {name}"
        for name in table.columns
        if name != chosen and _looks_like_files(table, name)
    )


def _looks_like_files(table: Table, name: str) -> bool:
    """Whether half of a sample of cells end as image files do, or begin with a folder that exists."""
    cells = [cell_text(cell).replace("\\", "/") for cell in _sample(table, name)]
    likely = 0
    for cell in cells:
        folder, file = os.path.split(cell)
        in_folder = bool(folder and file) and (table.path.parent / folder).is_dir()
        likely += cell.lower().endswith(IMAGE_SUFFIXES) or in_folder
    return bool(cells) and 2 * likely >= len(cells)


def require_columns(table: Table, wanted: Sequence[str]) -> None:
    """Raises :class:`InputError` for a column that a table doesn't have, naming the one that may be meant."""
    for name in wanted:
        if name not in table.columns:
            remedies = "".join(f"; {remedy}" for remedy in _remedies(table, name))
            raise InputError(f"{table.path} has no column {name}; columns found: {', '.join(table.columns)}{remedies}.")


def _remedies(table: Table, name: str) -> list[str]:
    """What to do about a column that a table doesn't have."""
    parts = [part.strip() for part in re.split(r"[\[\]()'\",]", name) if part.strip()]
    if len(parts) > 1 and set(parts) <= set(table.columns):
        return ["on this command line several columns are given one by one, --label-column A --label-column B"]
    near = other_names(name, table.columns) or difflib.get_close_matches(name, table.columns)
    if name == "image":
        near = near or _columns_of_file_names(table)
    found = [f"rename {near[0]} to {name} if that is meant" for _ in near[:1]]
    if near and name in ("image", "label"):
        found = [f"{found[0]}, or give --{name}-column {near[0]}"]
    if near and name == "image":
        found.append(f"few or none of its cells name image files in {table.path.parent}")
    flags = _flag_columns(table) if name == "label" else []
    if name == "label" and not near and len(flags) < 2 and (few := _columns_of_few_words(table)):
        found.append(f"give --label-column {' or '.join(few)} if that is the label")
    if len(flags) > 1:
        found.append(
            f"{', '.join(flags)} hold 0 and 1: give one of them as --label-column, or several for several labels "
            "per image (--label-column A --label-column B)"
        )
    return found


def _columns_of_few_words(table: Table) -> list[str]:
    """Up to three columns that may hold a class: two to twenty words, each on the average at least twice."""
    most = min(MAX_LABEL_WORDS, len(table.entries) // 2)
    columns = [name for name in table.columns if name not in KNOWN_COLUMNS]
    return [name for name in columns if 2 <= len(words_in(table, name)) <= most][:3]


def _flag_columns(table: Table) -> list[str]:
    """The columns that hold 0 and 1 alone."""
    return [name for name in table.columns if name not in KNOWN_COLUMNS and words_in(table, name) == {"0", "1"}]


def words_in(table: Table, column: str) -> set[str]:
    """The keys of the known words of a column."""
    return {key_of(known(cell_text(entry.get(column)))) for entry in table.entries} - {""}


def _columns_of_file_names(table: Table) -> list[str]:
    """The columns whose first cell is called like an image file."""
    first = next(iter(table.entries), {})  # none are left where no image exists
    return [name for name in first if cell_text(first[name]).lower().endswith(IMAGE_SUFFIXES)]


def other_names(wanted: str, columns: Sequence[str]) -> list[str]:
    """The columns whose name others use for a column of this package, see :data:`OTHER_NAMES`."""
    return [name for name in columns if bare(name) in OTHER_NAMES.get(wanted, ())]


def same_name(wanted: str, columns: Sequence[str]) -> str | None:
    """The column of that name, however it is spelled."""
    if wanted in columns:
        return wanted
    return next((name for name in columns if key_of(name) == key_of(wanted)), None)


# ------------------------------------------------------------------------------------------------------------ files


def _read_csv(path: Path) -> list[dict]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # a name may hold \r
            physical = list(file)
        first_line = physical[0].rstrip("\r\n") if physical else ""
        delimiter = max(",;\t", key=first_line.count)
        if declared := re.fullmatch(r'"?sep=(.)"?', first_line, re.IGNORECASE):  # as Excel writes it
            delimiter, physical = declared[1], physical[1:]
        lines = _csv_lines(physical, delimiter, path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} isn't in UTF-8: Excel's plain CSV isn't either; save it as CSV UTF-8.") from error
    except (csv.Error, OSError) as error:
        raise InputError(f"{path} can't be read as a UTF-8 CSV table: {error}.") from error
    if not lines:
        raise InputError(f"{path} is empty; expected a line of column names, such as image,label, and one per image.")
    header = [name.strip() for name in lines[0]]
    repeated = [name for place, name in enumerate(header) if name and name in header[:place]]
    if repeated:
        raise InputError(f"{path} has two columns {repeated[0]}; rename or remove one of them.")
    entries = []
    for number, line in enumerate(lines[1:], start=1):
        if any(cell.strip() for cell in line[len(header) :]):
            raise InputError(
                f"{path}, entry {number}: {len(line)} fields where the first line names {len(header)} columns; quote "
                "fields that contain the separator."
            )
        entries.append({name: cell for name, cell in zip(header, line, strict=False) if name})
    return entries


def _csv_lines(physical: list[str], delimiter: str, path: Path) -> list[list[str]]:
    """The cells of each line that isn't blank, from the lines of the file; a line may go on inside quotes.

    Raises:
        InputError: what goes on inside quotes are lines of the table themselves, as a stray quote makes it.
    """
    reader = csv.reader(physical, delimiter=delimiter, skipinitialspace=True)
    lines: list[list[str]] = []
    start = 0
    for line in reader:
        span, start = physical[start : reader.line_num], reader.line_num
        if not any(cell.strip() for cell in line):
            continue
        whole = sum(part.count(delimiter) == len(lines[0]) - 1 > 0 for part in span) if lines else 0
        if len(span) > 1 and 2 * whole > len(span):
            raise InputError(
                f"{path}, entry {len(lines)}: a quote joins {len(span)} lines of the table into one entry; remove the "
                'stray quote, or write it twice inside a quoted field ("5"" tube").'
            )
        lines.append([_meant(cell, path) for cell in line])
    return lines


def _meant(cell: str, path: Path) -> str:
    """What a cell stands for: without the apostrophes of tables that this package wrote, unless it names a file as is.

    Raises:
        InputError: both names are those of image files.
    """
    plain = unescaped(cell)
    if plain == cell or escaped(plain) != cell:  # not written by this package
        return cell
    root = str(path.parent.absolute())
    if not names_a_file(root, cell):
        return plain
    if names_a_file(root, plain):
        raise InputError(
            f"{path}: {cell} may be the image of that name or {plain}, as apostrophes before {plain.strip()[:1]} are "
            "added to tables; rename one of both files."
        )
    return cell


def _read_json(path: Path) -> Table:
    """Reads a Medical Segmentation Decathlon style data list, or a plain list of entries."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        json.dumps(content, ensure_ascii=False).encode()  # half a letter, as "\\ud800", would be in no table of results
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path} can't be read as JSON: {error}.") from error
    if isinstance(content, list):
        return Table(path, _entries(content, path))
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a list of images or lists named training, validation, test.")
    entries: list[dict] = []
    for key, members in content.items():
        if key_of(key) in SPLIT_WORDS and isinstance(members, list):
            entries += [{**entry, "split": key} for entry in _entries(members, path)]
    if not entries:
        raise InputError(f"{path} must have a list named training (validation, test); found: {', '.join(content)}.")
    _refuse_other_lists(content, entries, path)
    splits = {SPLIT_WORDS[key_of(entry["split"])] for entry in entries}
    if splits - {UNLABELLED} == {"train"}:
        # one list only: no split was made, so validation and test sets are to be carved
        entries = [
            {key: value for key, value in entry.items() if key != "split" or SPLIT_WORDS[key_of(value)] == UNLABELLED}
            for entry in entries
        ]
    given = content.get("left_out")
    left_out = tuple(map(LeftOut.from_entry, _entries(given, path))) if isinstance(given, list) else ()
    return Table(
        path,
        entries,
        _declared_numbers(content.get("labels"), f"{path}, labels"),
        left_out,
        content.get("twins_searched") is True,
    )


def _refuse_other_lists(content: dict, entries: Sequence[dict], path: Path) -> None:
    """Raises :class:`InputError` for images that stand under a key of no split, or not in a list."""
    keys = {key for entry in entries for key in entry}
    for name, members in content.items():
        is_split = key_of(name) in SPLIT_WORDS
        if is_split and isinstance(members, dict) and members:
            raise InputError(f"{path}: {name} must be a list of images, found an object with keys; make a list of it.")
        if is_split or name in LISTS_OF_SPLIT_FILES or not isinstance(members, list):
            continue
        images = [
            member
            for member in members
            if (isinstance(member, dict) and keys & set(member))
            or (isinstance(member, str) and member.lower().endswith(IMAGE_SUFFIXES))
        ]
        if images:
            raise InputError(
                f"{path}: the list {name} holds {counted(len(images), 'image')} and is none of training, validation, "
                "test and unlabelled; rename it to one of them, or remove it."
            )


def _entries(members: list, path: Path) -> list[dict]:
    entries = [{"image": member} if isinstance(member, str) else member for member in members]
    if not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f'{path}: each image must be an object such as {{"image": "a.png", "label": "normal"}}.')
    return entries


def _declared_numbers(labels: object, where: str) -> dict[str, str]:
    """Number -> name of a Decathlon ``"labels": {"0": "normal", "1": "nodule"}`` block or a list, in numeric order."""
    if isinstance(labels, list):
        return {str(place): word_of(name, where) for place, name in enumerate(labels)}
    if isinstance(labels, dict) and all(str(key).isdecimal() for key in labels):
        return {key: word_of(labels[key], where) for key in sorted(labels, key=int)}
    return {}
