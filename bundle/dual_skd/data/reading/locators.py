# SPDX-License-Identifier: Apache-2.0
"""Locators of images: a file, a folder with one DICOM series, or one part of either, written after a "#"."""

from __future__ import annotations

import os
import re
from pathlib import Path

# frame=3 | train/17 (images of a MedMNIST-style file) | a DICOM UID
_FRAGMENT = re.compile(r"frame=\d+|\w+/\d+|\d+(\.\d+)+")


def split_locator(image: str | Path) -> tuple[Path, str]:
    """Splits ``path#fragment``.

    The fragment is a series (``folder#SERIES_UID``), a frame counted from 0 (``cine.dcm#frame=3``) or an image of a
    MedMNIST-style file (``set.npz#train/17``). What exists as a whole is a path: names may contain "#".

    Returns:
        The file or folder, and the fragment without its "#", "" when there is none.

    >>> split_locator("hospital/scans#1.2.840.7")
    (PosixPath('hospital/scans'), '1.2.840.7')
    >>> split_locator("hospital/patient #7.png")
    (PosixPath('hospital/patient #7.png'), '')
    """
    text = str(image)
    head, mark, fragment = text.rpartition("#")
    if not mark or os.path.exists(text) or not (_FRAGMENT.fullmatch(fragment) or os.path.exists(head)):
        return Path(text), ""
    return Path(head), fragment


def path_of(image: str | Path) -> Path:
    """The file or folder behind a locator."""
    return split_locator(image)[0]


def real_place(image: str | Path) -> tuple[str, str]:
    """Path, with links followed, and fragment of a locator: one image may be reached in several ways."""
    path, fragment = split_locator(image)
    return os.path.realpath(path), fragment
