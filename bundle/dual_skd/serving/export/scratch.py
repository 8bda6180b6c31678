# SPDX-License-Identifier: Apache-2.0
"""A folder for the pictures of patients that an export works on, which doesn't outlive it for long."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dual_skd.runs.lock import LOCK, lock_file

UNLOCKED_SECONDS = 3600.0  # a folder of ours without a lock is left alone so long: its process may just have begun


@contextlib.contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder for the user alone; those that killed processes left are removed first.

    Args:
        prefix: of its name, by which those of killed processes are known.
    """
    _remove_left(Path(tempfile.gettempdir()), prefix)
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        folder = Path(name).resolve()
        descriptor = lock_file(folder / LOCK)
        try:
            yield folder
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _remove_left(place: Path, prefix: str) -> None:
    """Removes the user's own folders, never what a link leads to, whose process has ended."""
    for folder in place.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another process of the user may be removing it too
            about = folder.lstat()
            if not folder.is_dir() or folder.is_symlink() or about.st_uid != os.getuid():
                continue
            if not (folder / LOCK).exists() and time.time() - about.st_mtime < UNLOCKED_SECONDS:
                continue
            descriptor = lock_file(folder / LOCK)
            if descriptor is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)
