# SPDX-License-Identifier: Apache-2.0
"""Files of tensors and plain values that must not be damaged unnoticed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

MARK_OF_FOLDER = 0x10  # torch.load takes a record with it for empty, and no sum is kept of it


def save_tensors(content: Any, path: Path) -> None:
    """Writes tensors and plain values; unlike ``torch.save`` with a path, an error tells why, as of a full disk."""
    with path.open("wb") as file:
        torch.save(content, file)


def read_tensors(path: Path) -> Any:
    """Reads what :func:`save_tensors` wrote, every byte compared with its sum, unlike ``torch.load``.

    Raises:
        ValueError: it is damaged, or holds more than tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as file:
            folders = any(record.external_attr & MARK_OF_FOLDER for record in file.infolist())
            if folders or file.testzip() is not None:
                raise ValueError("its sums don't agree")
        return torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # a flipped byte may turn up anywhere in zipfile, torch or pickle
        raise ValueError(str(error).split("\n")[0] or type(error).__name__) from error
