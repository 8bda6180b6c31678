# SPDX-License-Identifier: Apache-2.0
"""A network as the planning of a selection sees it: a module, or a state dict alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from dual_skd.errors import SelectionError
from dual_skd.selection.resample import guess_grid


@dataclass(frozen=True)
class View:
    """A network as planning sees it: tensors, and what only a module can tell.

    Args:
        state: tensors by name.
        shapes: their shapes.
        buffers: names of those that aren't parameters.
        heads: path of a module -> its attention heads.
        skips: path of a block -> whether it adds its input, for timm's blocks that say so.
        grid: tokens per axis of the position embedding; None where nothing tells.
        leading: tokens of a position embedding of unknown grid that have no place in it; None where nothing tells.
        name: of the network, for the reader.
    """

    state: Mapping[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    buffers: frozenset[str]
    heads: dict[str, int]
    skips: dict[str, bool]
    grid: tuple[int, ...] | None
    leading: int | None = None
    name: str = "weights"

    @property
    def parameters(self) -> int:
        """Number of parameters, without buffers."""
        return sum(math.prod(shape) for name, shape in self.shapes.items() if name not in self.buffers)

    def with_values(self, state: Mapping[str, Tensor]) -> View:
        """The same network with other tensors, those of a file for instance.

        A position embedding may have another length; its grid isn't known then.
        """
        view = replace(self, state=state, shapes={name: tuple(value.shape) for name, value in state.items()})
        name = self.position_name
        if self.grid is None or name is None or view.shapes.get(name) == self.shapes[name]:
            return view
        leading = self.shapes[name][1] - math.prod(self.grid)
        return replace(view, grid=None, leading=leading if leading >= 0 else None)

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

    def token_grid(self, name: str, spatial_dims: int) -> tuple[tuple[int, ...], int] | None:
        """(token grid, leading tokens without a place in it) of a position embedding; None where nothing tells.

        An unknown grid is taken as square or cubic.
        """
        tokens = self.shapes[name][1]
        if self.grid is not None:
            leading = tokens - math.prod(self.grid)
            return (self.grid, leading) if leading >= 0 else None
        if self.leading is not None:
            return guess_grid(tokens, spatial_dims, [self.leading])
        words = ("cls_token", "reg_token", "register_tokens")
        extra = sum(shape[1] for key, shape in self.shapes.items() if key.endswith(words))
        return guess_grid(tokens, spatial_dims, list(dict.fromkeys([extra, min(extra, 1), 0])))


Network = nn.Module | Mapping[str, Tensor] | View


def view_of(network: Network, grid: Sequence[int] | None = None) -> View:
    """Looks at a network; ``grid`` are the positions per axis of its embedding, where the network doesn't tell.

    Raises:
        SelectionError: it is neither a module nor a state dict.
    """
    if isinstance(network, View):
        return network if grid is None else replace(network, grid=tuple(grid))
    if not isinstance(network, nn.Module):
        if not isinstance(network, Mapping) or not all(isinstance(value, Tensor) for value in network.values()):
            raise SelectionError(f"expected a module or a state dict of tensors, got {type(network).__name__}")
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        buffers = frozenset(name for name in network if name.endswith(statistics))
        shapes = {name: tuple(value.shape) for name, value in network.items()}
        return View(network, shapes, buffers, {}, {}, tuple(grid) if grid else None)
    state = network.state_dict()
    heads: dict[str, int] = {}
    skips: dict[str, bool] = {}
    found_grid: tuple[int, ...] | None = None
    for path, module in network.named_modules():
        for name in ("num_heads", "heads"):  # timm's Hiera says heads
            if isinstance(number := getattr(module, name, None), int):
                heads.setdefault(path, number)
        if isinstance(skip := getattr(module, "has_skip", None), bool):
            skips[path] = skip
        if isinstance(size := getattr(module, "grid_size", None), tuple):
            found_grid = size
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    buffers = frozenset(name for name, _ in network.named_buffers())
    named = (getattr(network, "pretrained_cfg", None) or {}).get("architecture")  # timm's
    name = str(named or type(network).__name__)
    return View(state, shapes, buffers, heads, skips, tuple(grid) if grid else found_grid, name=name)
