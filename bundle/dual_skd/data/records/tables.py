# SPDX-License-Identifier: Apache-2.0
"""Reads tables (CSV, JSON data lists): entries with a label, and the images that they name."""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dual_skd.data.reading.formats import TEXT, UNKNOWN, WORKBOOKS, content_of
from dual_skd.data.reading.locators import path_of
from dual_skd.data.records.rows import SPLIT_WORDS, Row, Source, some
from dual_skd.errors import InputError
from dual_skd.wording import counted

TABLE_SUFFIXES = (".csv", ".tsv", ".json")
OWN_COLUMNS = ("image", "split", "patient", "site")
RESERVED = (*OWN_COLUMNS, "label", "twin", "similarity", "exact")  # keys of records that mean something
MOST_GROUPS = 12
NO_LABELS = ("na", "n/a", "nan", "null")  # what programs write into cells without a label, in small letters
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
        entries: one dict per row, with the package's own column names in small letters.
        class_names: classes in the order that the file declares, empty when it declares none.
        left_out: the section "left_out" of a split file.
        twins_searched: whether a split file says that twins were looked for.
    """

    path: Path
    entries: list[dict]
    class_names: tuple[str, ...] = ()
    left_out: tuple[dict, ...] = ()
    twins_searched: bool = False

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(key for entry in self.entries for key in entry))


@dataclass(frozen=True)
class Labelled:
    """The entries of a table that have a label.

    Args:
        entries: (number of the entry, the entry, a :class:`Row` without an image).
        class_names: classes in the order that the table declares, empty when it declares none.
        multi_label: whether an entry may have any number of labels.
        notes: decisions that the user should know of.
    """

    entries: list[tuple[int, dict, Row]]
    class_names: tuple[str, ...]
    multi_label: bool
    notes: tuple[str, ...]


def read_table(path: Path) -> Table:
    """Reads a CSV table (separated by comma, semicolon or tab) or a JSON data list.

    Raises:
        InputError: the file can't be understood, or lists nothing.
    """
    kind = content_of(path) or UNKNOWN
    if path.suffix.lower() not in TABLE_SUFFIXES or kind not in (TEXT, UNKNOWN):
        remedy = "save the sheet as CSV UTF-8" if kind in WORKBOOKS else "give a folder, or a .csv, .json or .npz file"
        raise InputError(f"{path} is neither a folder nor a table that is read: its content is {kind}; {remedy}.")
    table = _read_json(path) if path.suffix.lower() == ".json" else Table(path, _read_csv(path))
    if not table.entries:
        raise InputError(f"{path} lists no images.")
    own = {name: _same_name(name, table.columns) for name in OWN_COLUMNS}
    rename = {found: name for name, found in own.items() if found and found != name}
    if rename:
        entries = [{rename.get(key, key): value for key, value in entry.items()} for entry in table.entries]
        table = replace(table, entries=entries)
    return table


def read_image_table(
    table: Table, label_column: str | Sequence[str] = "label", *, allow_outside: bool = False
) -> Source:
    """Makes rows of a table whose column ``image`` names files, relative to the table or absolute.

    Raises:
        InputError: columns are missing, files don't exist or lie outside, or entries contradict each other.
    """
    require_columns(table, ["image"])
    labelled = labelled_entries(table, label_column)
    numbered = [(number, entry) for number, entry, _ in labelled.entries]
    located = locate_images(table, numbered, allow_outside=allow_outside)
    rows: dict[str, tuple[int, Row]] = {}
    repeated: list[str] = []
    for image, (number, _, row) in zip(located, labelled.entries, strict=True):
        row = replace(row, image=image)
        first, other = rows.setdefault(image, (number, row))
        if other is row:
            continue
        refuse_contradiction(f"{table.path} lists {image} twice", (first, other), (number, row))
        repeated.append(os.path.basename(image))
    notes = list(labelled.notes)
    if repeated:
        subject = counted(
            len(repeated), f"repeated entry of {table.path.name} counts", f"repeated entries of {table.path.name} count"
        )
        notes.append(f"{subject} once, for example {some(repeated)}")
    return Source(
        root=table.path.parent,
        description=str(table.path),
        rows=tuple(row for _, row in rows.values()),
        class_names=labelled.class_names,
        multi_label=labelled.multi_label,
        notes=tuple(notes),
        left_out=table.left_out,
        twins_searched=table.twins_searched,
    )


def locate_images(table: Table, numbered: Sequence[tuple[int, dict]], *, allow_outside: bool = False) -> list[str]:
    """Absolute locators of the images of (number, entry) pairs.

    A list that came with somebody's data may name any file of this computer. So its images have to lie below its own
    folder, also after ".." and links are followed. A list of absolute paths alone was made on this computer, since
    nobody else knows where its images lie: it may name any place.

    Args:
        table: the list.
        numbered: entries to locate, each with its number.
        allow_outside: take images from anywhere.

    Raises:
        InputError: images don't exist, or lie outside; the sentence names the first and, of missing ones, counts them.
    """
    root = os.path.abspath(table.path.parent)
    names = [cell_text(entry.get("image")) for entry in table.entries]
    allow_outside = allow_outside or all(os.path.isabs(name) for name in names if name)
    inside = _Inside(root)
    located: list[str] = []
    missing: list[str] = []
    for number, entry in numbered:
        name = cell_text(entry.get("image"))
        if not name:
            raise InputError(f"{table.path}, entry {number}: the image path is empty; fill it in or remove the entry.")
        image = _existing(root, name)
        if image is None:
            missing.append(f"{table.path}, entry {number}: the image {name} does not exist in {root}")
        elif not allow_outside and not inside(image):
            raise OutsideError(
                f"{table.path}, entry {number}: the image {name} lies outside {root}, which a list with relative paths "
                "must not do, as it may come from a stranger; correct the path, or set allow_outside to true if you "
                "know this list."
            )
        else:
            located.append(image)
    if missing:
        others = f" (as {len(missing) - 1} more of {len(numbered)} don't)" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}{others}; correct the paths or remove the entries.")
    return located


class OutsideError(InputError):
    """A list names an image outside its own folder."""


class _Inside:
    """Tells whether an image lies below a folder once links are followed; every folder is looked up once."""

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        self._folders: dict[str, str] = {}

    def __call__(self, image: str) -> bool:
        folder, name = os.path.split(path_of(image))
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        path = os.path.join(self._folders[folder], name)
        if name in ("", ".", "..") or os.path.islink(path):
            path = os.path.realpath(path)
        return path == self._root or path.startswith(os.path.join(self._root, ""))


def labelled_entries(table: Table, label_column: str | Sequence[str]) -> Labelled:
    """Reads label, split, patient and site of every entry; entries without a label are counted in a note.

    Args:
        table: any table.
        label_column: the label's column; several names mean one 0/1 column per label.

    Raises:
        InputError: columns are missing or ambiguous, or a label or split can't be understood.
    """
    path, entries = table.path, table.entries
    wanted = [label_column] if isinstance(label_column, str) else list(label_column)
    found = [_same_name(name, table.columns) or name for name in wanted]
    require_columns(table, found)
    class_names = table.class_names
    multi_label = len(found) > 1 or any(_is_multi(entry.get(found[0])) for entry in entries)
    if len(found) > 1:
        class_names = tuple(wanted)
    patients, splits = (_column_of(name, table, found) for name in ("patient", "split"))
    labelled, grouping = [], _group_columns(table, [*found, patients, splits])
    for number, entry in enumerate(entries, start=1):
        value = entry.get(found[0])
        if value is None or (not multi_label and str(value).strip() == ""):
            continue
        where = f"{path}, entry {number}"
        labels = _labels_of(entry, found, multi_label, class_names, where)
        split, patient, site = (cell_text(entry.get(name)) for name in (splits, patients, "site"))
        groups = tuple((name, cell_text(entry.get(name))) for name in grouping)
        labelled.append((number, entry, Row("", labels, _split_of(split, where), patient, site, groups=groups)))
    if not labelled:
        raise InputError(f"{path} lists {counted(len(entries), 'image')}, none with a label in {', '.join(wanted)}.")
    without = len(entries) - len(labelled)
    of = f"without a label in {path.name}"
    unlabelled = counted(without, f"image {of} was", f"images {of} were")
    notes = [f"{unlabelled} left out"] if without else []
    notes += [
        f"the column {column} of {path.name} counts as {name}"
        for name, column in (("patient", patients), ("split", splits))
        if column != name
    ]
    if doubtful := sorted({name for _, _, row in labelled for name in row.labels if name.lower() in NO_LABELS}):
        notes.append(
            f"{', '.join(doubtful)} in {path.name} counts as a class; if it means that the label is missing, empty "
            "these cells"
        )
    with_split = sum(bool(row.split) for _, _, row in labelled)
    if 0 < with_split < len(labelled):
        raise InputError(
            f"{path}: {len(labelled) - with_split} of {len(labelled)} images have no split; give all or none."
        )
    return Labelled(labelled, class_names, multi_label, tuple(notes))


def _column_of(wanted: str, table: Table, labels: Sequence[str]) -> str:
    """The column "patient" or "split", or, where there is none, the one with another name for it."""
    if wanted in table.columns:
        return wanted
    meant = [name for name in other_names(wanted, table.columns) if name not in labels]
    if wanted == "split":  # these names may mean anything, but for the words below them
        words = {name: {cell_text(entry.get(name)).lower() for entry in table.entries} - {""} for name in meant}
        meant = [name for name in meant if words[name] and words[name] <= set(SPLIT_WORDS)]
    if len(meant) > 1:
        raise InputError(
            f"{table.path} has no column {wanted}, but several that may be meant: {', '.join(meant)}; rename the right "
            f"one to {wanted}."
        )
    return meant[0] if meant else wanted


def _group_columns(table: Table, used: Sequence[str]) -> list[str]:
    """Further columns with two to ``MOST_GROUPS`` words or whole numbers, such as sex; not one value per image."""
    found = []
    for name in table.columns:
        if name.lower() in RESERVED or name in used or not name.strip():
            continue
        values = [entry.get(name) for entry in table.entries]
        if any(isinstance(value, list | dict | float) for value in values):
            continue
        distinct = {cell_text(value) for value in values} - {""}
        if 2 <= len(distinct) <= MOST_GROUPS and 2 * len(distinct) <= len(values):
            found.append(name)
    return found


def cell_text(value: object) -> str:
    """A cell of a table as text, "" where there is none: a JSON file's 0 is a word."""
    return "" if value is None else str(value).strip()


def require_columns(table: Table, wanted: Sequence[str]) -> None:
    """Raises :class:`InputError` for a column that a table doesn't have, naming the one that may be meant."""
    columns = table.columns
    for name in wanted:
        if name in columns:
            continue
        near = other_names(name, columns) or difflib.get_close_matches(name, columns)
        remedy = f"; rename {near[0]} to {name} if that is meant" if near else ""
        parts = [part.strip() for part in re.split(r"[\[\]()'\",]", name) if part.strip()]
        if len(parts) > 1 and set(parts) <= set(columns):
            remedy = "; on this command line several columns are given one by one, --label-column A --label-column B"
        if near and name == "label":
            remedy += f", or set label_column to {near[0]}"
        raise InputError(f"{table.path} has no column {name}; columns found: {', '.join(columns)}{remedy}.")


def refuse_contradiction(what: str, first: tuple[int, Row], second: tuple[int, Row]) -> None:
    """Raises :class:`InputError` when two entries about one thing differ."""
    (one, before), (two, after) = first, second
    for field, name in (("labels", "labels"), ("split", "splits"), ("patient", "patients"), ("site", "sites")):
        a, b = getattr(before, field), getattr(after, field)
        if a != b:
            a, b = ("|".join(a), "|".join(b)) if field == "labels" else (a, b)
            raise InputError(
                f"{what}, with different {name} ({a or 'none'} in entry {one}, {b or 'none'} in entry {two}); keep one "
                "entry, with several labels joined as a|b where an image has several."
            )


# ------------------------------------------------------------------------------------------------------------ files


def _read_csv(path: Path) -> list[dict]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        first_line, _, rest = text.partition("\n")
        delimiter = max(",;\t", key=first_line.count)
        if said := re.fullmatch(r'"?sep=(.)"?\r?', first_line, re.IGNORECASE):  # a line that Excel wants and writes
            delimiter, text = said[1], rest
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} can't be read as a UTF-8 CSV table: {error}; save it as CSV UTF-8.") from error
    except (csv.Error, OSError) as error:
        raise InputError(f"{path} can't be read as a UTF-8 CSV table: {error}.") from error
    lines = [line for line in lines if any(cell.strip() for cell in line)]
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


def _read_json(path: Path) -> Table:
    """Reads a Medical Segmentation Decathlon style data list, or a plain list of entries."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, OSError) as error:
        raise InputError(f"{path} can't be read as JSON: {error}.") from error
    if isinstance(content, list):
        return Table(path, _entries(content, path))
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a list of images or lists named training, validation, test.")
    entries: list[dict] = []
    for key, members in content.items():
        if key.lower() in SPLIT_WORDS and isinstance(members, list):
            entries += [{**entry, "split": key} for entry in _entries(members, path)]
    if not entries:
        raise InputError(f"{path} must have a list named training (validation, test); found: {', '.join(content)}.")
    if {entry["split"].lower() for entry in entries} <= {"train", "training"}:
        # one list only: no split was made, so validation and test sets are to be carved
        entries = [{key: value for key, value in entry.items() if key != "split"} for entry in entries]
    left_out = content.get("left_out")
    left_out = left_out if isinstance(left_out, list) else []
    entries = _with_names(entries, content.get("labels"))
    return Table(
        path,
        entries,
        _declared_classes(content.get("labels")),
        tuple(_entries(left_out, path)),
        content.get("twins_searched") is True,
    )


def _entries(members: list, path: Path) -> list[dict]:
    entries = [{"image": member} if isinstance(member, str) else member for member in members]
    if not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f'{path}: each image must be an object such as {{"image": "a.png", "label": "normal"}}.')
    return entries


def _with_names(entries: list[dict], labels: object) -> list[dict]:
    """The entries with the names that a Decathlon block declares for their numbers: names may be numbers themselves."""
    if not isinstance(labels, dict):
        return entries
    column = _same_name("label", list(dict.fromkeys(key for entry in entries for key in entry)))
    return [
        entry | {column: labels.get(str(entry[column]), entry[column])} if type(entry.get(column)) is int else entry
        for entry in entries
    ]


def _declared_classes(labels: object) -> tuple[str, ...]:
    """Class names of a Decathlon ``"labels": {"0": "normal", "1": "nodule"}`` block or a list, in numeric order."""
    if isinstance(labels, list):
        return tuple(str(name) for name in labels)
    if isinstance(labels, dict) and labels and all(str(key).isdecimal() for key in labels):
        return tuple(str(labels[key]) for key in sorted(labels, key=int))
    return ()


# ------------------------------------------------------------------------------------------------------------ cells


def bare(name: str) -> str:
    """A column name without case, spaces and underscores."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def other_names(wanted: str, columns: Sequence[str]) -> list[str]:
    """The columns whose name others use for a column of this package, see :data:`OTHER_NAMES`."""
    return [name for name in columns if bare(name) in OTHER_NAMES.get(wanted, ())]


def _same_name(wanted: str, columns: Sequence[str]) -> str | None:
    """The column of that name, whatever its case."""
    if wanted in columns:
        return wanted
    return next((name for name in columns if name.strip().lower() == wanted.lower()), None)


def _existing(root: str, name: str) -> str | None:
    for spelling in (name, name.replace("\\", "/")):  # tables are often made on Windows
        image = os.path.join(root, spelling)
        if os.path.exists(image) or ("#" in spelling and path_of(image).exists()):
            if not os.path.isfile(path_of(image)) and not os.path.isdir(path_of(image)):
                raise InputError(
                    f"{image} is neither a file nor a folder but a device or a pipe; remove it from the list."
                )
            return str(Path(image))
        if "\\" not in name:
            break
    return None


def _is_multi(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and "|" in value)


def _labels_of(
    entry: dict, columns: list[str], multi_label: bool, class_names: tuple[str, ...], where: str
) -> tuple[str, ...]:
    if len(columns) > 1:
        flags = zip(columns, class_names, strict=True)
        return tuple(name for column, name in flags if _as_flag(entry.get(column), name, where))
    value = entry[columns[0]]
    if isinstance(value, list) and all(isinstance(item, (int, float)) for item in value):
        # a 0/1 list needs names for its places
        names = class_names or tuple(str(place) for place in range(len(value)))
        if len(value) != len(names):
            raise InputError(f"{where}: {len(value)} label flags for {len(names)} classes ({', '.join(names)}).")
        return tuple(name for name, flag in zip(names, value, strict=True) if _as_flag(flag, name, where))
    if isinstance(value, list):
        return tuple(str(item) for item in value)
    text = str(value).strip()
    return tuple(part.strip() for part in text.split("|") if part.strip()) if multi_label else (text,)


def _as_flag(value: object, name: str, where: str) -> bool:
    text = str(value).strip().lower()
    if text in ("1", "1.0", "true", "yes"):
        return True
    if text in ("0", "0.0", "false", "no", ""):
        return False
    raise InputError(f"{where}: the label {name} must be 0 or 1, found {value!r}.")


def _split_of(word: str, where: str) -> str:
    word = word.lower()
    if word and word not in SPLIT_WORDS:
        raise InputError(f"{where}: unknown split {word!r}; use train, val or test.")
    return SPLIT_WORDS.get(word, "")
