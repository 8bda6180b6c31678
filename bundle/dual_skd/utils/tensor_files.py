# SPDX-License-Identifier: Apache-2.0
"""Files of ``torch.save`` that hold tensors and plain values: no code runs, and they take no more memory than disk."""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

MARK_OF_FOLDER = 0x10  # torch.load takes a record with it for empty, and no sum is kept of it
# what a pickle of tensors and plain values calls; torch allows more, such as bytearray(10**12)
PLAIN = re.compile(
    r"collections (OrderedDict|Counter)|builtins (set|complex)|__builtin__ (set|complex)|_codecs encode"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\.nn\.parameter Parameter|torch (Size|device|\w+Storage)|torch\.storage \w+Storage"
    r"|torch (u?int\d+|b?float\d+\w*|complex\d+|double|half|bool)"
)
_LEGACY_PICKLES = 5  # of a file from before PyTorch 1.6: magic number, protocol, system, content, names of the storages


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
        return load_plain(path)
    except Exception as error:  # a flipped byte may turn up anywhere in zipfile, torch or pickle
        raise ValueError(str(error).split("\n")[0] or type(error).__name__) from error


def load_plain(path: Path) -> Any:
    """The content of a file of ``torch.save``, on the CPU.

    Raises:
        UnpicklingError: it holds more than tensors and plain values.
        Exception: of another kind, it is damaged, or would take more memory than disk.
    """
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                _require_plain_archive(archive, path)
        else:
            file.seek(0)
            for _ in range(_LEGACY_PICKLES):
                _require_plain_pickle(file)
    return torch.load(path, "cpu", weights_only=True)


def _require_plain_archive(archive: zipfile.ZipFile, path: Path) -> None:
    entries = archive.infolist()
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > os.path.getsize(path):
        raise ValueError("its entries are compressed or overlap, which PyTorch doesn't write")
    for entry in entries:
        if entry.filename.endswith(".pkl"):
            with archive.open(entry) as file:
                _require_plain_pickle(file)


def _require_plain_pickle(file: Any | BinaryIO) -> None:
    """Looks at the names of one pickle, which it runs nothing of."""
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4") or (
            opcode.name == "GLOBAL" and not PLAIN.fullmatch(str(argument))
        ):
            raise pickle.UnpicklingError(f"it names {argument or opcode.name}")
