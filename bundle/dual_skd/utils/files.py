# SPDX-License-Identifier: Apache-2.0
"""The one place that writes files: each is there whole or not at all, whenever the process or the machine ends."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from dual_skd.errors import InputError, causes
from dual_skd.utils.csv_text import write_rows

FULL_DISK_BYTES = 2**16  # a disk with less free space counts as full


def replace_file(path: str | Path, write: Callable[[Path], object], *, former: Path | None = None) -> None:
    """Writes a file so that the former one stays until the new one is on the disk.

    The content goes to a draft beside it, which is synchronised and then renamed; the folder is synchronised too. A
    link stays a link. A pipe or a device is written directly.

    Args:
        path: the file; its folder is made where it doesn't exist.
        write: called with the path to write to.
        former: name in the same folder that the former file gets; without it the former file is gone.

    Raises:
        InputError: it can't be written, for want of space for instance; what was there is unchanged.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} can't be written: Is a directory; give another file.")
    if path.is_symlink() and path.is_file():
        path = path.resolve()
    with write_errors_named(path):
        if path.exists() and not path.is_file():
            write(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write(draft_of(path))
        publish(path, former)


def draft_of(path: Path) -> Path:
    """The file beside ``path`` that holds its content until it is complete."""
    return path.with_name(path.name + ".tmp")


def publish(path: Path, former: Path | None = None) -> None:
    """Gives the draft of a file its name, when it is on the disk; see :func:`replace_file`."""
    with draft_of(path).open("rb+") as file:
        os.fsync(file.fileno())
    if former is not None and path.is_file():
        os.replace(path, former)
    os.replace(draft_of(path), path)
    _synchronise_folder(path.parent)


@contextlib.contextmanager
def write_errors_named(path: Path) -> Iterator[None]:
    """Removes the draft of a file that can't be written, and raises an InputError that says why."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
        reason = next((cause.strerror for cause in causes(error) if isinstance(cause, OSError)), None) or str(error)
        with contextlib.suppress(OSError):
            if shutil.disk_usage(path.parent).free < FULL_DISK_BYTES:  # torch doesn't tell
                reason = os.strerror(errno.ENOSPC)
            draft_of(path).unlink(missing_ok=True)
        raise InputError(
            f"{path} can't be written ({reason.splitlines()[0]}); what was there before is unchanged. Make room, or "
            "mend the reason, and give the same command again."
        ) from error


def expanded(path: str | Path) -> Path:
    """A path of the user's with the home folder in place of its ``~``; ``~old``, no user's home, is a name."""
    return Path(os.path.expanduser(path))


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file, or an empty dict without one.

    Raises:
        InputError: the file isn't JSON.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} isn't JSON ({error}); remove it or choose another output_dir.") from error


def write_json(path: str | Path, content: Mapping[str, Any], *, indent: int = 1) -> None:
    """Writes a JSON file, see :func:`replace_file`."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file in UTF-8, see :func:`replace_file`."""
    replace_file(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def write_csv(path: str | Path, rows: Iterable[Iterable[Any]]) -> None:
    """Writes a CSV table, whose first row is the header and in which no cell is a formula; see :func:`replace_file`."""

    def write(draft: Path) -> None:
        with draft.open("w", newline="", encoding="utf-8") as file:
            write_rows(file, rows)

    replace_file(path, write)


def make_folder(path: str | Path) -> Path:
    """Makes a folder, and those above it, where it doesn't exist.

    Raises:
        InputError: it can't be made, or not be written into.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        writable = os.access(path, os.W_OK)
    except OSError as error:
        raise InputError(f"The folder {path} can't be made ({error.strerror}); give another one.") from error
    if not writable:
        raise InputError(f"The folder {path} can't be written into; give another one, or mend its permissions.")
    return path


def sha256_of(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _synchronise_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk; systems that can't open folders do so by themselves."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
