# SPDX-License-Identifier: Apache-2.0
"""The classes of a data set: missing labels, the class map, their order, and labels that can't be classes."""

from __future__ import annotations

import difflib
import math
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dual_skd.data.records.image_files import IMAGE_SUFFIXES
from dual_skd.data.records.record import Record
from dual_skd.data.records.rows import Row, Source, first_few
from dual_skd.errors import InputError
from dual_skd.utils.spelling import bare, is_empty_cell, is_missing, key_of, spellings_of_one

MIN_CLASSES_TO_DOUBT = 10  # fewer may have one patient each, as in tiny sets
IMAGES_PER_NUMBER = 10  # that a class should have whose name is a number
MAX_NUMBERS = 20  # classes that may be numbers, such as scores in half steps
MAX_LISTED = 20  # labels that a sentence lists
PLACEHOLDER = "..."  # in an offered class map, where the user has to say which class is meant
FILE_SUFFIXES = (*IMAGE_SUFFIXES, ".nrrd", ".mha", ".mhd", ".npz", ".gif", ".svg", ".txt", ".json", ".xml")


class LabelWords:
    """The classes that the words of a data set stand for; it keeps the words that it has met.

    A word stands for the class that the class map gives it, else for itself. A cell of a table has no label where it
    is empty or holds what Excel and pandas write for an empty one (``#N/A``, ``NaN``, ``None`` ...), unless the map or
    the class names have that word.

    Args:
        class_map: word in the data -> class name, "" for no label, in any spelling
            (:func:`dual_skd.utils.spelling.key_of`).
        class_names: classes that are known before anything is read.
        given: whether the user gave the map for these data; notes tell of such a map alone.

    Raises:
        InputError: the map is none, or gives one word two classes.
    """

    def __init__(
        self, class_map: Mapping[Any, Any] | None = None, class_names: Iterable[str] = (), *, given: bool = True
    ) -> None:
        self.class_map = _as_text(class_map)
        self.given = given
        self.class_names = set(class_names)
        self.seen: Counter[str] = Counter()
        self._name_of: dict[str, str] = {}
        for word, name in self.class_map.items():
            if self._name_of.setdefault(key_of(word), name) != name:
                raise InputError(
                    f"class_map gives {word!r} two classes, {self._name_of[key_of(word)]!r} and {name!r}, as spellings "
                    "that look the same are one word; keep one of them."
                )

    def name(self, word: str) -> str:
        """The class that a word stands for, "" for none."""
        self.seen[word] += 1
        return self._name_of.get(key_of(word), word)

    def name_in_cell(self, word: str) -> str:
        """The class that a cell of a table stands for, "" for none."""
        return "" if self.is_empty(word) else self.name(word)

    def is_empty(self, word: str) -> bool:
        """Whether a cell of a table holds no label, in words that no class has."""
        return is_empty_cell(word) and key_of(word) not in self._name_of and word not in self.class_names

    @property
    def used(self) -> dict[str, str]:
        """The entries of the map that the data set has words for."""
        seen = {key_of(word) for word in self.seen}
        return {word: name for word, name in self.class_map.items() if key_of(word) in seen}

    def notes(self, what: str) -> list[str]:
        """Sentences on the map, which name the data set ``what``.

        Raises:
            InputError: a word of the map that no label has is nearly one that the map doesn't name.
        """
        if not self.given:
            return []
        notes = []
        unused = [word for word in self.class_map if word not in self.used]
        left = [word for word in self.seen if key_of(word) not in self._name_of]
        for word in unused:
            like = [other for other in left if other[:1] == word[:1] and _numbering(other) == _numbering(word)]
            near = difflib.get_close_matches(word, like, n=1, cutoff=0.75)
            if near:
                raise InputError(
                    f"class_map names {word!r}, which no label of {what} is, but {near[0]!r} is one; correct the word."
                )
        if unused:
            notes.append(f"no label of {what} is {' or '.join(map(repr, unused))}, which --class-map names")
        if used := self.used:
            meant = (f"{word!r} is {name or 'no label'}" for word, name in used.items())
            notes.append(f"by --class-map {', '.join(meant)}")
        return notes

    def doubts(self, what: str) -> list[str]:
        """A sentence on words that count as classes and may stand for a missing label, or none."""
        words = [word for word in self.seen if key_of(word) not in self._name_of and word not in self.class_names]
        doubtful = sorted(filter(is_missing, words))
        if not doubtful:
            return []
        return [
            f"{', '.join(map(repr, doubtful))} in {what} counts as a class; if it means that the label is missing, "
            f"leave its images out with {as_option(dict.fromkeys(doubtful, ''))}"
        ]


def word_of(label: object, where: str) -> str:
    """A label of a data list as the word that names its class, "" for none (null and NaN, as pandas writes it).

    Args:
        label: a cell of a table, or a value of a JSON file.
        where: the file and the entry, for the message.

    Raises:
        InputError: it is neither a text, true or false, nor a number from 0.
    """
    if label is None or label != label:
        return ""
    if isinstance(label, str | bool) or (isinstance(label, int | float) and 0 <= label < math.inf):
        return str(label).strip()
    raise InputError(
        f"{where}: {label!r} can't be a label; expected the name of a class, in quotes if it looks like something "
        "else, or a number from 0."
    )


def _numbering(word: str) -> list[str]:
    """What tells one class from the next in a word: numbers (1, 2a), Roman ones and single letters (type B)."""
    return re.findall(r"[0-9]+[a-z]*|\b[ivx]+\b|\b[a-z]\b", key_of(word))


def _as_text(given: Mapping[Any, Any] | None) -> dict[str, str]:
    """A class map whose words and names are text."""
    given = given or {}
    if not all(isinstance(word, str | int | float) and "|" not in str(word) for word in [*given, *given.values()]):
        raise InputError(
            f"class_map is {given!r}; expected labels as they stand in the data with their class names, such as "
            f"{as_option({'1': 'abnormal', '0': 'normal'})}."
        )
    class_map = {str(word): str(name).strip() for word, name in given.items()}
    if unwritten := [word for word, name in class_map.items() if name == PLACEHOLDER]:
        raise InputError(
            f"class_map has {PLACEHOLDER} for {', '.join(map(repr, unwritten))}, where a class name is still to be "
            "written, or '' for no label."
        )
    return class_map


def as_option(class_map: Mapping[str, str]) -> str:
    """A class map as an option that can be pasted into a command line."""
    text = repr(dict(class_map))
    return f'--class-map "{text}"' if not set(text) & set('"$`!') else f"--class-map {shlex.quote(text)}"


def map_offered(unknown: Iterable[str], names: Sequence[str], given: Mapping[str, str] | None = None) -> str:
    """A class map to paste for labels that are no class names: the name that is the same word, or "...".

    A word that is only near is not offered: hypertension is near to hypotension. Where there are as many numbers as
    names, the names are offered in order. The offer keeps the map that the user gave.
    """
    unknown, given = sorted(unknown)[:MAX_LISTED], dict(given or {})
    if _numbers_for_words(unknown, names) and len(unknown) == len(names) and not given:
        unknown = sorted(unknown, key=lambda word: -int(key_of(word)))
        return as_option(dict(zip(unknown, names, strict=True)))
    meant = {bare(name): name for name in names}
    return as_option(given | {word: meant.get(bare(word), PLACEHOLDER) for word in unknown})


def _numbers_for_words(labels: Iterable[str], names: Iterable[str]) -> bool:
    return all(key_of(label).isdecimal() for label in labels) and not any(key_of(name).isdecimal() for name in names)


def refuse_unknown(source: Source, names: Sequence[str], given: Mapping[str, str] | None = None) -> None:
    """Raises :class:`InputError` for labels of a source that are none of the names of a model's classes."""
    found = {label for row in source.rows for label in row.labels}
    _refuse_file_names(found, source)
    unknown = sorted(found - set(names))
    if not unknown:
        return
    offer = map_offered(unknown, names, given)
    if _numbers_for_words(unknown, names):
        raise InputError(
            f"{source.description} has numbers as labels ({_listed(unknown)}), and this model's classes have names "
            f"({', '.join(names)}). Which number is which only you know; say it, with the right names: "
            f"{offer}."
        )
    raise InputError(
        f"{source.description} has labels that this model doesn't know: {_listed(unknown)}; it was trained on "
        f"{', '.join(names)}. Say which class each is, '' for none: {offer}."
    )


# ---------------------------------------------------------------------------------------------------- classes, in order


def class_names_of(source: Source, given: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the classes, in label order: those given, else those that the source declares, else sorted.

    Raises:
        InputError: names and labels don't agree, there is one class only, two differ only in spelling, or all are names
            of files.
    """
    found = {label for row in source.rows for label in row.labels}
    _refuse_file_names(found, source)
    ordered = in_order(found)
    names = tuple(str(name) for name in given) if given else source.class_names or tuple(ordered)
    if len(set(names)) < len(names):
        raise InputError(f"Class names must differ, found {', '.join(names)}.")
    if spellings := spellings_of_one(ordered):
        plainest = min(spellings, key=lambda word: (not word.isascii(), word))
        raise InputError(
            f"{source.description} has labels that differ only in capital letters, spaces, dashes or characters that "
            "can't be seen, or in how a number is written or an accent is stored: "
            f"{' and '.join(map(as_code, spellings))}; give all images of a class the same one, or join them with "
            f"{as_option({plainest: plainest})}."
        )
    if source.multi_label and (joined := [name for name in names if "|" in name]):
        raise InputError(f'No label may hold "|", which joins those of an image; found {joined[0]}: rename the column.')
    unknown = sorted(found - set(names))
    if unknown:
        raise InputError(
            f"{source.description} has labels that are none of the classes: {_listed(unknown)}; expected "
            f"{', '.join(names)}. Correct the labels or class_names, or give {map_offered(unknown, names)}."
        )
    if len(found) == 1 and not source.multi_label and not given:
        without = next(
            (f" ({note})" for note in source.notes if "without a label" in note or "give its path" in note), ""
        )
        raise InputError(
            f"{source.description} has one class only ({ordered[0]}){without}; a classifier needs at least two: give "
            "the folder above the class folders, or a table with two or more labels."
        )
    absent = [name for name in names if name not in found]
    if absent and not given:
        raise InputError(f"{source.description} has no images of {', '.join(absent)}; add some or change class_names.")
    return names


def as_code(word: str) -> str:
    """A word in quotes, with its characters outside ASCII as numbers where they look like others."""
    return repr(word) if word.isascii() or not key_of(word).isascii() else ascii(word)


def with_places_named(source: Source, names: Sequence[str]) -> Source:
    """The source with class names in place of numbers, counted from 0; as it is where any name is a number."""
    if any(key_of(name).isdecimal() for name in names):
        return source
    places = {str(place): name for place, name in enumerate(names)}

    def named(label: str) -> str:
        return places.get(key_of(label), label)

    return replace(source, rows=tuple(replace(row, labels=tuple(map(named, row.labels))) for row in source.rows))


def in_order(names: Iterable[str]) -> list[str]:
    """Class names in order: numbers by their value, else by letters."""
    names = sorted(names)
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def record_of(row: Row, names: Sequence[str], source: Source) -> Record:
    """The record of a row, with its label as a place in the names, or as flags for all of them."""
    labels = row.labels
    label = [float(name in labels) for name in names] if source.multi_label else names.index(labels[0])
    return Record(row.image, label, row.patient, row.site, row.groups)


# ------------------------------------------------------------------------------------------------ what can't be a class


def refuse_no_classes(rows: Sequence[Row], source: Source, given: Sequence[str] | None = None) -> None:
    """Raises :class:`InputError` for labels that can't be classes.

    These are names of files; more than 20 decimal numbers; and of ten or more labels, numbers with less than two
    patients each on the average (an image of an unknown patient counts as one), words with less than two images each,
    and words that are the ids of the patients. Classes that the source or the user declares are taken, unless they are
    files.

    Args:
        rows: of the source, with their patients.
        source: it may declare classes.
        given: the classes that the user names.
    """
    _refuse_file_names({label for row in rows for label in row.labels}, source)
    patients = {} if source.multi_label or source.class_names or given else _patients_of(rows)
    if not patients:
        return
    labels = in_order(patients)
    units = sum(map(len, patients.values()))
    scarce = len(labels) >= MIN_CLASSES_TO_DOUBT and units < 2 * len(labels)
    numbers = [_number(label) for label in labels]
    if None in numbers:
        their_own = all({key_of(label)} == set(map(key_of, of)) for label, of in patients.items())
        if scarce and (their_own or len(rows) < 2 * len(labels)):
            raise InputError(
                f"{source.description}: the labels look like names of single images or patients ({first_few(labels)} "
                f"...): {len(labels)} different ones for {units} patients or images; name another --label-column, give "
                "images of a class the same label, or list the classes in class_names if they are ones."
            )
        return
    decimals = any(number != int(number) for number in numbers if number is not None)
    if scarce or (decimals and len(labels) > MAX_NUMBERS):
        values = sorted(number for number in numbers if number is not None)
        raise InputError(
            f"{source.description}: the labels look like a measurement or a count, with {len(labels)} values from "
            f"{values[0]:g} to {values[-1]:g} for {units} patients or images; this is a classifier: make classes of "
            "them, such as 0 and 1 by a threshold, or name another --label-column."
        )


def _patients_of(rows: Sequence[Row]) -> dict[str, set[str]]:
    """Label -> its patients; an image of an unknown patient counts as one."""
    patients: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        patients[row.labels[0]].add(row.patient or f"image {row.image}")
    return patients


def doubtful_words(rows: Sequence[Row], source: Source) -> list[str]:
    """A sentence for ten or more labels that have about one patient each, which a model can't tell from the class."""
    patients = {} if source.multi_label else _patients_of(rows)
    units = sum(map(len, patients.values()))
    if len(patients) < MIN_CLASSES_TO_DOUBT or units >= 2 * len(patients) or len(rows) < 2 * len(patients):
        return []
    return [
        f"the {len(patients)} classes ({first_few(in_order(patients))} ...) have {units} patients in all, so a model "
        "may learn the patient for the class; if they are no classes but names of patients, give another --label-column"
    ]


def _refuse_file_names(labels: Iterable[str], source: Source) -> None:
    """Raises :class:`InputError` for labels that are names of files, all of them."""
    labels = sorted(labels)
    if labels and all(label.lower().endswith(FILE_SUFFIXES) for label in labels):
        raise InputError(
            f"{source.description}: the labels are names of files, such as {labels[0]}, as masks for segmentation have "
            "them; this is a classifier of whole images: name another --label-column."
        )


def _listed(words: Sequence[str]) -> str:
    return (
        f"{first_few(words, MAX_LISTED)} and {len(words) - MAX_LISTED} more"
        if len(words) > MAX_LISTED
        else ", ".join(words)
    )


def doubtful_numbers(rows: Sequence[Row], source: Source) -> list[str]:
    """A sentence for many whole numbers with few images each, which may be classes or a measurement; else nothing."""
    counts = Counter(label for row in rows for label in row.labels)
    if source.multi_label or len(counts) <= MAX_NUMBERS or any(_number(label) is None for label in counts):
        return []
    if len(rows) >= IMAGES_PER_NUMBER * len(counts):
        return []
    return [
        f"the labels are {len(counts)} different numbers, with {len(rows) / len(counts):.0f} images each on the "
        "average; if they measure something, such as an age, make classes of them by thresholds"
    ]


def _number(label: str) -> float | None:
    label = key_of(label)
    return float(label.replace(",", ".")) if re.fullmatch(r"[-+]?[0-9]+([.,][0-9]+)?", label) else None
