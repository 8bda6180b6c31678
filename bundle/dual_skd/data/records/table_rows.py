# SPDX-License-Identifier: Apache-2.0
"""From the entries of a table to rows: label, split, patient, site and groups of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from dual_skd.data.records.labels import LabelWords, word_of
from dual_skd.data.records.rows import SPLIT_WORDS, UNLABELLED, Row, Source, cell_text, first_few
from dual_skd.data.records.table_images import Places, locate_images
from dual_skd.data.records.tables import KNOWN_COLUMNS, Table, other_names, require_columns, same_name, words_in
from dual_skd.errors import InputError
from dual_skd.options.data import ReadOptions
from dual_skd.options.shared import REST
from dual_skd.utils.spelling import bare, key_of, known, known_group, known_patient, one_spelling
from dual_skd.utils.wording import counted

RESERVED_COLUMNS = (*KNOWN_COLUMNS, "label", "twin", "similarity", "exact")  # keys of records that mean something
MAX_GROUPS = 12
FOLD_COLUMNS = ("fold", "folds", "kfold", "cvfold", "foldid")  # bare names of columns that number folds


@dataclass(frozen=True)
class Labelled:
    """The entries of a table that have a label.

    Args:
        entries: (number of the entry, the entry, a :class:`Row` without an image).
        unlabelled: the same of entries without a label that are to be used.
        class_names, multi_label, notes: see :class:`Source`.
    """

    entries: list[tuple[int, dict, Row]]
    unlabelled: list[tuple[int, dict, Row]]
    class_names: tuple[str, ...]
    multi_label: bool
    notes: tuple[str, ...]


def read_image_table(table: Table, options: ReadOptions, words: LabelWords) -> Source:
    """Makes rows of a table whose column ``image`` names files, relative to the table or absolute.

    Args:
        table: with a column ``image``.
        options: with ``label_column``, ``allow_outside`` and ``unlabelled``.
        words: what labels stand for.

    Raises:
        InputError: columns are missing, files don't exist or lie outside, or entries contradict each other.
    """
    require_columns(table, ["image"])
    labelled = labelled_entries(table, options, words)
    located, unlabelled = (
        locate_images(table, [(number, entry) for number, entry, _ in entries], allow_outside=options.allow_outside)
        for entries in (labelled.entries, labelled.unlabelled)
    )
    rows: dict[str, tuple[int, Row]] = {}
    place = Places()
    repeated: list[str] = []
    for image, (number, _, row) in zip(located, labelled.entries, strict=True):
        row = replace(row, image=image)
        first, other = rows.setdefault(place(image), (number, row))
        if other is row:
            continue
        refuse_contradiction(f"{table.path} lists {image} twice", (first, other), (number, row))
        repeated.append(os.path.basename(image))
    notes = list(labelled.notes)
    if repeated:
        entries = counted(
            len(repeated), f"repeated entry of {table.path.name} counts", f"repeated entries of {table.path.name} count"
        )
        notes.append(f"{entries} once, for example {first_few(repeated)}")
    return Source(
        root=table.path.parent,
        description=str(table.path),
        rows=tuple(row for _, row in rows.values()),
        class_names=labelled.class_names,
        multi_label=labelled.multi_label,
        notes=tuple(notes),
        doubts=table.doubts,
        left_out=table.left_out,
        twins_searched=table.twins_searched,
        unlabelled=tuple(
            replace(row, image=image) for image, (*_, row) in zip(unlabelled, labelled.unlabelled, strict=True)
        ),
    )


def labelled_entries(table: Table, options: ReadOptions, words: LabelWords) -> Labelled:
    """Reads label, split, patient and site of every entry; entries without a label are counted in a note.

    Those of the split ``unlabelled`` are kept apart, whatever their label, and with ``unlabelled`` "rest" all entries
    whose cells of labels are empty.

    Words for an unknown patient, site or group count as empty cells; spellings of one site or group are joined.

    Args:
        table: any table.
        options: with ``label_column``: the label's column, or several, one of 0 and 1 per label.
        words: what labels stand for.

    Raises:
        InputError: columns are missing or ambiguous, or a label or split can't be understood.
    """
    path = table.path
    wanted = [options.label_column] if isinstance(options.label_column, str) else list(options.label_column)
    found = [same_name(name, table.columns) or name for name in wanted]
    require_columns(table, found)
    words.class_names.update(table.class_names)
    labels_of, multi_label = _reader_of_labels(table, found, wanted, words)
    patients, splits = (_column_of(name, table, found) for name in ("patient", "split"))
    cells = {name: _GroupColumn(table, name) for name in ("site", *_further_columns(table, [*found, patients, splits]))}
    grouping = [name for name in cells if name != "site" and cells[name].divides]
    labelled: list[tuple[int, dict, Row]] = []
    unlabelled: list[tuple[int, dict, Row]] = []
    nobody: Counter[str] = Counter()
    for place, entry in enumerate(table.entries):
        where = f"{path}, entry {place + 1}"
        split, patient = (cell_text(entry.get(name)) for name in (splits, patients))
        row = Row("", (), "", known_patient(patient), cells["site"].values[place])
        if SPLIT_WORDS.get(key_of(split)) == UNLABELLED:
            unlabelled.append((place + 1, entry, replace(row, split=UNLABELLED)))
        elif options.unlabelled == REST and _is_empty(entry, found, words):
            unlabelled.append((place + 1, entry, row))
        elif (labels := labels_of(entry, where)) is not None:
            nobody[patient] += not known_patient(patient)
            groups = tuple((name, cells[name].values[place]) for name in grouping)
            row = replace(row, labels=labels, split=_split_of(split, where), groups=groups)
            labelled.append((place + 1, entry, row))
    if not labelled:
        raise InputError(
            f"{path} lists {counted(len(table.entries), 'image')}, none with a label in {', '.join(wanted)}."
        )
    notes = [*table.notes, *_notes_on_labels(table, found, labelled, len(unlabelled))]
    notes += _notes_on_columns(table, patients, splits)
    if named := [word for word, count in nobody.items() if word and count]:
        count = sum(nobody[word] for word in named)
        notes.append(f"{', '.join(named)} as patient in {path.name} stands for none ({counted(count, 'image')})")
    notes += [cells[name].note for name in ("site", *grouping) if cells[name].note]
    with_split = sum(bool(row.split) for _, _, row in labelled)
    if 0 < with_split < len(labelled):
        raise InputError(
            f"{path}: {len(labelled) - with_split} of {len(labelled)} images have no split; give all or none."
        )
    names = tuple(wanted) if len(found) > 1 else table.class_names
    return Labelled(labelled, unlabelled, _distinct(map(words.name, names)), multi_label, tuple(notes))


def refuse_contradiction(what: str, first: tuple[int, Row], second: tuple[int, Row]) -> None:
    """Raises :class:`InputError` when two entries about one thing differ."""
    (one, before), (two, after) = first, second
    for field, name in (("labels", "labels"), ("split", "splits"), ("patient", "patients"), ("site", "sites")):
        a, b = getattr(before, field), getattr(after, field)
        if a != b and not (field == "patient" and key_of(a) == key_of(b)):
            a, b = ("|".join(a), "|".join(b)) if field == "labels" else (a, b)
            raise InputError(
                f"{what}, with different {name} ({a or 'none'} in entry {one}, {b or 'none'} in entry {two}); keep one "
                "entry, with several labels joined as a|b where an image has several."
            )


def _column_of(wanted: str, table: Table, labels: Sequence[str]) -> str:
    """The column "patient" or "split", or, where there is none, the one with another name for it."""
    if wanted in table.columns:
        return wanted
    meant = other_names(wanted, table.columns) if wanted != "split" else _columns_of_splits(table)
    meant = [name for name in meant if name not in labels]
    if len(meant) > 1:
        raise InputError(
            f"{table.path} has no column {wanted}, but several that may be meant: {', '.join(meant)}; rename the right "
            f"one to {wanted}."
        )
    return meant[0] if meant else wanted


def _columns_of_splits(table: Table) -> list[str]:
    """The columns that divide the images, recognised by two of three signs.

    The signs are two different splits, no other words, and a name that others use for a split.
    """
    meant = []
    for name in table.columns:
        words = words_in(table, name)
        splits = {SPLIT_WORDS[word] for word in words & set(SPLIT_WORDS)}
        signs = (
            len(splits) > 1,
            bool(splits) and words <= set(SPLIT_WORDS),
            "split" in bare(name) or name in other_names("split", [name]),
        )
        if sum(signs) > 1:
            meant.append(name)
    return meant


def _further_columns(table: Table, used: Sequence[str]) -> list[str]:
    """The columns that may sort images into groups."""
    names = [
        name for name in table.columns if key_of(name) not in RESERVED_COLUMNS and name not in used and name.strip()
    ]
    return [name for name in names if len({str(entry.get(name)) for entry in table.entries}) <= 10 * MAX_GROUPS]


class _GroupColumn:
    """The words of a column that groups images: "" for an unknown one, and one spelling of each."""

    def __init__(self, table: Table, name: str) -> None:
        given = [entry.get(name) for entry in table.entries]
        self._plain = not any(isinstance(value, list | dict | float) for value in given)
        texts = [cell_text(value) for value in given]
        named = {text: (known if name == "site" else known_group)(text) for text in set(texts)}
        words = [named[text] for text in texts]
        joined = one_spelling(filter(None, words))
        self.values = [joined.get(word, word) for word in words]
        self.note = (
            f"spellings of one {name} in {table.path.name} are joined: {first_few(sorted(joined))}" if joined else ""
        )

    @property
    def divides(self) -> bool:
        """Whether they are two to ``MAX_GROUPS`` words or whole numbers, such as sex, and not one value per image."""
        distinct = set(self.values) - {""}
        return self._plain and 2 <= len(distinct) <= MAX_GROUPS and 2 * len(distinct) <= len(self.values)


# ---------------------------------------------------------------------------------------------------------------- cells


def _reader_of_labels(
    table: Table, columns: list[str], wanted: list[str], words: LabelWords
) -> tuple[Callable[[dict, str], tuple[str, ...] | None], bool]:
    """(function of an entry and its place in words that gives its labels or None, whether there may be several)."""
    if len(columns) > 1:
        names = [words.name(name) for name in wanted]

        def of_flags(entry: dict, where: str) -> tuple[str, ...] | None:
            if entry.get(columns[0]) is None:
                return None
            flags = zip(columns, names, strict=True)
            return _distinct(name for column, name in flags if _as_flag(entry.get(column), name, where))

        return of_flags, True
    column = columns[0]
    multi_label = any(_is_multi(entry.get(column)) for entry in table.entries)

    def of_words(entry: dict, where: str) -> tuple[str, ...] | None:
        value = entry.get(column)
        if value is None:
            return None
        names = _distinct(words.name_in_cell(part) for part in _parts_of(value, multi_label, table, where))
        return names if names or isinstance(value, list) else None  # none of the classes only a list can say

    return of_words, multi_label


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, names)))


def _is_multi(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and "|" in value)


def _parts_of(value: object, multi_label: bool, table: Table, where: str) -> list[str]:
    """The words of a cell, or the names of the flags that are set in it; the table may declare names for numbers."""
    if isinstance(value, list) and value and all(isinstance(item, (int, float)) for item in value):
        # a 0/1 list needs names for its places
        names = table.class_names or tuple(str(place) for place in range(len(value)))
        if len(value) == 1 and len(table.class_names) != 1:
            raise InputError(
                f"{where}: the label {value} may be the number of a class or the flag of one; write {value[0]} for the "
                'number, or give flags of all classes and their names under "labels".'
            )
        if len(value) != len(names):
            raise InputError(f"{where}: {len(value)} label flags for {len(names)} classes ({', '.join(names)}).")
        return [name for name, flag in zip(names, value, strict=True) if _as_flag(flag, name, where)]
    if isinstance(value, list):
        return [word_of(item, where) for item in value]
    text = word_of(value, where)
    if type(value) is int or text not in table.class_names:  # names may be numbers themselves
        text = table.numbers.get(text, text)
    return [part.strip() for part in text.split("|")] if multi_label else [text]


def _as_flag(value: object, name: str, where: str) -> bool:
    text = key_of(known(cell_text(value)))
    if text in ("1", "true", "yes"):
        return True
    if text in ("0", "false", "no", ""):
        return False
    raise InputError(f"{where}: the label {name} must be 0 or 1, found {value!r}.")


def _is_empty(entry: dict, columns: Sequence[str], words: LabelWords) -> bool:
    """Whether all cells of labels are empty; a list of no classes is a label."""
    values = [entry.get(column) for column in columns]
    return all(not isinstance(value, list) and words.is_empty(cell_text(value)) for value in values)


def _notes_on_labels(
    table: Table, columns: list[str], labelled: Sequence[tuple[int, dict, Row]], unlabelled: int
) -> list[str]:
    notes = []
    if without := len(table.entries) - len(labelled) - unlabelled:
        of = f"without a label in {table.path.name}"
        notes.append(f"{counted(without, f'image {of} was', f'images {of} were')} left out")
    cells = [cell_text(entry.get(column)) for _, entry, _ in labelled for column in columns] if len(columns) > 1 else []
    if empty := sum(not known(cell) for cell in cells):
        notes.append(f"{empty} of {len(cells)} cells of labels in {table.path.name} are empty and count as 0")
    return notes


def _notes_on_columns(table: Table, patients: str, splits: str) -> list[str]:
    """Sentences on the columns that count as patient and split, and on those of folds, which don't."""
    name_of = table.path.name
    notes = [
        f"the column {column} of {name_of} counts as {name}"
        for name, column in (("patient", patients), ("split", splits))
        if column != name
    ]
    if splits not in table.columns:
        folds = [name for name in table.columns if bare(name) in FOLD_COLUMNS]
        notes += [f"the column {name} of {name_of} doesn't divide the images; only a split does" for name in folds]
    return notes


def _split_of(word: str, where: str) -> str:
    word = known(word)
    if word and key_of(word) not in SPLIT_WORDS:
        raise InputError(f"{where}: unknown split {word!r}; use train, val, test or unlabelled.")
    return SPLIT_WORDS.get(key_of(word), "")
