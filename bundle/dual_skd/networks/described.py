# SPDX-License-Identifier: Apache-2.0
"""The one way from the description of a network in a file to the network.

A file may be a stranger's, and describe a network larger than any memory. So the network is first built without memory
(on the device ``meta``), and only takes some if its tensors are those of the file.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.networks.weight_files import bytes_of
from dual_skd.options.kinds import BY_THE_RUN

LARGEST_SIZE = 2**13  # of any number in a description but the classes: channels, pixels, blocks
MOST_OPTIONS = 1000  # values in a description
MOST_PARTS = 50_000  # layers and tensors while a network is built; the deepest of timm's have a tenth
OTHER_BYTES = 2**28  # tables that a network computes for itself, beside the weights in its file
_OPTION = re.compile(r"[A-Za-z]\w*")
WIDER = 4  # bytes of a float32 for each byte of the smallest type of number


def load_described(architecture: Any, state: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Builds the network that a file describes and gives it the file's weights.

    Args:
        architecture: arguments of :func:`dual_skd.networks.build_network`, as they stand in the file.
        state: the file's state dict.
        path: the file, for messages.

    Returns:
        the network, on the CPU.

    Raises:
        InputError: it isn't the description of a network, or of another one than the weights are.
    """
    outline = _outline(architecture, path)
    wanted = {key: tuple(value.shape) for key, value in outline.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    different = [key for key in wanted | found if wanted.get(key) != found.get(key)]
    if different:
        key = different[0]
        raise InputError(
            f"{path}: weights and architecture don't belong together ({len(different)} tensors differ, {key} for "
            f"example: {found.get(key, 'none')}, not {wanted.get(key, 'none')}); train again."
        )
    _require_fits(outline, WIDER * bytes_of(state.values()) + OTHER_BYTES, path)
    with _failures_named(path):
        network = build_network(**architecture)
        network.load_state_dict(state)
    return network


def require_buildable(architecture: Any, path: Path, *, most_bytes: float) -> None:
    """Refuses to build a network with random weights from the description in a file, where it isn't one or is large.

    Args:
        architecture, path: see :func:`load_described`.
        most_bytes: of its parameters and buffers.

    Raises:
        InputError: it isn't the description of a network, or the network is larger.
    """
    _require_fits(_outline(architecture, path), most_bytes, path)


def _outline(architecture: Any, path: Path) -> nn.Module:
    """The network on the device ``meta``."""
    require_description(architecture, path)
    with _failures_named(path), torch.device("meta"), _few_parts():
        return build_network(**architecture)


def require_description(architecture: Any, path: str | Path) -> None:
    """Refuses what a run doesn't write as arguments of ``build_network``: numbers that no network has, and texts that
    MONAI's configs, which an export writes them into, would evaluate."""
    whole = isinstance(architecture, Mapping) and {"name", "num_classes"} <= architecture.keys()
    if not whole or not _is_plain({**architecture, "num_classes": 1}):
        raise InputError(
            f"{path} doesn't describe a network: expected {', '.join(BY_THE_RUN)} and options of the network, all "
            f"numbers up to {LARGEST_SIZE}; give the model.pt or model.safetensors of a training run."
        )


def _is_plain(description: Mapping[Any, Any]) -> bool:
    values: list[Any] = [description]
    for value in values:  # which grows
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) and _OPTION.fullmatch(key) for key in value):
                return False
            values += value.values()
        elif isinstance(value, list | tuple):
            values += value
        elif isinstance(value, str):
            if value.startswith(("$", "@", "%")):
                return False
        elif value is not None and not (isinstance(value, int | float) and abs(value) <= LARGEST_SIZE):
            return False
        if len(values) > MOST_OPTIONS:
            return False
    return True


@contextlib.contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    """Names the file in whatever building its network raises: libraries meet values here that they never expected."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise InputError(f"{path}: its network can't be built: {reason}.") from error


@contextlib.contextmanager
def _few_parts() -> Iterator[None]:
    """Ends the building of a network of more than ``MOST_PARTS`` layers and tensors."""
    parts = itertools.count()

    def count(*_: object) -> None:
        if next(parts) > MOST_PARTS:
            raise InputError(f"it has more than {MOST_PARTS} layers and tensors")

    with contextlib.ExitStack() as stack:
        for register in (
            hooks.register_module_module_registration_hook,
            hooks.register_module_parameter_registration_hook,
            hooks.register_module_buffer_registration_hook,
        ):
            stack.callback(register(count).remove)
        yield


def _require_fits(outline: nn.Module, most_bytes: float, path: Path) -> None:
    tensors = itertools.chain(outline.parameters(), outline.buffers())
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if needed > most_bytes:
        raise InputError(
            f"{path}: its network would take {needed / 2**30:.1f} GiB, more than the {most_bytes / 2**30:.1f} that its "
            "file can fill; give the file of a training run."
        )
