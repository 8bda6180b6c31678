# SPDX-License-Identifier: Apache-2.0
"""Opens a bundle, a folder or a zip, and reads its files, metadata and manifest."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from scripts import PROJECT

FOLDER = "dual_skd_classification"
METADATA = "configs/metadata.json"
TRAIN = "configs/train.json"
MANIFEST = "manifest.json"
BY_PRODUCTS = ("__pycache__", ".pyc", ".egg-info", ".DS_Store")


class CheckFailed(Exception):
    """A check found something wrong; the message says what, where, and what to do."""


@dataclass(frozen=True)
class Bundle:
    """A bundle to be checked.

    Attributes:
        root: the folder that holds ``configs``; of a zip, where it was unpacked.
        given: the folder or the zip that the user named.
        packed: whether it claims to be complete, so that a manifest is due: a zip, or a folder that a zip unpacks to.
        project: pyproject.toml with the floors of the packages.
    """

    root: Path
    given: Path
    packed: bool
    project: Path = PROJECT

    @cached_property
    def files(self) -> list[str]:
        """Sorted paths relative to the root, without what Python and installers leave behind."""
        found = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in found if not any(part.endswith(BY_PRODUCTS) for part in path.parts))

    def json(self, name: str) -> Any:
        """Content of a JSON file of the bundle."""
        try:
            return json.loads((self.root / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckFailed(f"{name} is missing") from None
        except ValueError as error:
            raise CheckFailed(f"{name} is not valid JSON ({error})") from None

    @cached_property
    def metadata(self) -> dict[str, Any]:
        found = self.json(METADATA)
        if not isinstance(found, dict):
            raise CheckFailed(f"{METADATA} holds a {type(found).__name__}, expected an object")
        return found

    @cached_property
    def manifest(self) -> dict[str, dict[str, Any]] | None:
        """Path to size and SHA-256; None where a source folder has no manifest."""
        if not (self.root / MANIFEST).is_file() and not self.packed:
            return None
        content = self.json(MANIFEST)
        entries = content.get("files") if isinstance(content, dict) else None
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            raise CheckFailed(f"{MANIFEST} has no table of files; pack again: python -m scripts.release.package_bundle")
        return entries


def open_bundle(given: Path, scratch: Path, project: Path = PROJECT) -> Bundle:
    """Unpacks a zip into ``scratch``; a folder is taken where it lies.

    Raises:
        CheckFailed: no such file, not a zip, unsafe names in it, or more or less than one folder.
    """
    if given.is_dir():
        return Bundle(given.resolve(), given, given.resolve().name == FOLDER, project)
    if not zipfile.is_zipfile(given):
        raise CheckFailed(f"{given} is neither a folder nor a zip; give a bundle's folder or its zip")
    with zipfile.ZipFile(given) as archive:
        places = [PurePosixPath(name.replace("\\", "/")) for name in archive.namelist()]
        unsafe = [str(place) for place in places if place.is_absolute() or ".." in place.parts]
        folders = sorted({place.parts[0] for place in places if place.parts})
        if unsafe:
            raise CheckFailed(f"{given} would unpack outside its folder: {unsafe[0]}")
        if len(folders) != 1:
            raise CheckFailed(f"{given} holds {folders}, expected one folder, {FOLDER}")
        damaged = archive.testzip()
        if damaged:
            raise CheckFailed(f"{given}: {damaged} is damaged (its checksum in the zip differs); pack or copy it again")
        archive.extractall(scratch)
    return Bundle(scratch / folders[0], given, True, project)


def python_files(bundle: Bundle) -> list[str]:
    return [name for name in bundle.files if name.endswith(".py")]


def source(bundle: Bundle, name: str) -> str:
    return (bundle.root / name).read_text(encoding="utf-8")
