# SPDX-License-Identifier: Apache-2.0
"""Copies of a network with other tensors: followed, filled and run in place of the caller's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from dual_skd.errors import SelectionError


def copy_with(network: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of a network in evaluation, whose tensors are made from its own.

    The tensors that modules keep beside their parameters and buffers are converted too: tables, the attention of the
    last image, a weight that a norm of weights computes.

    Args:
        network: any network; it isn't changed.
        convert: gives the tensor that takes the place of one.

    Raises:
        SelectionError: a module can't be copied.
    """
    memo: dict[int, Any] = {}
    for module in network.modules():
        own = chain(module.parameters(recurse=False), module.buffers(recurse=False), tree_leaves(dict(vars(module))))
        for value in own:
            if isinstance(value, Tensor) and id(value) not in memo:
                new = convert(value.detach())
                is_parameter = isinstance(value, nn.Parameter)
                memo[id(value)] = nn.Parameter(new, requires_grad=False) if is_parameter else new
    try:
        return copy.deepcopy(network, memo).eval()
    except Exception as error:  # whatever the parts of a foreign network raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SelectionError(f"{type(network).__name__} can't be copied ({reason})") from error


@contextmanager
def without_memory(network: nn.Module) -> Iterator[None]:
    """While active, a network may keep what it likes; afterwards it has forgotten it (caches of attention biases)."""
    kept = [
        (module, {name: copy.copy(own) if type(own) in (dict, list) else own for name, own in vars(module).items()})
        for module in network.modules()
        if not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        yield
    finally:
        for module, attributes in kept:
            vars(module).clear()
            vars(module).update(attributes)
