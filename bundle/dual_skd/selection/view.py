# SPDX-License-Identifier: Apache-2.0
"""A network as the planning of a selection sees it: a module, or a state dict alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dual_skd.errors import SelectionError
from dual_skd.selection.classifier import classifier_tensors
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
        grid: tokens per axis of the position embedding; None if unknown.
        leading: tokens in front of the grid of a position embedding, if only they are known.
        name: name of the network in messages.
        classifier: names of the classifier's tensors, see :func:`.classifier.classifier_tensors`.
        module: the network itself; None where only a state dict is known.
        image_size: (H, W[, D]) of an image that it takes, where the network doesn't state it.
    """

    state: Mapping[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    buffers: frozenset[str]
    heads: dict[str, int]
    skips: dict[str, bool]
    grid: tuple[int, ...] | None
    leading: int | None = None
    name: str = "weights"
    classifier: frozenset[str] = frozenset()
    module: nn.Module | None = None
    image_size: tuple[int, ...] | None = None

    @property
    def parameters(self) -> int:
        """Number of parameters, without buffers."""
        return sum(math.prod(shape) for name, shape in self.shapes.items() if name not in self.buffers)

    def with_values(self, state: Mapping[str, Tensor]) -> View:
        """The same network with other tensors of its names, those of a file for instance.

        A position embedding may have another length; its grid isn't known then.
        """
        shapes = _shapes(state)
        view = replace(self, state=state, shapes=shapes, classifier=classifier_tensors(shapes, self.module))
        name = self.position_name
        if self.grid is None or name is None or view.shapes.get(name) == self.shapes[name]:
            return view
        leading = self.shapes[name][1] - math.prod(self.grid)
        return replace(view, grid=None, leading=leading if leading >= 0 else None)

    def head_count(self, name: str, given: int | None) -> int | None:
        """Heads of the attention that a tensor belongs to, unless they were given; None if unknown."""
        if given is not None:
            return given
        parts = name.split(".")
        # from the attention itself outwards
        paths = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
        return next((self.heads[path] for path in paths if path in self.heads), None)

    @property
    def position_name(self) -> str | None:
        """Name of the position embedding."""
        return next((name for name in self.shapes if name.endswith(("pos_embed", "position_embeddings"))), None)

    def token_grid(self, name: str, spatial_dims: int) -> tuple[tuple[int, ...], int] | None:
        """(token grid, leading tokens without a place in it) of a position embedding; None if unknown.

        An unknown grid is taken as square or cubic.
        """
        tokens = self.shapes[name][1]
        if self.grid is not None:
            leading = tokens - math.prod(self.grid)
            return (self.grid, leading) if leading >= 0 else None
        if self.leading is not None:
            return guess_grid(tokens, spatial_dims, [self.leading])
        words = ("cls_token", "dist_token", "reg_token", "register_tokens")
        extra = sum(shape[1] for key, shape in self.shapes.items() if key.endswith(words))
        return guess_grid(tokens, spatial_dims, list(dict.fromkeys([extra, min(extra, 1), 0])))


Network = nn.Module | Mapping[str, Tensor] | View


def view_of(network: Network, grid: Sequence[int] | None = None) -> View:
    """The view of a network.

    Args:
        network: module, state dict, or view.
        grid: tokens per axis of its position embedding; None for those of the module.

    Raises:
        SelectionError: it is neither a module nor a state dict.
    """
    if isinstance(network, View):
        view = network
    elif isinstance(network, nn.Module):
        view = _of_module(network)
    elif isinstance(network, Mapping) and all(isinstance(value, Tensor) for value in network.values()):
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        buffers = frozenset(name for name in network if name.endswith(statistics))
        shapes = _shapes(network)
        view = View(network, shapes, buffers, heads_of(shapes), {}, None, classifier=classifier_tensors(shapes))
    else:
        raise SelectionError(f"expected a module or a state dict of tensors, got {type(network).__name__}")
    return view if grid is None else replace(view, grid=tuple(grid))


def _of_module(network: nn.Module) -> View:
    heads: dict[str, int] = {}
    skips: dict[str, bool] = {}
    grid: tuple[int, ...] | None = None
    for path, module in network.named_modules():
        for name in ("num_heads", "heads", "num_attention_heads"):  # of timm, of its Hiera, of Hugging Face
            if isinstance(number := getattr(module, name, None), int):
                heads.setdefault(path, number)
        for name in ("has_skip", "use_res_connect"):  # of timm, of torchvision
            if isinstance(skip := getattr(module, name, None), bool):
                skips[path] = skip
        if isinstance(size := getattr(module, "grid_size", None), tuple):
            grid = size
    state = network.state_dict()
    shapes = _shapes(state)
    buffers = frozenset(name for name, _ in network.named_buffers())
    named = (getattr(network, "pretrained_cfg", None) or {}).get("architecture")  # timm's
    return View(
        state, shapes, buffers, heads, skips, grid, name=str(named or type(network).__name__),
        classifier=classifier_tensors(shapes, network), module=network,
    )  # fmt: skip


def heads_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Path of an attention -> its heads, where a tensor has an entry for each."""
    sizes = {".relative_position_bias_table": -1, ".logit_scale": 0, ".proj_l.weight": 0}
    return {
        name.removesuffix(leaf): shape[dim]
        for name, shape in shapes.items()
        for leaf, dim in sizes.items()
        if name.endswith(leaf) and len(shape) > 1
    }


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    if lazy := next((name for name, value in state.items() if is_lazy(value)), None):
        raise SelectionError(f"{lazy} has no shape yet; run the network once on an image before the selection")
    return {name: tuple(value.shape) for name, value in state.items()}
