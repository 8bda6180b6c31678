# SPDX-License-Identifier: Apache-2.0
"""Class folders, with or without train / val / test folders above and folders of patients below."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from dual_skd.data.reading.formats import WORKBOOKS, content_of
from dual_skd.data.reading.locators import split_locator
from dual_skd.data.records.image_files import (
    IMAGE_SUFFIXES,
    JUNK_NAMES,
    Entered,
    Found,
    find_image_files,
    holds_run,
    is_image,
    is_junk,
    list_files,
)
from dual_skd.data.records.rows import SPLIT_WORDS, UNLABELLED, Row, Source, first_few
from dual_skd.errors import InputError
from dual_skd.utils.spelling import key_of
from dual_skd.utils.wording import counted


@dataclass
class _OtherFiles:
    """The files of a data set that are none of its images."""

    ignored: list[str] = field(default_factory=list)
    set_aside: dict[str, list[str]] = field(default_factory=dict)  # folder -> its files
    runs: dict[str, list[str]] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    single_slices: list[str] = field(default_factory=list)


def read_class_folders(root: Path, spatial_dims: int) -> Source:
    """Reads ``class/...`` or ``train|val|test/class/...``, with images at any depth below the class folder.

    A folder ``unlabelled`` beside them has images without labels.

    A class has the name of its folder, without spaces at the ends, and with accents in one piece (NFC).

    Raises:
        InputError: there are no images, a class has none, or folders contradict each other or can't name a class.
    """
    others = _OtherFiles()
    folders = _class_folders(root, others)
    without_labels = [folder for folder in folders if _split(folder) == UNLABELLED]
    folders = [folder for folder in folders if folder not in without_labels]
    by_split = _split_folders(root, folders)
    notes = []
    if by_split:
        description = f"{' / '.join(by_split)} folders of class folders in {root}"
        classes = {split: _class_folders(folder, others) for split, folder in by_split.items()}
    else:
        description = f"class folders in {root}"
        by_split, classes = {"": root}, {"": folders}
    doubts = _spaced(root, [folder for members in classes.values() for folder in members])
    entered = Entered([root, *(folder for members in classes.values() for folder in members)])
    rows = [
        row
        for split, parent in by_split.items()
        for row in _rows_of_classes(parent, classes[split], split, spatial_dims, others, entered)
    ]
    unlabelled = [
        row
        for folder in without_labels
        for row in _rows_of_class(folder, find_image_files(folder, spatial_dims, entered), UNLABELLED)
    ]
    unused = [folder for folder in folders if "" not in by_split and not _split(folder)]
    if unused:
        notes.append(f"folders left out, as they name no split: {', '.join(folder.name for folder in unused)}")
        others.outside += [file for folder in unused for file in list_files(folder)[0]]
    set_aside = [file for files in (*others.set_aside.values(), *others.runs.values()) for file in files]
    return Source(
        root=root,
        description=description,
        rows=tuple(rows),
        notes=(*notes, *doubts, *_notes(others, root)),
        doubts=tuple(doubts),
        ignored=tuple(others.ignored + set_aside + others.outside + others.single_slices),
        unlabelled=tuple(replace(row, labels=()) for row in unlabelled),
    )


def _split_folders(root: Path, folders: list[Path]) -> dict[str, Path]:
    """Split -> its folder; empty where no folder is named after a split.

    Raises:
        InputError: two folders stand for one split, or there is none for training.
    """
    by_split: dict[str, Path] = {}
    for folder in filter(_split, folders):
        other = by_split.setdefault(_split(folder), folder)
        if other is not folder:
            raise InputError(
                f"{root} has two folders for the {_split(folder)} split, {other.name} and {folder.name}; keep one of "
                "them."
            )
    if by_split and "train" not in by_split:
        first = next(iter(by_split.values()))
        raise InputError(f"{root} has a folder {first.name} but no train folder; add one or give a data list.")
    return by_split


def ignored_note(files: list[str], root: Path) -> list[str]:
    """At most one sentence, about the files that are no images."""
    if not files:
        return []
    names = sorted(os.path.relpath(file, root) for file in files)
    subject = counted(len(files), "file that is no image was", "files that are no images were")
    return [f"{subject} left out, for example {first_few(names)}"]


def workbook_note(files: list[str], root: Path) -> list[str]:
    """At most one sentence, about workbooks beside the class folders: they may have been meant as the table."""
    names = [Path(file).name for file in files if Path(file).parent == root and content_of(Path(file)) in WORKBOOKS]
    if not names:
        return []
    return [f"the labels are the names of the folders; for those of {first_few(names)}, save the sheet as datalist.csv"]


def single_slice_note(files: list[str]) -> list[str]:
    """At most one sentence, about DICOM files that are no volume."""
    if not files:
        return []
    return [f"{counted(len(files), 'DICOM file was', 'DICOM files were')} left out, as a single slice is no volume"]


def _notes(others: _OtherFiles, root: Path) -> list[str]:
    notes = [*ignored_note(others.ignored, root), *workbook_note(others.ignored, root)]
    reasons = {"their names begin with _ or a dot": others.set_aside, "they hold a training run": others.runs}
    for reason, left_out in reasons.items():
        if left_out:
            folders = ", ".join(os.path.relpath(folder, root) for folder in left_out)
            notes.append(f"folders left out, as {reason}: {folders}")
    if others.outside:
        names = sorted(os.path.relpath(file, root) for file in others.outside)
        subject = counted(len(names), "image outside the class folders was", "images outside the class folders were")
        notes.append(f"{subject} left out, for example {first_few(names)}")
    return notes + single_slice_note(others.single_slices)


def _split(folder: Path) -> str:
    return SPLIT_WORDS.get(key_of(folder.name), "")


def _class_of(folder: Path) -> str:
    return unicodedata.normalize("NFC", folder.name.strip())


def _spaced(root: Path, folders: Iterable[Path]) -> list[str]:
    """At most one sentence, about class folders with a space at an end of their names.

    Raises:
        InputError: names hold a |.
    """
    names = {os.path.relpath(folder, root): folder for folder in folders}
    if barred := [repr(name) for name, folder in names.items() if "|" in folder.name]:
        raise InputError(
            f"The class folders {', '.join(barred)} in {root} have a | in their names, which stands for several "
            "labels; rename them."
        )
    spaced = [repr(name) for name, folder in names.items() if folder.name != folder.name.strip()]
    if not spaced:
        return []
    return [f"class folders with a space at an end of their names count as if they had none: {', '.join(spaced)}"]


def _class_folders(parent: Path, others: _OtherFiles) -> list[Path]:
    """The folders inside a folder; loose files and hidden folders are counted as left out."""
    folders = []
    for entry in sorted(parent.iterdir()):
        if not entry.is_dir():
            (others.outside if is_image(entry) else others.ignored).append(str(entry))
        elif is_junk(entry.name) or entry.name.startswith("_"):
            files = list_files(entry, junk=True)[1]
            if entry.name.lower() not in JUNK_NAMES and any(file.lower().endswith(IMAGE_SUFFIXES) for file in files):
                others.set_aside[str(entry)] = files
            else:
                others.ignored += files
        elif holds_run(entry):
            others.runs[str(entry)] = list_files(entry, junk=True)[1]
        else:
            folders.append(entry)
    return folders


def _rows_of_classes(
    parent: Path, classes: list[Path], split: str, spatial_dims: int, others: _OtherFiles, entered: Entered
) -> list[Row]:
    _refuse_one_in_another(classes)
    rows: list[Row] = []
    empty: list[str] = []
    for folder in classes:
        found = find_image_files(folder, spatial_dims, entered)
        others.ignored += found.others
        others.single_slices += found.single_slices
        if not found.images:
            empty.append(folder.name)
        rows += _rows_of_class(folder, found, split)
    if not rows:
        raise InputError(_why_nothing(parent, classes, others))
    if empty and split in ("", "train"):
        raise InputError(
            f"Class folders without images in {parent}: {', '.join(empty)}; add images there or remove the folders."
        )
    return rows


def _refuse_one_in_another(classes: list[Path]) -> None:
    """Raises InputError where a class folder is a link to another one, or to a folder above or in it."""
    real = {folder: folder.resolve() for folder in classes}
    for link in filter(Path.is_symlink, classes):
        for other in classes:
            shared = real[other].is_relative_to(real[link]) or real[link].is_relative_to(real[other])
            if other is not link and shared:
                raise InputError(
                    f"The class folder {link} is a link to {real[link]}, so images would be of the class {other.name} "
                    "as well; remove the link."
                )


def _rows_of_class(folder: Path, found: Found, split: str) -> list[Row]:
    below = [_below(folder, image.image) for image in found.images]
    firsts = {parts[0] for parts in below if len(parts) > 1}
    if firsts and all(key_of(name) in SPLIT_WORDS for name in firsts):
        name = min(firsts)
        raise InputError(
            f"The split folders lie inside the class folder {folder} ({', '.join(sorted(firsts))}); expected the class "
            f"folders inside the split folders: {name}/{folder.name} instead of {folder.name}/{name}."
        )
    return [
        Row(image.image, (_class_of(folder),), split, folder=parts[0] if len(parts) > 1 else "", header=image.patient)
        for image, parts in zip(found.images, below, strict=True)
    ]


def _below(folder: Path, image: str) -> list[str]:
    """Names on the way from a class folder to an image; one of several series in a folder lies below that folder."""
    path, fragment = split_locator(image)
    return [*str(path)[len(str(folder)) + 1 :].split(os.sep), *([fragment] if fragment else [])]


def _why_nothing(parent: Path, classes: list[Path], others: _OtherFiles) -> str:
    if others.single_slices:
        return (
            f"No volumes found in {parent}, only {len(others.single_slices)} single DICOM slices; expected series of "
            "two or more slices for spatial_dims 3, --spatial-dims 2 is for single images."
        )
    files = [entry for entry in sorted(parent.iterdir()) if entry.is_file()]
    sets = [file for file in files if file.suffix.lower() in (".npz", ".csv", ".json")]
    sheets = [file for file in files if content_of(file) in WORKBOOKS]
    remedy = f"; give a file such as {sets[0]} itself if it is the data set" if sets else ""
    if sheets and not sets:
        remedy = f"; if {sheets[0].name} is the table of the images, save its sheet as CSV UTF-8 and give that"
    found = f"{counted(len(classes), 'folder')} without images" if classes else "no class folders"
    return (
        f"No images found in {parent}: expected one folder per class or a data list, found {found}; image files end "
        f"with {' '.join(IMAGE_SUFFIXES)}{remedy}."
    )
