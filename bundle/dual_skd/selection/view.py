# SPDX-License-Identifier: Apache-2.0
"""A network as the planning of a selection sees it: a module, or a state dict alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..errors import SelectionError

Network = nn.Module | Mapping[str, Tensor]


@dataclass(frozen=True)
class View:
    """A network as planning sees it: tensors, and what only a module can tell."""

    state: Mapping[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    buffers: frozenset[str]
    heads: dict[str, int]
    grid: tuple[int, ...] | None

    def head_count(self, name: str, given: int | None) -> int | None:
        """Heads of the attention that a tensor belongs to, unless they were given; None where nothing tells."""
        if given is not None:
            return given
        parts = name.split(".")
        # the attention itself first, then what is around it
        paths = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
        return next((self.heads[path] for path in paths if path in self.heads), None)

    @property
    def position_name(self) -> str | None:
        """Name of the position embedding."""
        return next((name for name in self.shapes if name.endswith(("pos_embed", "position_embeddings"))), None)


def view_of(network: Network, grid: Sequence[int] | None) -> View:
    """Looks at a network; ``grid`` are the positions per axis of its embedding, where the network doesn't tell.

    Raises:
        SelectionError: it is neither a module nor a state dict.
    """
    if not isinstance(network, nn.Module):
        if not isinstance(network, Mapping) or not all(isinstance(value, Tensor) for value in network.values()):
            raise SelectionError(f"expected a module or a state dict of tensors, got {type(network).__name__}")
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        buffers = frozenset(name for name in network if name.endswith(statistics))
        shapes = {name: tuple(value.shape) for name, value in network.items()}
        return View(network, shapes, buffers, {}, tuple(grid) if grid else None)
    state = network.state_dict()
    heads: dict[str, int] = {}
    found_grid: tuple[int, ...] | None = None
    for path, module in network.named_modules():
        for name in ("num_heads", "heads"):  # timm's Hiera says heads
            if isinstance(number := getattr(module, name, None), int):
                heads.setdefault(path, number)
        if isinstance(size := getattr(module, "grid_size", None), tuple):
            found_grid = size
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    buffers = frozenset(name for name, _ in network.named_buffers())
    return View(state, shapes, buffers, heads, tuple(grid) if grid else found_grid)
