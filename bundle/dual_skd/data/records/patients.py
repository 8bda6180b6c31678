# SPDX-License-Identifier: Apache-2.0
"""The patient of each image: from the source, a pattern, the DICOM header or the folder; none in two splits."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dual_skd.data.reading.locators import split_locator
from dual_skd.data.records.image_files import is_dicom, is_junk
from dual_skd.data.records.rows import Row, Source, first_few
from dual_skd.errors import InputError
from dual_skd.utils.spelling import known_patient, one_spelling
from dual_skd.utils.wording import counted

if TYPE_CHECKING:
    from dual_skd.data.records.dicom_ids import Ids
    from dual_skd.data.records.record import Record


_R = TypeVar("_R", "Row", "Record")

MIN_IMAGES_FOR_SHARE = 10  # images of which a third says something


def rows_with_patients(source: Source, pattern: str | None = None) -> tuple[list[Row], list[str]]:
    """Fills in the patients of the rows, sorted by image.

    A patient that the source states stays. The others come from ``pattern``; without one from the PatientID of a DICOM
    file, unless all files have the same; else from the folder inside the class folder, if any class has several; else
    from the study of a DICOM file. An empty pattern turns all of this off.

    A word for an unknown patient, such as NA or ANONYMOUS, counts as none. Spellings of one patient become the
    commonest of them, and the row keeps its own in ``written``.

    Args:
        source: of the rows.
        pattern: regular expression with one group, for the path relative to the source's root.

    Returns:
        (rows, notes that say where the patients come from).

    Raises:
        InputError: the pattern can't be used, or matches nothing.
    """
    rows = sorted(source.rows, key=lambda row: row.image)
    notes: list[str] = []
    if pattern is None:
        unread = [n for n, row in enumerate(rows) if not row.patient and row.header is None and is_dicom(row.image)]
        known = ids_of(rows, unread)
        rows, notes = _by_header(rows, known)
        rows, notes = _by_folder(rows, notes)
        rows, notes = _by_study(rows, notes, known)
    elif pattern and not any(row.patient for row in rows):
        rows, notes = _by_pattern(rows, source.root, pattern)
    return _in_one_spelling(rows, notes)


def refuse_shared_patients(rows: Iterable[Row], what: str) -> None:
    """Raises :class:`InputError` when two splits have images of one patient.

    Args:
        rows: with their splits, and patients in one spelling each.
        what: where they come from, for the error.
    """
    spellings: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        if row.patient:
            spellings.setdefault(row.split, {}).setdefault(row.patient, set()).add(row.written or row.patient)
    for first, second in (("train", "test"), ("train", "val"), ("val", "test")):
        one, other = spellings.get(first, {}), spellings.get(second, {})
        shared = [" = ".join(sorted(one[name] | other[name])) for name in sorted(one.keys() & other.keys())]
        if shared:
            raise InputError(
                f"{what}: {counted(len(shared), 'patient has', 'patients have')} images in both {first} and {second} "
                f"(for example {first_few(shared)}); move each patient to one split or leave the split out; if these "
                'are no patients, say with --patient-pattern where in the path the patient stands ("" for nowhere).'
            )


def large_patients(rows: Sequence[Row]) -> list[str]:
    """A sentence on a patient with more than a third of the images, which no division can part; else nothing."""
    counts = Counter(row.patient for row in rows if row.patient)
    name, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if len(rows) < MIN_IMAGES_FOR_SHARE or 3 * count <= len(rows):
        return []
    return [
        f"{count} of {len(rows)} images are of one patient ({name}) and stay together; if that is nobody's id, empty "
        "the cells or correct --patient-pattern"
    ]


def _by_pattern(rows: list[Row], root: Path, pattern: str) -> tuple[list[Row], list[str]]:
    found = with_pattern(rows, root, pattern)
    patients = [row.patient for row in found if row.patient]
    if not patients:
        name = os.path.relpath(rows[0].image, root)
        raise InputError(f"patient_pattern {pattern!r} matches no image, for example not {name}.")
    return found, [
        f"the pattern finds a patient in {len(patients)} of {len(found)} images ({len(set(patients))} patients)"
    ]


def with_pattern(rows: Sequence[_R], root: Path, pattern: str) -> list[_R]:
    """The rows with the patients that a pattern finds, none where it doesn't match.

    Args:
        rows: or records, without patients.
        root: folder that the pattern's paths begin in.
        pattern: regular expression with one group.

    Raises:
        InputError: it isn't one.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"patient_pattern {pattern!r} is not a regular expression: {error}.") from error
    if expression.groups != 1:
        raise InputError(
            f"patient_pattern {pattern!r} needs one group in parentheses, around the patient's id, and has "
            f"{expression.groups}; others are written (?:...)."
        )
    found = []
    for row in rows:
        match = expression.search(os.path.relpath(row.image, root))
        found.append(replace(row, patient=known_patient(match.group(1) or "") if match else ""))
    return found


def _in_one_spelling(rows: list[Row], notes: list[str]) -> tuple[list[Row], list[str]]:
    # frames of one file have its path as their patient
    joined = one_spelling(row.patient for row in rows if row.patient and not os.path.isabs(row.patient))
    for place, row in enumerate(rows):
        if joined.get(row.patient, row.patient) != row.patient:
            rows[place] = replace(row, patient=joined[row.patient], written=row.patient)
    if joined:
        people = sorted(set(joined.values()))
        example = " = ".join(sorted(word for word in joined if joined[word] == people[0]))
        notes = [*notes, f"{len(people)} patients are written in several ways and count as one each, such as {example}"]
    without = sum(not row.patient for row in rows)
    if 0 < without < len(rows):
        notes = [*notes, f"{without} of {len(rows)} images have no patient: each counts as one of its own"]
    return rows, notes


def _by_header(rows: list[Row], known: Mapping[int, Ids]) -> tuple[list[Row], list[str]]:
    for place, ids in known.items():
        rows[place] = replace(rows[place], header=ids.patient)
    headers = [row.header for row in rows if row.header and not row.patient]
    if not headers:
        return rows, []
    if len(set(headers)) == 1 and len(headers) > 1 and not any(row.patient for row in rows):
        return rows, [f"all DICOM headers have the PatientID {headers[0]!r}, so it names no patients"]
    nobody = Counter(header for header in headers if not known_patient(header))
    notes = [f"the PatientID {word!r} of {count} DICOM headers stands for none" for word, count in nobody.items()]
    patients = set(headers) - set(nobody)
    if not patients:
        return rows, notes
    rows = [row if row.patient else replace(row, patient=known_patient(row.header or "")) for row in rows]
    return rows, [*notes, f"patients are the PatientIDs of the DICOM headers ({len(patients)})"]


def _by_folder(rows: list[Row], notes: list[str]) -> tuple[list[Row], list[str]]:
    folders: dict[tuple[str, ...], set[str]] = {}
    for row in rows:
        if known_patient(row.folder) and not row.patient:
            folders.setdefault((row.split, *row.labels), set()).add(row.folder)
    if not any(len(names) > 1 for names in folders.values()):
        return rows, notes
    patients = set.union(*folders.values())
    rows = [row if row.patient else replace(row, patient=known_patient(row.folder)) for row in rows]
    return rows, [*notes, f"patients are the folders inside the class folders ({len(patients)})"]


def _by_study(rows: list[Row], notes: list[str], known: Mapping[int, Ids]) -> tuple[list[Row], list[str]]:
    """Keeps together what was made in one examination, where no patients are known, as in anonymised files."""
    unknown = [place for place, row in enumerate(rows) if not row.patient and is_dicom(row.image)]
    found = {**known, **ids_of(rows, [place for place in unknown if place not in known])}
    studies = {place: found[place].study for place in unknown if place in found and found[place].study}
    distinct = set(studies.values())
    if not 1 < len(distinct) < len(studies):  # one for all is a placeholder, and one for each says nothing
        return rows, notes
    rows = list(rows)
    for place, study in studies.items():
        rows[place] = replace(rows[place], patient=study)
    return rows, [*notes, f"images of one StudyInstanceUID stay together, as if of one patient ({len(distinct)})"]


def ids_of(rows: Sequence[Row | Record], places: Sequence[int]) -> dict[int, Ids]:
    """The ids of a DICOM file of each image that has a readable one.

    Args:
        rows: with their images.
        places: which of the rows.
    """
    series_of: dict[int, tuple[str, str]] = {}  # one of several series in a folder
    path_of: dict[int, str] = {}
    for place in places:
        image = rows[place].image
        path, fragment = split_locator(image) if "#" in image else (Path(image), "")
        if not is_dicom(path):
            continue
        if fragment and path.is_dir():
            series_of[place] = (str(path), fragment)
        else:
            path_of[place] = str(path)
    if not series_of and not path_of:
        return {}
    from dual_skd.data.records.dicom_ids import read_ids  # pydicom is only loaded where there is DICOM

    known = _first_ids(sorted(set(path_of.values())))
    found = {place: known[path] for place, path in path_of.items() if path in known}
    inside = [file for folder in sorted({folder for folder, _ in series_of.values()}) for file in _files_in(folder)]
    first: dict[tuple[str, str], Ids] = {}
    for ids in read_ids(inside):
        if not isinstance(ids, InputError):
            first.setdefault((os.path.dirname(ids.path), ids.series), ids)
    return found | {place: first[series] for place, series in series_of.items() if series in first}


def _first_ids(paths: Iterable[str]) -> dict[str, Ids]:
    """The ids of files, and of the first file of each folder that has any: others may lie beside the slices."""
    from dual_skd.data.records.dicom_ids import read_ids

    left = {path: [path] if os.path.isfile(path) else _files_in(path)[::-1] for path in paths}
    found: dict[str, Ids] = {}
    while left := {path: files for path, files in left.items() if files and path not in found}:
        tried = {files.pop(): path for path, files in left.items()}
        found |= {tried[ids.path]: ids for ids in read_ids(tried) if not isinstance(ids, InputError)}
    return found


def _files_in(folder: str | Path) -> list[str]:
    if not os.path.isdir(folder):
        return []
    return [str(file) for file in sorted(Path(folder).iterdir()) if file.is_file() and not is_junk(file.name)]
