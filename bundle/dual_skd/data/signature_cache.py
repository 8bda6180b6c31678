# SPDX-License-Identifier: Apache-2.0
"""Keeps signatures between runs, so that an unchanged image is decoded once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from dual_skd.data.locators import path_of
from dual_skd.data.signatures import VERSION, Signature

logger = logging.getLogger(__name__)

AT_ONCE = 500  # SQLite's smallest limit of variables in one statement is 999


def cache_file() -> Path:
    """The file that holds the signatures: ``$XDG_CACHE_HOME/dual_skd/signatures.sqlite`` (default ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dual_skd" / "signatures.sqlite"


def key_of(image: str, *, spatial_dims: int) -> str | None:
    """Hash of path, size and time of change (of all its files, for a folder); None when there is no such file."""
    digest = hashlib.blake2b(f"{VERSION}|{spatial_dims}|{os.path.abspath(image)}".encode(), digest_size=16)
    path = path_of(image)
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                files = sorted((entry.name, entry.stat()) for entry in entries if entry.is_file())
        else:
            files = [("", path.stat())]
    except OSError:
        return None
    for name, stat in files:
        digest.update(f"|{name}|{stat.st_size}|{stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def load(keys: Sequence[str]) -> dict[str, Signature]:
    """Signatures that are stored under any of ``keys``; none when there is no cache."""
    found: dict[str, Signature] = {}
    with _opened(create=False) as database:
        if database is not None:
            for some in _parts(keys):
                marks = ",".join("?" * len(some))
                question = f"SELECT key, digest, descriptor FROM signatures WHERE key IN ({marks})"
                for key, digest, descriptor in database.execute(question, some):
                    found[key] = Signature(digest, np.frombuffer(descriptor, np.float16))
    return found


def count(keys: Sequence[str]) -> int:
    """How many of ``keys`` are stored."""
    known = 0
    with _opened(create=False) as database:
        if database is not None:
            for some in _parts(keys):
                marks = ",".join("?" * len(some))
                known += database.execute(f"SELECT COUNT(*) FROM signatures WHERE key IN ({marks})", some).fetchone()[0]
    return known


def store(signatures: Mapping[str, Signature]) -> None:
    """Stores readable images' signatures by key; a cache that can't be written is no error.

    What can't be read is not stored: tomorrow a decoder may be installed for it.
    """
    rows = [(key, s.digest, s.descriptor.tobytes()) for key, s in signatures.items() if not s.problem]
    with _opened(create=True) as database:
        if database is not None:
            database.executemany("INSERT OR REPLACE INTO signatures VALUES (?, ?, ?)", rows)


def _parts(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE))


@contextlib.contextmanager
def _opened(*, create: bool) -> Iterator[sqlite3.Connection | None]:
    """The data base, committed at the end, or None when it can't be used; other processes may write meanwhile."""
    path = cache_file()
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                os.close(os.open(path, os.O_CREAT, 0o600))  # it is made of patients' images: for the user alone
        elif not path.is_file():
            yield None
            return
        database = sqlite3.connect(path, timeout=30)
    except (OSError, sqlite3.Error) as error:
        logger.debug("Signatures are not kept: %s can't be used (%s).", path, error)
        yield None
        return
    try:
        with contextlib.closing(database), database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS signatures (key TEXT PRIMARY KEY, digest TEXT, descriptor BLOB)"
            )
            yield database
    except sqlite3.Error as error:
        logger.debug("Signatures are not kept: %s can't be used (%s).", path, error)
