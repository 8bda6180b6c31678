# SPDX-License-Identifier: Apache-2.0
"""Finds the images that a table names, and refuses those outside the table's folder."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from dual_skd.data.reading.locators import path_of
from dual_skd.data.records.image_files import is_image
from dual_skd.data.records.rows import cell_text
from dual_skd.errors import InputError

if TYPE_CHECKING:
    from dual_skd.data.records.tables import Table


def locate_images(
    table: Table, numbered: Sequence[tuple[int, dict]], *, allow_outside: bool = False, keep_missing: bool = False
) -> list[str]:
    """Absolute locators of the images of (number, entry) pairs.

    A list that came with somebody's data may name any file of this computer. So its images have to lie below its own
    folder, also after ".." and links are followed. A list of absolute paths alone was made on this computer, since
    nobody else knows where its images lie: it may name any place.

    Args:
        table: the list.
        numbered: entries to locate, each with its number.
        allow_outside: take images from anywhere.
        keep_missing: keep images that don't exist, for the reader to say so.

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
        where = f"{table.path}, entry {number}"
        if isinstance(entry.get("image"), list | dict):
            raise InputError(
                f"{where}: one image per case is taken, found {entry['image']!r}; name one of them, or make one file "
                "of them."
            )
        name = cell_text(entry.get("image"))
        if not name:
            raise InputError(f"{where}: the image path is empty; fill it in or remove the entry.")
        image = existing(root, name)
        if image is None and keep_missing:
            located.append(os.path.join(root, name))
        elif image is None:
            missing.append(f"{where}: the image {name} does not exist in {root}{_other_case(root, name)}")
        elif not allow_outside and not inside(image):
            raise OutsideError(
                f"{where}: the image {name} lies outside {root}, which a list with relative paths "
                "must not do, as it may come from a stranger; correct the path, or give --allow-outside if you "
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


class Places:
    """The place of an image once ".." and links in its folder are followed; every folder is looked up once.

    A file that is itself a link keeps its name: it may stand for a copy.
    """

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, image: str) -> str:
        path = str(path_of(image))
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        place = os.path.join(self._folders[folder], name)
        if name in ("", ".", ".."):
            place = os.path.realpath(place)
        return place + image[len(path) :]


class _Inside:
    """Tells whether an image lies below a folder once links are followed."""

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        self._place = Places()

    def __call__(self, image: str) -> bool:
        path = self._place(str(path_of(image)))
        if os.path.islink(path):
            path = os.path.realpath(path)
        return path == self._root or path.startswith(os.path.join(self._root, ""))


def names_a_file(root: str, value: object) -> bool:
    """Tells whether a cell of a table names an image file that exists, from the table's folder on."""
    if not isinstance(value, str) or not value.strip():
        return False
    path = _found(root, value.strip())
    return path is not None and os.path.isfile(path_of(path)) and (is_image(path_of(path)) or ".npz#" in path)


def existing(root: str, name: str) -> str | None:
    """The absolute locator of an image, None where it doesn't exist.

    Raises:
        InputError: it is a device or a pipe.
    """
    image = _found(root, name)
    if image is None:
        return None
    if not os.path.isfile(path_of(image)) and not os.path.isdir(path_of(image)):
        raise InputError(f"{image} is neither a file nor a folder but a device or a pipe; remove it from the list.")
    return str(Path(image))


def _found(root: str, name: str) -> str | None:
    """The path of a name that may be written as on Windows, or with its accents stored in the other way."""
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
        image = os.path.join(root, spelling)
        if os.path.exists(image) or ("#" in spelling and path_of(image).exists()):
            return image
        path, mark, fragment = spelling.rpartition("#")
        for file, rest in ((spelling, ""), (path, mark + fragment)):
            if file and (same := _walk(root, file, _composed)) is not None:
                return same + rest
    return None


def _other_case(root: str, name: str) -> str:
    """An aside of a sentence on a file that isn't there but for its capital letters, "" where none is."""
    near = _walk(root, name.replace("\\", "/"), _without_case)
    return f" (there is {os.path.relpath(near, root)}, with other capital letters)" if near else ""


def _walk(root: str, name: str, key: Callable[[str], str]) -> str | None:
    """The path whose parts have the same keys as those of a name."""
    path = root
    for part in Path(name).parts:
        following = os.path.join(path, part)
        if not os.path.exists(following):
            if not os.path.isdir(path):
                return None
            entry = _entries(path, os.stat(path).st_mtime_ns, key).get(key(part))
            if entry is None:
                return None
            following = os.path.join(path, entry)
        path = following
    return path


@lru_cache(maxsize=256)
def _entries(folder: str, changed: int, key: Callable[[str], str]) -> dict[str, str]:
    """Key -> name of the entries of a folder, as it was when it was last changed."""
    try:
        return {key(name): name for name in sorted(os.listdir(folder))}
    except OSError:  # in a folder that may not be listed nothing is found
        return {}


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _without_case(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
