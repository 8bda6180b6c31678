# SPDX-License-Identifier: Apache-2.0
"""Reads a folder per class, with or without train / val / test folders above and folders of patients below."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dual_skd.data.reading.formats import WORKBOOKS, content_of
from dual_skd.data.reading.locators import split_locator
from dual_skd.data.records.image_files import (
    IMAGE_SUFFIXES,
    LEFTOVERS,
    Found,
    find_image_files,
    is_image,
    is_junk,
    list_files,
)
from dual_skd.data.records.rows import SPLIT_WORDS, Row, Source, some
from dual_skd.errors import InputError
from dual_skd.utils.spelling import key_of
from dual_skd.utils.wording import counted


@dataclass
class _Tally:
    """What is met on the way and isn't a row."""

    ignored: list[str] = field(default_factory=list)
    set_aside: dict[str, list[str]] = field(default_factory=dict)  # folder -> its files
    outside: list[str] = field(default_factory=list)
    single_slices: list[str] = field(default_factory=list)


def read_class_folders(root: Path, spatial_dims: int) -> Source:
    """Reads ``class/...`` or ``train|val|test/class/...``; images may lie at any depth below the class folder.

    A class is called like its folder, without spaces at the ends, and with accents in one piece (NFC).

    Raises:
        InputError: there are no images, a class has none, or folders contradict each other or can't name a class.
    """
    tally = _Tally()
    folders = _class_folders(root, tally)
    split_folders = [folder for folder in folders if _split(folder)]
    if split_folders:
        by_split: dict[str, Path] = {}
        for folder in split_folders:
            split = _split(folder)
            if split in by_split:
                names = f"{by_split[split].name} and {folder.name}"
                raise InputError(f"{root} has two folders for the {split} split, {names}; keep one of them.")
            by_split[split] = folder
        if "train" not in by_split:
            raise InputError(
                f"{root} has a folder {split_folders[0].name} but no train folder; add one or give a data list."
            )
        classes = {split: _class_folders(folder, tally) for split, folder in by_split.items()}
        doubts = _spaced(root, [folder for folders in classes.values() for folder in folders])
        rows = []
        for split, folder in by_split.items():
            rows += _rows_of_classes(folder, classes[split], split, spatial_dims, tally)
        description = f"{' / '.join(by_split)} folders of class folders in {root}"
    else:
        doubts = _spaced(root, folders)
        rows = _rows_of_classes(root, folders, "", spatial_dims, tally)
        description = f"class folders in {root}"
    notes = []
    unused = [folder for folder in folders if split_folders and not _split(folder)]
    if unused:
        notes.append(f"folders left out, as they name no split: {', '.join(folder.name for folder in unused)}")
        tally.outside += [file for folder in unused for file in list_files(folder)[0]]
    set_aside = [file for files in tally.set_aside.values() for file in files]
    return Source(
        root=root,
        description=description,
        rows=tuple(rows),
        notes=(*notes, *doubts, *_notes(tally, root)),
        doubts=tuple(doubts),
        ignored=tuple(tally.ignored + set_aside + tally.outside + tally.single_slices),
    )


def ignored_note(files: list[str], root: Path) -> list[str]:
    """One sentence about the files that are no images, or none."""
    if not files:
        return []
    names = sorted(os.path.relpath(file, root) for file in files)
    subject = counted(len(files), "file that is no image was", "files that are no images were")
    return [f"{subject} left out, for example {some(names)}"]


def workbook_note(files: list[str], root: Path) -> list[str]:
    """One sentence about the workbooks beside the class folders, which may have been meant as the table, or none."""
    names = [Path(file).name for file in files if Path(file).parent == root and content_of(Path(file)) in WORKBOOKS]
    if not names:
        return []
    return [f"the labels are the names of the folders; for those of {some(names)}, save the sheet as datalist.csv"]


def single_slice_note(files: list[str]) -> list[str]:
    """One sentence about DICOM files that are no volume, or none."""
    return (
        [f"{counted(len(files), 'DICOM file was', 'DICOM files were')} left out, as a single slice is no volume"]
        if files
        else []
    )


def _notes(tally: _Tally, root: Path) -> list[str]:
    notes = [*ignored_note(tally.ignored, root), *workbook_note(tally.ignored, root)]
    if tally.set_aside:
        folders = ", ".join(os.path.relpath(folder, root) for folder in tally.set_aside)
        notes.append(f"folders left out, as their names begin with _ or a dot: {folders}")
    if tally.outside:
        names = sorted(os.path.relpath(file, root) for file in tally.outside)
        subject = counted(len(names), "image outside the class folders was", "images outside the class folders were")
        notes.append(f"{subject} left out, for example {some(names)}")
    return notes + single_slice_note(tally.single_slices)


def _split(folder: Path) -> str:
    return SPLIT_WORDS.get(key_of(folder.name), "")


def _class_of(folder: Path) -> str:
    return unicodedata.normalize("NFC", folder.name.strip())


def _spaced(root: Path, folders: Iterable[Path]) -> list[str]:
    """A sentence on all class folders with spaces at an end of their names, if there are any.

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


def _class_folders(parent: Path, tally: _Tally) -> list[Path]:
    """The folders inside a folder; loose files and hidden folders are counted as left out."""
    folders = []
    for entry in sorted(parent.iterdir()):
        if not entry.is_dir():
            (tally.outside if is_image(entry) else tally.ignored).append(str(entry))
        elif is_junk(entry.name) or entry.name.startswith("_"):
            files = list_files(entry, junk=True)[1]
            if entry.name.lower() not in LEFTOVERS and any(file.lower().endswith(IMAGE_SUFFIXES) for file in files):
                tally.set_aside[str(entry)] = files
            else:
                tally.ignored += files
        else:
            folders.append(entry)
    return folders


def _rows_of_classes(parent: Path, classes: list[Path], split: str, spatial_dims: int, tally: _Tally) -> list[Row]:
    rows: list[Row] = []
    empty: list[str] = []
    for folder in classes:
        found = find_image_files(folder, spatial_dims)
        tally.ignored += found.others
        tally.single_slices += found.single_slices
        if not found.images:
            empty.append(folder.name)
        rows += _rows_of_class(folder, found, split)
    if not rows:
        raise InputError(_why_nothing(parent, classes, tally))
    if empty and split in ("", "train"):
        raise InputError(
            f"Class folders without images in {parent}: {', '.join(empty)}; add images there or remove the folders."
        )
    return rows


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


def _why_nothing(parent: Path, classes: list[Path], tally: _Tally) -> str:
    if tally.single_slices:
        return (
            f"No volumes found in {parent}, only {len(tally.single_slices)} single DICOM slices; expected series of "
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
