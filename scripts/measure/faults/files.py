# SPDX-License-Identifier: Apache-2.0
"""What commands leave in a folder: whether it is whole, and whether it is the same as elsewhere."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open

from scripts.measure.faults.process import LOG

PASSED_OVER = (
    "tensorboard",
    "tmp",
    LOG,
    "data",
    "options.json",
    "cache",
    "home",
)  # names that differ, or aren't results
# of checkpoints: the record has times
TIMES = ("record",)


def files_in(folder: Path) -> dict[str, Path]:
    """The files of a folder by their relative names, without those that aren't results."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path for name, path in named.items() if not {*Path(name).parts} & {*PASSED_OVER}}


def digests(folder: Path) -> dict[str, str]:
    """A sum of the content of each file: of the tensors of weights, of the text of other files without its folder."""
    return {name: _digest(path, folder) for name, path in files_in(folder).items()}


def _digest(path: Path, folder: Path) -> str:
    found = hashlib.sha256()
    if path.suffix == ".pt" and zipfile.is_zipfile(path):
        try:
            _add(found, {key: one for key, one in _loaded(path).items() if key not in TIMES})
            return found.hexdigest()
        except (AttributeError, RuntimeError):  # TorchScript
            pass
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            _add(found, {name: file.get_tensor(name) for name in sorted(file.keys())})
        return found.hexdigest()
    found.update(path.read_bytes().replace(str(folder).encode(), b"."))
    return found.hexdigest()


def _loaded(path: Path) -> Any:
    return torch.load(path, "cpu", weights_only=True)


def _add(found: Any, value: Any) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            found.update(repr(key).encode())
            _add(found, one)
    elif isinstance(value, list | tuple):
        for one in value:
            _add(found, one)
    elif isinstance(value, torch.Tensor):
        found.update(repr((value.dtype, tuple(value.shape))).encode() + value.contiguous().numpy().tobytes())
    else:
        found.update(repr(value).encode())


def _ends_with(end: bytes) -> Callable[[Path], None]:
    def look(path: Path) -> None:
        if not path.read_bytes().rstrip().endswith(end.strip()) or path.stat().st_size == 0:
            raise ValueError("it has no end")

    return look


def _csv(path: Path) -> None:
    text = path.read_bytes()
    if not text.endswith(b"\n") or not text.strip():
        raise ValueError("it has no end")


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        if file.testzip() is not None:
            raise ValueError("its sums don't agree")


def _image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _weights(path: Path) -> None:
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            file.get_tensor(name)


WHOLE: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")), ".csv": _csv, ".pt": _zip, ".ts": _zip,
    ".zip": _zip, ".png": _image, ".svg": _ends_with(b"</svg>"), ".html": _ends_with(b"</html>"),
    ".safetensors": _weights,
}  # fmt: skip


def damaged(folder: Path) -> list[str]:
    """Files under their final names that aren't whole, each with the reason."""
    found = []
    for name, path in files_in(folder).items():
        look = WHOLE.get(path.suffix)
        try:
            if look is not None:
                look(path)
        except Exception as error:  # whatever the format's reader raises
            found.append(f"{name} is damaged ({str(error)[:80]})")
    return found


def differences(expected: dict[str, str], found: dict[str, str], compared: set[str]) -> list[str]:
    """How a folder differs from that of an undisturbed command.

    Args:
        expected, found: see :func:`digests`.
        compared: names whose content is compared too: that of the others differs between undisturbed commands.
    """
    lost = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    more = [f"{name} is left over" for name in sorted(found.keys() - expected.keys())]
    other = [f"{name} differs" for name in sorted(compared & found.keys()) if expected[name] != found[name]]
    return lost + more + other
