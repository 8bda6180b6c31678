# SPDX-License-Identifier: Apache-2.0
"""Stores signatures and similarities between runs, so that unchanged images are decoded and compared once."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np

from dual_skd.data.near_duplicates.signatures import VERSION, Signature, read_finite, signature_of
from dual_skd.data.reading.locators import path_of
from dual_skd.errors import InputError

Result = TypeVar("Result")

logger = logging.getLogger(__name__)

KEYS_PER_QUERY = 500  # SQLite's smallest limit of variables in one statement is 999
MAX_IMAGES_IN_MEMORY = {2: 15_000, 3: 5_000}  # images whose views stay in memory, by spatial_dims; 18 kB per view
STORE_EVERY = 512  # new signatures: at most so many are lost when a search is stopped


class Signatures:
    """Signatures of images, stored by earlier runs or new.

    Args:
        images: paths.
        spatial_dims: 2 for images, 3 for volumes.
        cache: whether signatures are stored on disk and read from there.
    """

    def __init__(self, images: Sequence[str], *, spatial_dims: int = 2, cache: bool = True) -> None:
        self._spatial_dims = spatial_dims
        self._keys = keys_of(images, spatial_dims=spatial_dims) if cache else {}
        stored = load(list(self._keys.values()))
        self._known = {image: stored[key] for image, key in self._keys.items() if key in stored}
        self._unstored: dict[str, Signature] = {}
        self._lock = Lock()

    def __contains__(self, image: str) -> bool:
        return image in self._known

    def __getitem__(self, image: str) -> Signature:
        return self._known[image]

    def add(self, image: str, array: np.ndarray) -> None:
        """Adds the signature of a decoded image, finite (W, H) or (X, Y, Z), unless it is known; thread-safe."""
        if image in self._known:
            return
        signature = signature_of(array)
        if len(self._known) >= MAX_IMAGES_IN_MEMORY[self._spatial_dims]:
            signature = replace(signature, views=None)
        self._known[image] = signature
        if image in self._keys:
            with self._lock:
                self._unstored[self._keys[image]] = signature
                full = len(self._unstored) >= STORE_EVERY
            if full:
                self.store()

    def decode(self, image: str) -> None:
        """Adds the signature of an image; one that can't be read gets a ``problem``.

        Problems are not stored: a decoder may be installed before the next run.
        """
        try:
            self.add(image, read_finite(image, spatial_dims=self._spatial_dims))
        except InputError as error:
            self._known[image] = Signature("", np.empty(0, np.float16), problem=str(error))

    def store(self) -> None:
        """Stores the new signatures, unless the cache can't be written."""
        with self._lock:
            rows = [(key, one.digest, one.descriptor.tobytes()) for key, one in self._unstored.items()]
            self._unstored = {}
        _use(lambda database: database.executemany("INSERT OR REPLACE INTO signatures VALUES (?, ?, ?)", rows), None)


def cache_file() -> Path:
    """Path of the cache: ``$XDG_CACHE_HOME/dual_skd/signatures.sqlite`` (default ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dual_skd" / "signatures.sqlite"


def keys_of(images: Iterable[str], *, spatial_dims: int) -> dict[str, str]:
    """Keys of those images that exist."""
    keys = ((image, _key_of(image, spatial_dims)) for image in images)
    return {image: key for image, key in keys if key}


def count_stored(images: Sequence[str], *, spatial_dims: int = 2) -> int:
    """Counts the images whose signatures are stored, so that they needn't be decoded."""
    keys = list(keys_of(images, spatial_dims=spatial_dims).values())
    return _use(lambda database: sum(1 for _ in _select(database, "key FROM signatures", keys)), 0)


def _key_of(image: str, spatial_dims: int) -> str | None:
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
    """Reads the stored signatures by key; none when there is no cache."""

    def read(database: sqlite3.Connection) -> dict[str, Signature]:
        rows = _select(database, "key, digest, descriptor FROM signatures", keys)
        return {key: Signature(digest, np.frombuffer(numbers, np.float16)) for key, digest, numbers in rows}

    return _use(read, {})


def pair_key(digest: str, other: str, mirrored: int) -> str:
    """Key of a similarity: digests of two images, and the axes along which the first is mirrored."""
    return f"{VERSION}|{digest}|{other}|{mirrored}"


def load_similarities(keys: Sequence[str]) -> dict[str, float]:
    """Reads the stored similarities by key."""
    return _use(lambda database: dict(_select(database, "key, value FROM likenesses", keys)), {})


def store_similarities(values: Mapping[str, float]) -> None:
    """Stores similarities by key, unless the cache can't be written."""
    rows = list(values.items())
    _use(lambda database: database.executemany("INSERT OR REPLACE INTO likenesses VALUES (?, ?)", rows), None)


def _select(database: sqlite3.Connection, what: str, keys: Sequence[str]) -> Iterator[tuple]:
    for start in range(0, len(keys), KEYS_PER_QUERY):
        part = keys[start : start + KEYS_PER_QUERY]
        yield from database.execute(f"SELECT {what} WHERE key IN ({','.join('?' * len(part))})", part)


def _use(action: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
    """Runs ``action`` on the data base, which processes share; returns ``otherwise`` where it can't be used."""
    path = cache_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT, 0o600))  # made of patients' images: only the user may read it
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS signatures (key TEXT PRIMARY KEY, digest TEXT, descriptor BLOB)"
            )
            database.execute("CREATE TABLE IF NOT EXISTS likenesses (key TEXT PRIMARY KEY, value REAL)")
            return action(database)
    except (OSError, sqlite3.Error) as error:
        logger.debug("Signatures are not kept: %s can't be used (%s).", path, error)
        return otherwise
