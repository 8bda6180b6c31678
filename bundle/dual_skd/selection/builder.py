# SPDX-License-Identifier: Apache-2.0
"""How a plan comes about: which tensor is taken from which, by which axes, and each axis's indices."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dual_skd.errors import SelectionError
from dual_skd.selection.axes import (
    CONSTANTS,
    FAMILIES,
    NEUTRAL,
    NetworkAxes,
    TensorAxes,
    describe,
    find_family,
    is_classifier,
)
from dual_skd.selection.resample import (
    bias_windows,
    match_input_channels,
    resize_bias_table,
    resize_kernel,
    resize_positions,
)
from dual_skd.selection.rules import choose_elements, choose_layers
from dual_skd.selection.view import View

logger = logging.getLogger(__name__)

LayerRule = str | Sequence[int] | Sequence[Sequence[int]] | Mapping[Any, Sequence[int]]

DEFAULT_HEAD_DIM = 64  # of every standard ViT; assumed where only a state dict is known

GRID_REMEDY = "give {0}_grid (--{0}-grid of the select command), in training img_size in {0}_options"


@dataclass(frozen=True)
class Axis:
    """One named axis: its size in both networks."""

    name: str
    large: int
    small: int


@dataclass(frozen=True)
class Part:
    """Plan of one tensor: the axes of each index-selected dimension, then the adaptation of the rest.

    ``neutral`` fills a tensor that the large network does without; ``add_first`` names a position embedding whose first
    entry is added (a class token that has no position of its own in the small network).
    """

    name: str
    source: str | None
    dims: tuple[tuple[Axis, ...] | None, ...] = ()
    adapt: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = ()
    reason: str = ""
    neutral: float | None = None
    add_first: str | None = None


class PlanBuilder:
    """Collects the parts of a plan and checks that each axis has one size per network."""

    def __init__(
        self,
        large: View,
        small: View,
        rule: str,
        mode: str,
        large_heads: int | None,
        small_heads: int | None,
    ) -> None:
        self.large, self.small, self.rule, self.mode = large, small, rule, mode
        self.given_heads = (large_heads, small_heads)
        self.parts: list[Part] = []
        self.sizes: dict[str, Axis] = {}
        self.same: dict[str, str] = {}
        self.lost: dict[tuple[str, ...], str] = {}  # output axis -> layer that reads another stage
        self.doubts: list[str] = []

    @property
    def verified(self) -> bool:
        return not self.doubts

    # ---- known families

    def plan_family(self, large: NetworkAxes, small: NetworkAxes, layers: LayerRule) -> None:
        blocks = _map_blocks(large, small, layers)
        self.spatial_dims = [_spatial_dims(view, axes) for view, axes in ((self.large, large), (self.small, small))]
        for name, shape in self.small.shapes.items():
            axes = small.tensors.get(name)
            if axes is None:
                self.parts.append(self._outside(name, name in small.unknown))
                continue
            if self.mode == "reference" and "head" in name:
                self.parts.append(Part(name, None, reason="the published code skips names with 'head'"))
                continue
            role, stage, block = axes.key
            if block is not None:
                block = blocks.get(stage, {}).get(block)
                if block is None:
                    depth = large.depths.get(stage, 0)
                    self.parts.append(
                        Part(name, None, reason=f"the large network has only {depth} blocks here, none is left")
                    )
                    continue
            source = large.by_key.get((role, stage, block))
            if source is None:
                self.parts.append(self._missing(name, large, (role, stage, block)))
                continue
            self.parts.append(self._family_part(name, shape, axes, source, large.tensors[source]))
        self._drop_norms_of_lost_layers(small)
        self._tie_neighbours(small)
        self._note_absent(large, small, blocks)

    def _drop_norms_of_lost_layers(self, small: NetworkAxes) -> None:
        """A normalisation goes with the layer in front of it: statistics of other channels would mislead."""
        for place, part in enumerate(self.parts):
            axes = small.tensors.get(part.name)
            if axes is not None and not part.reason and len(axes.dims) < 2:
                layer = self.lost.get(axes.dims[0] if axes.dims else _axis_beside(small, part.name))
                if layer:
                    self.parts[place] = Part(part.name, part.source, reason=f"belongs to {layer}, which isn't selected")

    def _note_absent(
        self, large: NetworkAxes, small: NetworkAxes, blocks: Mapping[str, Mapping[int, int | None]]
    ) -> None:
        """Says which tensors of the used blocks the small network does without; a projection decides on consistency."""
        back = {(stage, source): block for stage, chosen in blocks.items() for block, source in chosen.items()}
        absent = []
        for (role, stage, block), name in large.by_key.items():
            if (block is not None and (stage, block) not in back) or not large.tensors[name].dims:
                continue
            if (role, stage, back.get((stage, block))) not in small.by_key:
                absent.append(name)
                if role.startswith("downsample.0.weight"):
                    self.doubts.append(
                        f"the large network projects its residual stream ({name}), the small one doesn't"
                    )
        if absent:
            logger.warning(
                "The small network has no counterpart of %s%s: without it, it computes otherwise than the large one.",
                ", ".join(absent[:3]),
                f" and {len(absent) - 3} others" if len(absent) > 3 else "",
            )

    def _outside(self, name: str, unknown: bool) -> Part:
        if not unknown:
            return Part(name, None, reason="classifier: belongs to the old classes")
        self.doubts.append(f"{name} is not in the family's table")
        return self._generic_part(name)

    def _missing(self, name: str, large: NetworkAxes, key: tuple[str, str, int | None]) -> Part:
        """A tensor that the large network lacks: neutral where the layer around it exists, else left alone."""
        role, stage, block = key
        word = name.rpartition(".")[2]
        block_is_there = block is not None and any(key[1:] == (stage, block) for key in large.by_key)
        layer_is_there = (role.replace("bias", "weight"), stage, block) in large.by_key
        if (word == "bias" and layer_is_there) or (word == "gamma" and block_is_there):
            return Part(name, None, neutral=NEUTRAL[word])
        return Part(name, None, reason="the large network has no such tensor")

    def _family_part(
        self, name: str, shape: tuple[int, ...], small: TensorAxes, source: str, large: TensorAxes
    ) -> Part:
        old = self.large.shapes[source]
        if small.kind != large.kind:
            kinds = f"{small.kind} here, {large.kind} in the large network"
            return Part(name, source, reason=f"block of another kind: {kinds}")
        if len(small.dims) != len(large.dims) or len(shape) < len(small.dims) or len(old) < len(large.dims):
            return Part(name, source, reason=f"other form: {_x(shape)} here, {_x(old)} in the large network")
        count = len(small.dims)
        if small.key[2] is None and small.dims != large.dims:  # only names with {last} can differ outside of blocks
            differ = next((a, b) for a, b in zip(small.dims, large.dims, strict=True) if a != b)
            self.lost[small.dims[0]] = name
            ends = f"{differ[0][0]} here, {differ[1][0]} in the large network"
            return Part(name, source, reason=f"the networks end in different stages ({ends})")
        if self.mode == "reference":
            return self._reference_part(name, shape, source, old, small)
        dims: list[tuple[Axis, ...] | None] = []
        adapt: list[tuple[str, Callable[[Tensor], Tensor]]] = []
        for position, words in enumerate(small.dims):
            if words == ("tokens",):
                steps = self._positions(name, source)
                if isinstance(steps, str):
                    return Part(name, source, reason=steps)
                adapt += steps
                dims.append(None)
            elif words == ("image",):
                adapt += self._channels(old[position], shape[position])
                dims.append(None)
            elif words == ("1",) or words == ("pixels",):
                if old[position] != shape[position]:
                    return Part(name, source, reason=f"other form: {_x(shape)} here, {_x(old)} in the large network")
                dims.append(None)
            else:
                dims.append(self._axes(name, source, words, position))
        kernel = self._kernel(old[count:], shape[count:], patch="patch_embed" in name)
        if isinstance(kernel, str):
            return Part(name, source, reason=kernel)
        add_first = self._lost_class_position() if small.key[0].startswith("cls_token") else None
        return Part(name, source, tuple(dims), tuple(kernel + adapt), add_first=add_first)

    def _axes(self, name: str, source: str, words: tuple[str, ...], position: int) -> tuple[Axis, ...]:
        """The axes of one dimension with their sizes in both networks."""
        old, new = self.large.shapes[source][position], self.small.shapes[name][position]
        if len(words) == 1:
            large, small = [old], [new]
        else:
            factor = math.prod(CONSTANTS.get(word, 1) for word in words)
            free = [word for word in words if word not in CONSTANTS]
            large, small = [old // factor], [new // factor]
            if len(free) == 2:
                large, small = self._split_heads(name, source, large[0], small[0])
            sizes = iter(zip(large, small, strict=True))
            pairs = [(CONSTANTS[word],) * 2 if word in CONSTANTS else next(sizes) for word in words]
            large, small = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return tuple(self._axis(word, a, b, name, source) for word, a, b in zip(words, large, small, strict=True))

    def _axis(self, word: str, large: int, small: int, name: str, source: str) -> Axis:
        if small > large:
            remedy = "make the small network narrower or take a larger one to select from"
            if word.endswith(".head"):
                remedy = "give the small network at most as many heads"
            raise SelectionError(
                f"{name}: the small network has {small} on axis '{word}', the large one only {large} "
                f"(shape {_x(self.small.shapes[name])} from {_x(self.large.shapes[source])} of {source}, "
                f"rule '{self.rule}'); {remedy}"
            )
        axis = Axis(word, large, small)
        known = self.sizes.setdefault(word, axis)
        if known != axis:
            self.doubts.append(f"axis {word} has sizes {known.large} and {large} in the large network ({name})")
            axis = Axis(f"{word}@{large}->{small}", large, small)
            self.sizes.setdefault(axis.name, axis)
        return axis

    def _split_heads(self, name: str, source: str, large: int, small: int) -> tuple[list[int], list[int]]:
        """(heads, channels per head) of both networks for an attention of the given inner widths."""
        old_heads = self.large.head_count(source, self.given_heads[0])
        new_heads = self.small.head_count(name, self.given_heads[1])
        if old_heads is None:
            old_heads = _divide(large, DEFAULT_HEAD_DIM, source, "large_heads")
        if large % old_heads:
            raise SelectionError(
                f"{source}: {large} attention channels can't be {old_heads} heads; correct large_heads"
            )
        if new_heads is None:
            new_heads = _divide(small, large // old_heads, name, "small_heads")
        if small % new_heads:
            raise SelectionError(f"{name}: {small} attention channels can't be {new_heads} heads; correct small_heads")
        return [old_heads, large // old_heads], [new_heads, small // new_heads]

    def _channels(self, old: int, new: int) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
        if old == new:
            return []
        how = "summed" if new == 1 else "summed and shared"
        return [(f"input channels {old} -> {new}, {how}", partial(match_input_channels, channels=new))]

    def _kernel(
        self, old: tuple[int, ...], new: tuple[int, ...], *, patch: bool
    ) -> list[tuple[str, Callable[[Tensor], Tensor]]] | str:
        if old == new:
            return []
        if resize_kernel(torch.empty(1, 1, *old, device="meta"), new) is None and not (
            patch and len(old) == 2 and len(new) in (2, 3)
        ):
            return f"other kernel: {_x(new)} here, {_x(old)} in the large network"
        step: Callable[..., Any] = partial(resize_kernel, size=new, patch=patch)  # None was ruled out above
        return [(f"kernel {_x(old)} -> {_x(new)}", step)]

    def _token_grids(self, large: str, small: str) -> list[tuple[tuple[int, ...], int] | None]:
        """(token grid, leading tokens) of a position embedding in the large and in the small network."""
        sides = zip((self.large, self.small), (large, small), self.spatial_dims, strict=True)
        return [view.token_grid(name, dims) for view, name, dims in sides]

    def _positions(self, name: str, source: str) -> list[tuple[str, Callable[[Tensor], Tensor]]] | str:
        old, new = self._token_grids(source, name)
        old_tokens, new_tokens = self.large.shapes[source][1], self.small.shapes[name][1]
        if self.large.grid is None and old_tokens == new_tokens and self.spatial_dims[0] == self.spatial_dims[1]:
            # a network that is fine-tuned again has the grid it had
            if old != new and new is not None:
                logger.warning(
                    "%s: nothing tells the grid of its %d positions in the large network, so it is taken to be that of "
                    "the small one, %s; %s.", name, old_tokens, _x(new[0]), GRID_REMEDY.format("large")
                )  # fmt: skip
            return []
        if old is None or new is None:
            which, tokens = ("large", old_tokens) if old is None else ("small", new_tokens)
            reason = f"the grid of the {tokens} positions in the {which} network is unknown"
            logger.warning("%s isn't selected: %s; %s.", name, reason, GRID_REMEDY.format(which))
            return reason
        if old == new:
            return []
        (old_grid, old_prefix), (new_grid, new_prefix) = old, new
        if len(new_grid) < len(old_grid):
            return f"positions {_x(old_grid)} of a volume don't fit {_x(new_grid)}"
        step = partial(
            resize_positions, old_grid=old_grid, new_grid=new_grid, old_prefix=old_prefix, new_prefix=new_prefix
        )
        return [(f"positions {_x(old_grid)} -> {_x(new_grid)}, {new_prefix} leading", step)]

    def _lost_class_position(self) -> str | None:
        """The large position embedding, if only there the class token has an entry (timm has one, MONAI has not)."""
        source, name = self.large.position_name, self.small.position_name
        if source is None or name is None:
            return None
        old, new = self._token_grids(source, name)
        return source if old and new and old[1] > 0 and new[1] == 0 else None

    def _tie_neighbours(self, small: NetworkAxes) -> None:
        """Joins the streams of neighbouring stages where no projection need lie between them.

        Between two stages of equal width the residual connection may run straight through (ResNet's first stage,
        EfficientNet's stages without stride). Shapes alone can't tell; joining is right in both cases. Streams that are
        equal in the small network alone can't be joined: where a residual connection runs there, it adds channels that
        have nothing to do with each other.
        """
        family = small.family
        if not family.staged:
            return
        stages = sorted(small.depths, key=int)
        streams = [family.stem, *(family.stream.replace("{s}", stage) for stage in stages)]
        for stage, (before, after) in zip(stages, pairwise(streams), strict=True):
            a, b = self.sizes.get(before), self.sizes.get(after)
            if not a or not b or before == after or a.small != b.small:
                continue
            block = small.prefix + family.block.format(s=stage, b=0)
            if a.large == b.large:
                self.same[after] = self.same.get(before, before)
            elif family.skips_by_width and self.small.skips.get(block, True):  # a state dict doesn't tell
                self.doubts.append(f"{block} may add its input, which the large network's block can't")

    # ---- networks without a table, and the published rule

    def plan_generic(self, layers: LayerRule) -> None:
        if layers != "first":
            raise SelectionError(
                f"layers={layers!r} needs a known family ({', '.join(FAMILIES)}), and this network is of none: "
                "use layers='first' (in training --selection_layers first --selection_layers_auxiliary first)"
            )
        self.doubts.append("no family recognised: indices follow from sizes alone")
        for name in self.small.shapes:
            if is_classifier(name):
                self.parts.append(Part(name, None, reason="classifier: belongs to the old classes"))
            elif self.mode == "reference" and "head" in name:
                self.parts.append(Part(name, None, reason="the published code skips names with 'head'"))
            else:
                self.parts.append(self._generic_part(name))

    def _generic_part(self, name: str) -> Part:
        """A tensor by itself: dimensions of equal sizes get equal indices, kernels must agree."""
        if name not in self.large.shapes:
            return Part(name, None, reason="the large network has no such tensor")
        shape, old = self.small.shapes[name], self.large.shapes[name]
        count = min(len(shape), 2)
        if len(old) < count or (count < 2 and len(old) != count):
            return Part(name, name, reason=f"other form: {_x(shape)} here, {_x(old)} in the large network")
        if self.mode == "reference":
            return self._reference_part(name, shape, name, old, None)
        if name.endswith("relative_position_bias_table") and len(old) == count == 2 and old[0] != shape[0]:
            return self._relative_positions(name, old[0], shape[0])
        kernel = self._kernel(old[count:], shape[count:], patch=False)
        if isinstance(kernel, str):
            return Part(name, name, reason=kernel)
        is_image = len(shape) > 3 and old[1] == 3 and shape[1] != 3
        dims: list[tuple[Axis, ...] | None] = []
        for position in range(count):
            if position == 1 and is_image:
                kernel += self._channels(old[1], shape[1])
                dims.append(None)
            else:
                dims.append(self._sized_axis(name, name, position))
        return Part(name, name, tuple(dims), tuple(kernel))

    def _relative_positions(self, name: str, old: int, new: int) -> Part:
        """A table with a row per relative position: resampled to another window, as position embeddings are."""
        windows = bias_windows(old, new)
        if windows is None:
            return Part(name, name, reason=f"other window: {new} relative positions here, {old} in the large network")
        (old_window, new_window), special = windows
        step = partial(resize_bias_table, window=new_window, special=special)
        text = f"relative positions of windows {_x((old_window,) * 2)} -> {_x((new_window,) * 2)}"
        return Part(name, name, (None, self._sized_axis(name, name, 1)), ((text, step),))

    def _reference_part(
        self, name: str, shape: tuple[int, ...], source: str, old: tuple[int, ...], axes: TensorAxes | None
    ) -> Part:
        """The published rule, for comparison only: each dimension on its own, kernels and positions too.

        Input channels are summed and kernels inflated as in the structured mode: the published code has neither.
        """
        adapt: list[tuple[str, Callable[[Tensor], Tensor]]] = []
        if len(shape) != len(old):
            count = min(2, len(shape))
            kernel = self._kernel(old[count:], shape[count:], patch=False)
            if isinstance(kernel, str):
                return Part(name, source, reason=kernel)
            adapt += kernel
            old, shape = old[:count], shape[:count]
        dims: list[tuple[Axis, ...] | None] = []
        for position in range(len(shape)):
            if position == 1 and axes is not None and axes.dims[1:2] == (("image",),):
                adapt += self._channels(old[1], shape[1])
                dims.append(None)
            else:
                dims.append(self._sized_axis(name, source, position))
        return Part(name, source, tuple(dims), tuple(adapt))

    def _sized_axis(self, name: str, source: str, position: int) -> tuple[Axis, ...]:
        old, new = self.large.shapes[source][position], self.small.shapes[name][position]
        return (self._axis(f"size {old}->{new}", old, new, name, source),)

    # ---- index sets

    def choose_indices(self, rule: str, seed: int) -> dict[str, Tensor]:
        """One index set per axis; joined axes share theirs."""
        strengths = self._strengths() if rule == "importance" else {}
        indices = {}
        for axis in self.sizes.values():
            if axis.name in CONSTANTS:
                continue
            root = self.same.get(axis.name, axis.name)
            indices[axis.name] = choose_elements(
                rule, axis.large, axis.small, axis=root, seed=seed, strength=strengths.get(root)
            )
        return indices

    def _strengths(self) -> dict[str, Tensor]:
        """Squared norm per index of each axis, summed over all selected parameters on it (no running statistics)."""
        totals: dict[str, Tensor] = {}
        for part in self.parts:
            if part.reason or part.source is None or part.source in self.large.buffers or not any(part.dims):
                continue
            tensor = self.large.state[part.source]
            if tensor.device.type == "meta" or not tensor.is_floating_point():
                continue
            squared = tensor.detach().float().square()
            for position, dim in enumerate(part.dims):
                if dim is None or all(axis.large == axis.small for axis in dim):
                    continue
                others = [other for other in range(squared.dim()) if other != position]
                flat = (squared.sum(others) if others else squared).double().cpu()
                composed = flat.reshape([axis.large for axis in dim])
                for place, axis in enumerate(dim):
                    rest = [other for other in range(len(dim)) if other != place]
                    score = composed.sum(rest) if rest else composed
                    root = self.same.get(axis.name, axis.name)
                    totals[root] = totals[root] + score if root in totals else score
        return totals


def _map_blocks(large: NetworkAxes, small: NetworkAxes, layers: LayerRule) -> dict[str, dict[int, int | None]]:
    stages = sorted(small.depths, key=lambda stage: int(stage or 0))
    rules: dict[str, Any]
    if isinstance(layers, str):
        rules = dict.fromkeys(stages, layers)
    elif not small.family.staged:
        if isinstance(layers, Mapping) or any(isinstance(block, Sequence) for block in layers):
            raise SelectionError(f"layers={layers}: this network has no stages; list its blocks alone, as [0, 2, 5]")
        rules = dict.fromkeys(stages, layers)
    elif isinstance(layers, Mapping):
        given = {str(stage): rule for stage, rule in layers.items()}
        if strange := set(given) - set(stages):
            raise SelectionError(f"layers names stages {sorted(strange)}; the small network has {', '.join(stages)}")
        rules = {stage: given.get(stage, "first") for stage in stages}
    else:
        if len(layers) != len(stages) or any(isinstance(rule, int) for rule in layers):
            raise SelectionError(f"layers={layers}: expected one list of blocks for each of the {len(stages)} stages")
        rules = dict(zip(stages, layers, strict=True))
    mapped = {}
    for stage in stages:
        depth = large.depths.get(stage, 0)
        chosen = (
            choose_layers(rules[stage], depth, small.depths[stage], stage=stage, keep_first=small.family.keep_first)
            if depth
            else []
        )
        mapped[stage] = dict(enumerate(chosen))
    return mapped


def common_family(large: View, small: View, wanted: str | None) -> tuple[NetworkAxes, NetworkAxes] | None:
    if wanted == "generic":
        return None
    if wanted is None:
        found, other = find_family(list(large.shapes)), find_family(list(small.shapes))
        if found is not other:
            names = [item.name if item else "unknown" for item in (found, other)]
            logger.warning("The large network is of family %s, the small one of family %s.", *names)
            return None
    else:
        found = FAMILIES[wanted]
    return (describe(found, large.shapes), describe(found, small.shapes)) if found else None


def _divide(channels: int, head_dim: int, name: str, argument: str) -> int:
    if channels % head_dim:
        raise SelectionError(
            f"{name}: {channels} attention channels aren't a multiple of {head_dim} per head, and a state dict doesn't "
            f"tell the number of heads; give {argument}"
        )
    return channels // head_dim


def _axis_beside(axes: NetworkAxes, counter: str) -> tuple[str, ...]:
    """The axis of the layer that a scalar, a normalisation's counter, belongs to; () without one."""
    layer = counter.rpartition(".")[0] + "."
    return next((a.dims[0] for name, a in axes.tensors.items() if name.startswith(layer) and a.dims), ())


def _spatial_dims(view: View, axes: NetworkAxes) -> int:
    ranks = [len(view.shapes[name]) - 2 for name, item in axes.tensors.items() if ("image",) in item.dims]
    return max([2, *ranks])


def _x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
