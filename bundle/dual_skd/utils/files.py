# SPDX-License-Identifier: Apache-2.0
"""The one place that writes files: each is there whole or not at all, whenever the process or the machine ends."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from dual_skd.errors import InputError, NotWritten, causes
from dual_skd.utils.csv_text import write_rows

FULL_DISK_BYTES = 2**16  # a disk with less free space counts as full
DRAFT_SUFFIX = ".dual_skd_draft"
MAX_LINKS = 40  # that lead to a file, one to the next
_OPEN_FILE = re.compile(r"(?:/dev|/proc/(\d+)(?:/task/\d+)?)/fd/(\d+)")  # where /dev/stdout and the like lead to


def replace_file(
    path: str | Path,
    write: Callable[[Path], object],
    *,
    former: Path | None = None,
    private: bool = False,
    synchronise: bool = True,
) -> None:
    """Writes a file so that the former one stays until the new one is on the disk, see :class:`Draft`.

    Args:
        path: the file; its folder is made where it doesn't exist.
        write: called with the path to write to.
        former: name in the same folder that the former file gets; without it the former file is gone.
        private: see :class:`Draft`.
        synchronise: see :meth:`Draft.publish`.

    Raises:
        NotWritten: it can't be written, for want of space for instance; what was there is unchanged.
    """
    draft = Draft(Path(path), private=private)
    try:
        draft.write(write)
        draft.publish(former, synchronise=synchronise)
    finally:
        draft.discard()


class Draft:
    """The content of a file until it is complete, beside it and under a name that no other process takes.

    A draft that is never published goes with its object. What a killed process leaves, :func:`remove_drafts` removes.
    A link stays a link. What is no file of its own (a pipe, a device, an open file as /dev/stdout) is written to when
    the draft is complete, which is in the folder of temporary files until then.

    Args:
        path: the file; its folder is made where it doesn't exist.
        private: nobody but the user may read it, whatever the umask says, as it holds pictures, patients, or names of
            files; else the umask decides.

    Raises:
        NotWritten: on every use, if the file can't be written; the draft is gone then.
    """

    def __init__(self, path: Path, *, private: bool = False) -> None:
        self.path = path
        with write_errors_named(path):
            if path.is_dir():
                raise NotWritten(f"{path} can't be written: Is a directory; give another file.")
            self._target, self._stream = _followed(path)
        folder = Path(tempfile.gettempdir()) if self._stream else self._target.parent
        self.file = folder / f"{path.name[:40]}.{secrets.token_hex(8)}{DRAFT_SUFFIX}"
        self.discard = weakref.finalize(self, _remove, self.file, os.getpid())
        with self._discarded_on_error():
            folder.mkdir(parents=True, exist_ok=True)
            mode = 0o600 if private or self._stream else 0o666
            os.close(os.open(self.file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
            self._mode = stat.S_IMODE(self.file.stat().st_mode)

    def write(self, write: Callable[[Path], object]) -> None:
        """Calls ``write`` with the path of the draft."""
        with self._discarded_on_error():
            write(self.file)

    def publish(self, former: Path | None = None, *, synchronise: bool = True) -> None:
        """Gives the draft the name of the file.

        Args:
            former: see :func:`replace_file`.
            synchronise: wait until the file and the names in its folder are on the disk, so that the file is whole
                after a power failure too.
        """
        with self._discarded_on_error():
            if self._stream:
                with self.file.open("rb") as file, _opened_stream(self._target) as stream:
                    shutil.copyfileobj(file, stream)
                self.discard()
                return
            with self.file.open("rb+") as file:
                os.chmod(self.file, self._mode)  # safetensors puts a file of its own in place
                if synchronise:
                    os.fsync(file.fileno())
            if former is not None and self._target.is_file():
                os.replace(self._target, former)
            os.replace(self.file, self._target)
            if synchronise:
                _synchronise_folder(self._target.parent)

    @contextlib.contextmanager
    def _discarded_on_error(self) -> Iterator[None]:
        try:
            with write_errors_named(self.path):
                yield
        except NotWritten:
            self.discard()
            raise


def remove_drafts(folder: Path, *, older_than: float = 0.0) -> None:
    """Removes the drafts of killed processes from a folder, those below it, and their folders of plots.

    Args:
        folder: of them; unless ``older_than`` is given, no other process may write there.
        older_than: seconds since a draft was last written to.
    """
    for pattern in ("*", "*/*", "*/plots/*"):
        for draft in folder.glob(pattern + DRAFT_SUFFIX):
            with contextlib.suppress(OSError):  # it has just got its name, or isn't the user's
                if time.time() - draft.lstat().st_mtime >= older_than:
                    draft.unlink()


@contextlib.contextmanager
def write_errors_named(path: Path) -> Iterator[None]:
    """Raises :class:`NotWritten` that says why a file can't be written."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have their own for a full disk
        reason = next((cause.strerror for cause in causes(error) if isinstance(cause, OSError)), None) or str(error)
        with contextlib.suppress(OSError):
            if shutil.disk_usage(path.parent).free < FULL_DISK_BYTES:  # torch doesn't tell
                reason = os.strerror(errno.ENOSPC)
        raise NotWritten(
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


def write_json(path: str | Path, content: Mapping[str, Any], *, indent: int = 1, private: bool = False) -> None:
    """Writes a JSON file, see :func:`replace_file`."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n", private=private)


def write_text(path: str | Path, text: str, *, private: bool = False) -> None:
    """Writes a text file in UTF-8, see :func:`replace_file`."""
    replace_file(path, lambda draft: draft.write_text(text, encoding="utf-8"), private=private)


def write_csv(path: str | Path, rows: Iterable[Iterable[Any]], *, private: bool = False) -> None:
    """Writes a CSV table, whose first row is the header and in which no cell is a formula; see :func:`replace_file`."""

    def write(draft: Path) -> None:
        with draft.open("w", newline="", encoding="utf-8") as file:
            write_rows(file, rows)

    replace_file(path, write, private=private)


def make_folder(path: str | Path, *, private: bool = False) -> Path:
    """Makes a folder, and those above it, where it doesn't exist.

    Args:
        path: of the folder; one that exists keeps its permissions.
        private: nobody but the user may look into it, as it holds pictures of patients; else the umask decides.

    Raises:
        InputError: it can't be made, or not be written into.
    """
    path = Path(path)
    try:
        path.mkdir(0o700 if private else 0o777, parents=True, exist_ok=True)
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


def _followed(path: Path) -> tuple[Path, bool]:
    """Where the links of a path lead, and whether that is no file of its own but a pipe, a device or an open file.

    The name of an open file is a link that isn't followed: a new file under the name it had would take its place.
    """
    for _ in range(MAX_LINKS):
        path = Path(os.path.realpath(path.parent), path.name)
        if _OPEN_FILE.fullmatch(str(path)):
            return path, True
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return path, path.exists() and not path.is_file()


def _opened_stream(path: Path) -> IO[bytes]:
    """A pipe, a device or an open file, to write to after what is there; a file of this process at its own place."""
    open_file = _OPEN_FILE.fullmatch(str(path))
    if open_file and open_file[1] in (None, str(os.getpid())):
        return os.fdopen(os.dup(int(open_file[2])), "wb")
    return path.open("ab")


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


def _remove(draft: Path, process: int) -> None:
    if os.getpid() == process:  # a forked one has a copy of the object
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
