# SPDX-License-Identifier: Apache-2.0
"""Reads what a user has (class folders, a CSV table, a JSON datalist) into one kind of row."""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dual_skd.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom", ".nii", ".nii.gz", ".npy")
TABLE_NAMES = ("datalist.csv", "datalist.json", "dataset.json")
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Row:
    """One image as the source gives it, before labels become numbers.

    Args:
        image: absolute path of the file (or of the folder of a DICOM series).
        labels: the label's name, or every positive label's name when ``multi_label`` is set in the :class:`Source`.
        split: "train", "val", "test", or "" when the source gives none.
        patient: patient id, or "" when the source gives none.
    """

    image: Path
    labels: tuple[str, ...]
    split: str = ""
    patient: str = ""


@dataclass(frozen=True)
class Source:
    """All rows of a data set, and what the source says about its classes.

    Args:
        root: folder that relative paths start from.
        description: what was read, for the log.
        rows: every image.
        class_names: classes in the order that the source declares, empty when it declares none.
        multi_label: whether an image may have any number of labels.
        notes: decisions that the user should know of.
    """

    root: Path
    description: str
    rows: tuple[Row, ...]
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    notes: tuple[str, ...] = ()


def read_source(location: Path, *, spatial_dims: int = 2, label_column: str | Sequence[str] = "label") -> Source:
    """Reads a folder of class folders, a folder with a datalist, or the datalist itself.

    Args:
        location: folder, or a .csv / .json file.
        spatial_dims: with 3, a folder of DICOM slices inside a class folder is one image.
        label_column: the column (CSV) or key (JSON) of the label; several names mean one 0/1 column per label.

    Raises:
        InputError: when the path is absent, holds no images, or a table can't be understood.
    """
    if not location.exists():
        raise InputError(f"The data set {location} does not exist{_near_match(location)}")
    if location.is_file():
        return _read_table(location, label_column)
    for name in TABLE_NAMES:
        if (location / name).is_file():
            return _read_table(location / name, label_column)
    return _read_folders(location, spatial_dims)


def is_image(path: Path) -> bool:
    """Tells whether a file is an image by its suffix, or, without a suffix, by the mark of a DICOM file."""
    name = path.name.lower()
    if name.startswith("."):
        return False
    if name.endswith(IMAGE_SUFFIXES):
        return True
    # PACS exports often name slices by number or UID and no suffix: DICOM part 10 has "DICM" after 128 bytes
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _near_match(location: Path) -> str:
    """The end of a sentence that names the most similar existing neighbour of a path that doesn't exist."""
    parent = location.parent
    while not parent.is_dir() and parent != parent.parent:
        parent, location = parent.parent, parent
    near = difflib.get_close_matches(location.name, [entry.name for entry in parent.iterdir()], n=1, cutoff=0.6)
    return f"; did you mean {parent / near[0]}?" if near else f" (looked in {parent})."


# ---------------------------------------------------------------------------------------------------- class folders


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] not in "._")


def _read_folders(root: Path, spatial_dims: int) -> Source:
    folders = _visible_folders(root)
    split_folders = [(folder, SPLIT_WORDS[folder.name.lower()]) for folder in folders if _is_split(folder)]
    if not split_folders:
        rows = _rows_of_classes(root, folders, split="", spatial_dims=spatial_dims)
        description = f"class folders in {root}"
    else:
        seen: dict[str, Path] = {}
        rows = []
        for folder, split in split_folders:
            if split in seen:
                raise InputError(f"{root} has two folders for the {split} split, {seen[split].name} and {folder.name}.")
            seen[split] = folder
            rows += _rows_of_classes(folder, _visible_folders(folder), split=split, spatial_dims=spatial_dims)
        if "train" not in seen:
            raise InputError(f"{root} has a folder {folders[0].name} but no train folder; add one or give a datalist.")
        description = f"{' / '.join(seen)} folders of class folders in {root}"
    ignored = [folder.name for folder in folders if split_folders and not _is_split(folder)]
    notes = (f"folders left out, as they name no split: {', '.join(ignored)}",) if ignored else ()
    return Source(root=root, description=description, rows=tuple(rows), notes=notes)


def _is_split(folder: Path) -> bool:
    return folder.name.lower() in SPLIT_WORDS


def _rows_of_classes(parent: Path, classes: list[Path], *, split: str, spatial_dims: int) -> list[Row]:
    rows: list[Row] = []
    empty: list[str] = []
    for folder in classes:
        images = find_image_files(folder, spatial_dims)
        if not images:
            empty.append(folder.name)
        rows += [Row(image=image, labels=(folder.name,), split=split) for image in images]
    if not rows:
        found = f"{len(classes)} folders without images" if classes else "no class folders"
        raise InputError(
            f"No images found in {parent}: expected one folder per class or one of {', '.join(TABLE_NAMES)}, "
            f"found {found}; image files end with {' '.join(IMAGE_SUFFIXES)}."
        )
    if empty:
        raise InputError(
            f"Class folders without images in {parent}: {', '.join(empty)}; add images there or remove the folders."
        )
    return rows


def find_image_files(folder: Path, spatial_dims: int) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and is_image(path))
    if spatial_dims == 2:
        return files
    # in 3D a subfolder with several DICOM slices is one volume; MONAI's PydicomReader reads the folder
    slices: dict[Path, list[Path]] = {}
    for path in files:
        if path.parent != folder and path.suffix.lower() not in (".nii", ".gz", ".npy"):
            slices.setdefault(path.parent, []).append(path)
    series = {parent for parent, members in slices.items() if len(members) > 1}
    return sorted([path for path in files if path.parent not in series] + list(series))


# ----------------------------------------------------------------------------------------------------------- tables


def _read_table(path: Path, label_column: str | Sequence[str]) -> Source:
    if path.suffix.lower() == ".csv":
        entries, class_names = _read_csv(path), ()
    elif path.suffix.lower() == ".json":
        entries, class_names = _read_json(path)
    else:
        raise InputError(f"{path} is neither a folder nor a .csv or .json datalist.")
    if not entries:
        raise InputError(f"{path} lists no images.")
    columns = [label_column] if isinstance(label_column, str) else list(label_column)
    _require_columns(path, entries, ["image", *columns])
    multi_label = len(columns) > 1 or any(_is_multi(entry.get(columns[0])) for entry in entries)
    if len(columns) > 1:
        class_names = tuple(columns)
    rows, unlabelled = [], 0
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, entry {number}"
        if entry.get(columns[0]) is None or (not multi_label and str(entry[columns[0]]).strip() == ""):
            unlabelled += 1
            continue
        labels = _labels_of(entry, columns, multi_label, class_names, where)
        rows.append(
            Row(
                image=_existing(path.parent, str(entry["image"]).strip(), where),
                labels=labels,
                split=_split_of(entry, where),
                patient=str(entry.get("patient") or "").strip(),
            )
        )
    if not rows:
        raise InputError(f"{path} lists {len(entries)} images, none with a label in {', '.join(columns)}.")
    notes = (f"{unlabelled} images without a label in {path.name} were left out",) if unlabelled else ()
    with_split = sum(bool(row.split) for row in rows)
    if 0 < with_split < len(rows):
        raise InputError(f"{path}: {len(rows) - with_split} of {len(rows)} images have no split; give all or none.")
    return Source(
        root=path.parent,
        description=str(path),
        rows=tuple(rows),
        class_names=class_names,
        multi_label=multi_label,
        notes=notes,
    )


def _read_csv(path: Path) -> list[dict]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        first_line = text.partition("\n")[0]
        delimiter = max(",;\t", key=first_line.count)
        return [dict(row) for row in csv.DictReader(text.splitlines(), delimiter=delimiter, skipinitialspace=True)]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InputError(f"{path} can't be read as a UTF-8 CSV table: {error}.") from error


def _read_json(path: Path) -> tuple[list[dict], tuple[str, ...]]:
    """Reads a Medical Segmentation Decathlon style datalist, or a plain list of entries."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, OSError) as error:
        raise InputError(f"{path} can't be read as JSON: {error}.") from error
    if isinstance(content, list):
        return _entries(content, path), ()
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
    return entries, _declared_classes(content.get("labels"))


def _entries(members: list, path: Path) -> list[dict]:
    entries = [{"image": member} if isinstance(member, str) else member for member in members]
    if not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f'{path}: each image must be an object such as {{"image": "a.png", "label": "normal"}}.')
    return entries


def _declared_classes(labels: object) -> tuple[str, ...]:
    """Class names of a Decathlon ``"labels": {"0": "normal", "1": "nodule"}`` block or a list, in numeric order."""
    if isinstance(labels, list):
        return tuple(str(name) for name in labels)
    if isinstance(labels, dict) and labels and all(str(key).isdigit() for key in labels):
        return tuple(str(labels[key]) for key in sorted(labels, key=int))
    return ()


def _require_columns(path: Path, entries: Iterable[dict], wanted: list[str]) -> None:
    found = list(dict.fromkeys(key for entry in entries for key in entry if key))
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}; columns found: {', '.join(map(str, found))}.")
    without_image = next((n for n, entry in enumerate(entries, start=1) if not entry.get("image")), None)
    if without_image:
        raise InputError(f"{path}, entry {without_image}: the image path is empty.")


def _is_multi(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and "|" in value)


def _labels_of(
    entry: dict, columns: list[str], multi_label: bool, class_names: tuple[str, ...], where: str
) -> tuple[str, ...]:
    if len(columns) > 1:
        return tuple(name for name in columns if _as_flag(entry.get(name), name, where))
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


def _split_of(entry: dict, where: str) -> str:
    word = str(entry.get("split") or "").strip().lower()
    if word and word not in SPLIT_WORDS:
        raise InputError(f"{where}: unknown split {word!r}; use train, val or test.")
    return SPLIT_WORDS.get(word, "")


def _existing(root: Path, name: str, where: str) -> Path:
    image = root / name
    if not image.exists():
        raise InputError(f"{where}: the image {name} does not exist in {root}.")
    return image.absolute()
