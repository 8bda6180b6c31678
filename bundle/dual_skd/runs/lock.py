# SPDX-License-Identifier: Apache-2.0
"""One command at a time per folder: a lock that the system releases when its process dies."""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dual_skd.errors import InputError
from dual_skd.utils.files import expanded, make_folder, remove_drafts, write_errors_named

try:
    import fcntl
except ImportError:  # Windows, which is untested; commands go on without locks
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK = ".lock"
LOCKED_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class _Held(NamedTuple):
    descriptor: int
    made: bool  # whether the folder was made for it


_held: dict[Path, _Held] = {}  # by the folders that this process has taken


def hold(folder: str | Path, command: str) -> bool:
    """Takes a folder for this process until :func:`release`, or its end; made where it doesn't exist.

    Several commands of one process share a folder. Of several processes that train together the first takes it. Drafts
    that killed processes left in the folder are removed.

    Args:
        folder: an ``output_dir``.
        command: what is done in it, for the message to others.

    Returns:
        whether this call has taken it.

    Raises:
        InputError: another process has it.
    """
    if int(os.environ.get("RANK", 0)) > 0:
        return False
    folder = expanded(folder)
    made = not folder.exists()
    place = make_folder(folder).resolve()
    if place in _held:
        return False
    with write_errors_named(place / LOCK):
        descriptor = lock_file(place / LOCK)
    if descriptor is None:
        raise InputError(
            f"{folder} is in use by {_holder(place / LOCK)}; wait for it, or give another folder (output_dir)."
        )
    _held[place] = _Held(descriptor, made)
    since, host = time.strftime("%Y-%m-%d %H:%M"), socket.gethostname()
    about = {"pid": os.getpid(), "command": command, "since": since, "host": host}
    with contextlib.suppress(OSError):  # a full disk must not keep a command from saying so in its own words
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(about).encode())
    remove_drafts(place)
    return True


def release(folder: str | Path) -> None:
    """Gives back a folder that :func:`hold` took; others are left as they are."""
    place = expanded(folder).resolve()
    held = _held.pop(place, None)
    if held is not None:
        with contextlib.suppress(OSError):  # the folder may have gone; it stays if it holds anything
            (place / LOCK).unlink()
            if held.made:
                place.rmdir()
        os.close(held.descriptor)


@contextlib.contextmanager
def held(folder: str | Path, command: str) -> Iterator[None]:
    """Within it this process has a folder, see :func:`hold`."""
    taken = hold(folder, command)
    try:
        yield
    finally:
        if taken:
            release(folder)


@contextlib.contextmanager
def released_afterwards() -> Iterator[None]:
    """Gives back, at its end, the folders that were taken within it."""
    before = set(_held)
    try:
        yield
    finally:
        for place in set(_held) - before:
            release(place)


def lock_file(path: Path) -> int | None:
    """Locks a file, which is made where it doesn't exist, until the descriptor is closed or the process ends.

    Returns:
        the descriptor, or None where another process has the lock.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in LOCKED_BY_ANOTHER:
                os.close(descriptor)
                return None
            logger.warning("%s can't be locked (%s): let no other command write there.", path, error.strerror)
            return descriptor
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # of a file that its last holder has removed meanwhile


def _holder(lock: Path) -> str:
    try:
        about = json.loads(lock.read_text(encoding="utf-8"))
        return f"process {about['pid']} ({about['command']}, since {about['since']}, host {about['host']})"
    except (OSError, ValueError, LookupError, TypeError):  # it is about to say so, or has just ended
        return "another process"


def _release_all() -> None:
    for place in list(_held):
        release(place)


def _forget() -> None:
    """Closes a forked process's copies: else a loader's process that outlives a killed parent would keep the lock."""
    for one in _held.values():
        os.close(one.descriptor)
    _held.clear()


atexit.register(_release_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
