# SPDX-License-Identifier: Apache-2.0
"""Reads and writes files of weights, also those of other programs; pickled code never runs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dual_skd.errors import InputError, did_you_mean
from dual_skd.utils.files import expanded, replace_file
from dual_skd.utils.tensor_files import load_plain

ENDINGS = (".safetensors", ".pt", ".pth")

# entries of this package's model files besides the weights
INFO = ("architecture", "class_names", "preprocessing", "multi_label", "calibration")
MOST_VALUES = 10**6  # of these entries
LONGEST_TEXT = 1000  # characters
LARGEST_NUMBER = 1e9


def load_state_file(path: str | Path, *, words: Sequence[str] = ()) -> dict[str, Tensor]:
    """Reads a state dict from a .safetensors, .pt or .pth file.

    A dict that holds the state dict under ``model``, ``state_dict`` or ``network`` is unpacked, and the prefix that
    DistributedDataParallel or torch.compile puts before every name is removed.

    Args:
        path: the file.
        words: what may be given instead of a file, for the message about a missing one.

    Raises:
        InputError: no such file, another format, or no tensors in it.
    """
    return read_weights(path, words=words)[0]


def read_info(path: str | Path) -> dict[str, Any]:
    """The entries of a model file besides the weights; empty for other files.

    Args:
        path: a file that :func:`load_state_file` reads.
    """
    return read_weights(path)[1]


def read_weights(path: str | Path, *, words: Sequence[str] = ()) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns what :func:`load_state_file` and :func:`read_info` do, the file being read once."""
    path = require_file(path, words=words)
    try:
        content, info = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except pickle.UnpicklingError as error:  # torch's message advises to run the code inside
        raise InputError(
            f"Weights file {str(path)!r} holds more than tensors and plain values, so it isn't opened; save its state "
            "dict alone, best as .safetensors."
        ) from error
    except Exception as error:  # a flipped byte may turn up anywhere in zipfile, torch, pickle or safetensors
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"Weights file {str(path)!r} can't be read ({reason}); download or copy it again.") from error
    state = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not state or not all(isinstance(key, str) for key in state):
        raise InputError(f"Weights file {str(path)!r} has no tensors; expected a state dict, name -> tensor.")
    if bytes_of(state.values()) > path.stat().st_size:
        raise InputError(f"Weights file {str(path)!r} declares larger tensors than it holds; copy it again.")
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    _require_short(info, path)
    return state, info


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Memory of tensors; what several of them share counts once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _read_safetensors(path: Path) -> tuple[Any, dict[str, Any]]:
    with safe_open(path, "pt") as file:
        texts = file.metadata() or {}
    try:
        info = {key: json.loads(texts[key]) for key in INFO if key in texts}
    except (json.JSONDecodeError, RecursionError):  # entries of another program
        info = {}
    return load_file(path), info


def _read_torch(path: Path) -> tuple[Any, dict[str, Any]]:
    content = load_plain(path)
    about = getattr(content, "_metadata", None)
    about = about.get("", content) if isinstance(about, Mapping) else content  # older files: beside a nested state dict
    info = {key: about[key] for key in INFO if key in about} if isinstance(about, Mapping) else {}
    for key in ("model", "state_dict", "network"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    return content, info


def _require_short(info: Mapping[str, Any], path: Path) -> None:
    """Refuses texts and numbers that no run writes, and more entries than it could: they would fill a message."""
    waiting: list[Any] = [info]
    for _ in range(MOST_VALUES):
        if not waiting:
            return
        if len(waiting) > MOST_VALUES:
            break
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, str):
            if len(value) > LONGEST_TEXT:
                break
        elif value is not None and not (isinstance(value, int | float) and abs(value) < LARGEST_NUMBER):
            break  # NaN isn't below any number
    raise InputError(
        f"{path}: the description of its network ({', '.join(info)}) has a text, a number or a list that no training "
        "run writes; give the model.pt or model.safetensors of a run."
    )


def write_weights(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """Writes a state dict as .safetensors or, by the suffix, with torch.save."""
    state = {name: value.detach().clone().contiguous() for name, value in state.items()}
    save: Any = save_file if Path(path).suffix == ".safetensors" else torch.save
    replace_file(path, lambda draft: save(state, draft))


def require_file(path: str | Path, *, words: Sequence[str] = ()) -> Path:
    """The path of an existing weights file, by its name; see :func:`load_state_file`."""
    path = expanded(path)
    if not path.is_file():
        in_run = path / "models" / "model.pt", path.parent / "models" / path.name
        of_run = next((one for one in in_run if one.is_file()), None)
        near = f" (did you mean {of_run}?)" if of_run else did_you_mean(str(path), [*words, *map(str, _siblings(path))])
        choices = [", ".join(words), "the path of a .safetensors, .pt or .pth file"]
        raise InputError(f"No weights file {str(path)!r}{near}; give {' or '.join(filter(None, choices))}.")
    if path.suffix not in ENDINGS:
        raise InputError(f"Weights file {str(path)!r} ends in {path.suffix!r}; expected .safetensors, .pt or .pth.")
    return path


def _siblings(path: Path) -> list[Path]:
    """Names for "did you mean": weights files, and folders, which may be runs."""
    neighbours = list(path.parent.iterdir())[:1000] if path.parent.is_dir() else []
    return [one for one in neighbours if one.suffix in ENDINGS or one.is_dir()]
