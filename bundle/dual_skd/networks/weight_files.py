# SPDX-License-Identifier: Apache-2.0
"""Reads and writes files of weights, also those of other programs; pickled code never runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dual_skd.errors import InputError, did_you_mean
from dual_skd.utils.files import expanded, replace_file

ENDINGS = (".safetensors", ".pt", ".pth")

# entries of this package's model files besides the weights
INFO = ("architecture", "class_names", "preprocessing", "multi_label", "calibration")


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
    path = require_file(path, words=words)
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"Weights file {str(path)!r} can't be read ({reason}); download or copy it again.") from error
    except Exception as error:  # of pickle, whose message advises to run the code inside
        raise InputError(
            f"Weights file {str(path)!r} holds more than tensors and plain values, so it isn't opened; save its state "
            "dict alone, best as .safetensors."
        ) from error
    for key in ("model", "state_dict", "network"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    state = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not state:
        raise InputError(f"Weights file {str(path)!r} has no tensors; expected a state dict, name -> tensor.")
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def write_weights(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """Writes a state dict as .safetensors or, by the suffix, with torch.save."""
    state = {name: value.detach().clone().contiguous() for name, value in state.items()}
    save: Any = save_file if Path(path).suffix == ".safetensors" else torch.save
    replace_file(path, lambda draft: save(state, draft))


def read_info(path: str | Path) -> dict[str, Any]:
    """The entries of a model file besides the weights; empty for other files.

    Args:
        path: a file that :func:`load_state_file` reads.
    """
    path = expanded(path)
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            texts = file.metadata() or {}
        try:
            content = {key: json.loads(texts[key]) for key in INFO if key in texts}
        except json.JSONDecodeError:  # entries of another program
            content = {}
    else:
        content = torch.load(path, "cpu", weights_only=True)
        content = getattr(content, "_metadata", {}).get("", content)  # older files: next to a nested state dict
    return {key: content[key] for key in INFO if key in content}


def require_file(path: str | Path, *, words: Sequence[str] = ()) -> Path:
    """The path of an existing weights file, by its name; see :func:`load_state_file`."""
    path = expanded(path)
    if not path.is_file():
        near = did_you_mean(str(path), [*words, *map(str, _siblings(path))])
        choices = [*words, "the path of a .safetensors, .pt or .pth file"]
        raise InputError(f"No weights file {str(path)!r}{near}; give {' or '.join(choices)}.")
    if path.suffix not in ENDINGS:
        raise InputError(f"Weights file {str(path)!r} ends in {path.suffix!r}; expected .safetensors, .pt or .pth.")
    return path


def _siblings(path: Path) -> list[Path]:
    """Names for "did you mean": weights files, and folders, which may be runs."""
    neighbours = list(path.parent.iterdir())[:1000] if path.parent.is_dir() else []
    return [one for one in neighbours if one.suffix in ENDINGS or one.is_dir()]
