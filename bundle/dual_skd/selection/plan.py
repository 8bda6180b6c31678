# SPDX-License-Identifier: Apache-2.0
"""Weight selection: plan from names and shapes, apply to values, report per tensor.

Source of the idea: Xu et al., "Initializing Models with Larger Ones", 2023 (arXiv 2311.18823): choose blocks, map
tensors by name, keep a subset of the indices of every dimension. Here every dimension carries a named axis (see
``axes``), and one axis keeps the same indices in every tensor that touches it.

    >>> import torch
    >>> from dual_skd.selection import plan_selection
    >>> large = {"fc1.weight": torch.arange(8.0).reshape(4, 2)}
    >>> small = {"fc1.weight": torch.zeros(2, 2)}
    >>> plan_selection(large, small).apply()["fc1.weight"]
    tensor([[0., 1.],
            [4., 5.]])
"""

from __future__ import annotations

import csv
import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SelectionError
from .axes import CONSTANTS, FAMILIES, NEUTRAL, NetworkAxes, TensorAxes, describe, find_family, is_classifier
from .resample import guess_grid, match_input_channels, resize_kernel, resize_positions
from .rules import check_element_rule, choose_elements, choose_layers

logger = logging.getLogger(__name__)

Network = nn.Module | Mapping[str, Tensor]
LayerRule = str | Sequence[int] | Sequence[Sequence[int]] | Mapping[Any, Sequence[int]]

DEFAULT_HEAD_DIM = 64  # of every standard ViT; assumed where only a state dict is known


@dataclass(frozen=True)
class SelectionRow:
    """What happens to one tensor of the small network.

    Args:
        name: name in the small network.
        source: name in the large network, None where nothing is selected.
        shape: shape in the small network.
        source_shape: shape in the large network, None without a source.
        kept: axis name -> indices kept of the large network's axis.
        norm_share: squared norm of the kept entries over that of the whole source tensor, None without values.
        reason: why nothing is selected, ``""`` for selected tensors.
        note: what was adapted besides (input channels, kernel, positions), ``""`` for a plain copy.
    """

    name: str
    source: str | None
    shape: tuple[int, ...]
    source_shape: tuple[int, ...] | None
    kept: dict[str, list[int]]
    norm_share: float | None
    reason: str = ""
    note: str = ""

    @property
    def selected(self) -> bool:
        return not self.reason

    def keys(self) -> list[str]:
        """Column names: ``dict(row)`` gives the row as a dictionary."""
        return [column.name for column in fields(self)]

    def __getitem__(self, column: str) -> Any:
        return getattr(self, column)


class SelectionReport(list):
    """The rows of a selection, one per tensor of the small network, in its order."""

    def __init__(self, rows: Sequence[SelectionRow], *, verified: bool) -> None:
        super().__init__(rows)
        self.verified = verified

    @property
    def rows(self) -> list[SelectionRow]:
        return list(self)

    def write(self, path: str | Path, *, extra: Mapping[str, Any] | None = None) -> Path:
        """Writes the report as CSV; ``extra`` columns (constant) come first. Returns the path."""
        extra = dict(extra or {})
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*extra, *(column.name for column in fields(SelectionRow)), "verified"])
            writer.writerows([*extra.values(), *cells, self.verified] for cells in map(_cells, self))
        return path


def _cells(row: SelectionRow) -> list[Any]:
    kept = json.dumps({axis: _compact(indices) for axis, indices in row.kept.items()}) if row.kept else ""
    share = "" if row.norm_share is None else f"{row.norm_share:.6f}"
    shape = "x".join(map(str, row.shape))
    source_shape = "" if row.source_shape is None else "x".join(map(str, row.source_shape))
    return [row.name, row.source or "", shape, source_shape, kept, share, row.reason, row.note]


def _compact(indices: list[int]) -> str | list[int]:
    """An evenly spaced list as ``start:stop:step``, any other as it is."""
    steps = {after - before for before, after in zip(indices, indices[1:], strict=False)}
    if len(steps) > 1 or not indices:
        return indices
    step = steps.pop() if steps else 1
    return f"{indices[0]}:{indices[-1] + 1}:{step}"


@dataclass(frozen=True)
class _Axis:
    """One named axis: its size in both networks."""

    name: str
    large: int
    small: int


@dataclass(frozen=True)
class _Part:
    """Plan of one tensor: the axes of each index-selected dimension, then the adaptation of the rest.

    ``neutral`` fills a tensor that the large network does without; ``add_first`` names a position embedding whose first
    entry is added (a class token that has no position of its own in the small network).
    """

    name: str
    source: str | None
    dims: tuple[tuple[_Axis, ...] | None, ...] = ()
    adapt: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = ()
    reason: str = ""
    neutral: float | None = None
    add_first: str | None = None


@dataclass(frozen=True)
class _View:
    """A network as planning sees it: tensors, and what only a module can tell."""

    state: Mapping[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    buffers: frozenset[str]
    heads: dict[str, int]
    grid: tuple[int, ...] | None


class SelectionPlan:
    """Which entry of the large network each entry of the small one is copied from. Made by :func:`plan_selection`.

    Attributes:
        family: name of the family, or ``"generic"``.
        verified: True where the family is known and every axis was found consistent. False for networks without a
            table (indices then follow from sizes alone) and for mode ``reference``.
        unused: tensors of the large network that nothing is taken from.
    """

    def __init__(
        self,
        parts: Sequence[_Part],
        indices: Mapping[str, Tensor],
        *,
        large: _View,
        small: _View,
        family: str,
        verified: bool,
        rescale: bool,
    ) -> None:
        self._parts = list(parts)
        self._indices = dict(indices)
        self._large = large
        self._small_shapes = small.shapes
        self._rescale = rescale
        self.family = family
        self.verified = verified
        used = {part.source for part in parts if not part.reason}
        self.unused = [name for name in large.shapes if name not in used]

    @property
    def axes(self) -> dict[str, list[int]]:
        """Axis name -> indices kept."""
        return {axis: index.tolist() for axis, index in self._indices.items()}

    def apply(self, large_state_dict: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Copies the selected weights.

        Args:
            large_state_dict: values to select from, shaped like those the plan was made for; None for those themselves.

        Returns:
            Name in the small network -> new tensor, for the selected tensors only, with the large network's dtype and
            device. Values are copied as they are; the report's ``note`` names each tensor that had to be adapted.

        Raises:
            SelectionError: when ``large_state_dict`` doesn't have the tensors of the plan.
        """
        state = self._large.state if large_state_dict is None else large_state_dict
        return {part.name: self._copy(part, state) for part in self._parts if not part.reason}

    def report(self, large_state_dict: Mapping[str, Tensor] | None = None) -> SelectionReport:
        """One :class:`SelectionRow` per tensor of the small network."""
        state = self._large.state if large_state_dict is None else large_state_dict
        return SelectionReport([self._row(part, state) for part in self._parts], verified=self.verified)

    def write_report(self, path: str | Path) -> Path:
        """Writes :meth:`report` as CSV and returns the path."""
        return self.report().write(path)

    def _row(self, part: _Part, state: Mapping[str, Tensor]) -> SelectionRow:
        source_shape = self._large.shapes.get(part.source) if part.source else None
        kept, share = {}, None
        if not part.reason:
            kept = {
                axis.name: self._indices[axis.name].tolist()
                for dim in part.dims
                for axis in dim or ()
                if axis.name in self._indices
            }
            share = None if part.source is None else self._norm_share(part, state)
        notes = [text for text, _ in part.adapt]
        if part.neutral is not None:
            notes.append(f"absent in the large network, which equals {part.neutral:g}")
        if part.add_first:
            notes.append(f"first entry of {part.add_first} added")
        note = "; ".join(notes)
        return SelectionRow(
            part.name, part.source, self._small_shapes[part.name], source_shape, kept, share, part.reason, note
        )

    def _norm_share(self, part: _Part, state: Mapping[str, Tensor]) -> float | None:
        source = state[part.source]
        if source.device.type == "meta":
            return None
        if all(index is None for index in self._flat_indices(part)):
            return 1.0
        total = _squared_norm(source)
        return _squared_norm(self._pick(part, source)) / total if total else 1.0

    def _copy(self, part: _Part, state: Mapping[str, Tensor]) -> Tensor:
        if part.neutral is not None:
            like = next(value for value in state.values() if value.is_floating_point())
            return like.new_full(self._small_shapes[part.name], part.neutral)
        if part.source not in state:
            raise SelectionError(
                f"{part.name}: the given weights lack {part.source!r}; give weights of the network that was planned for"
            )
        source = state[part.source].detach()
        if tuple(source.shape) != self._large.shapes[part.source]:
            raise SelectionError(
                f"{part.source}: planned for shape {self._large.shapes[part.source]}, got {tuple(source.shape)}; "
                "make a new plan for these weights"
            )
        result = self._pick(part, source)
        for _, adapt in part.adapt:
            result = adapt(result)
        if part.add_first:
            result = result + self._pick(part, state[part.add_first].detach()[:, :1])
        if self._rescale:
            result = result * _width_ratio(part) if _width_ratio(part) != 1 else result
        shares_memory = result.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
        return result.clone() if shares_memory else result.contiguous()

    def _pick(self, part: _Part, tensor: Tensor) -> Tensor:
        """Index-selects each dimension, the most shrinking one first, so that no big intermediate is made."""
        chosen = [(dim, index) for dim, index in enumerate(self._flat_indices(part)) if index is not None]
        for dim, index in sorted(chosen, key=lambda item: len(item[1]) / tensor.shape[item[0]]):
            tensor = tensor.index_select(dim, index.to(tensor.device))
        return tensor

    def _flat_indices(self, part: _Part) -> Iterator[Tensor | None]:
        """Per dimension the flat indices of its composed axes, or None where all of it is kept in order."""
        for dim in part.dims:
            if dim is None or all(axis.large == axis.small for axis in dim):
                yield None
                continue
            flat = torch.zeros(1, dtype=torch.long)
            for axis in dim:
                kept = self._indices.get(axis.name)
                kept = torch.arange(axis.large) if kept is None else kept
                flat = (flat[:, None] * axis.large + kept).flatten()
            yield flat


def _squared_norm(tensor: Tensor) -> float:
    wide = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    return torch.linalg.vector_norm(wide).double().square().item()


def _width_ratio(part: _Part) -> float:
    """Large over small width of the dimension that a weight sums over (its second one)."""
    if len(part.dims) < 2 or part.dims[1] is None or part.dims[0] is None:
        return 1.0
    return math.prod(axis.large for axis in part.dims[1]) / math.prod(axis.small for axis in part.dims[1])


def plan_selection(
    large: Network,
    small: Network,
    *,
    elements: str = "uniform",
    layers: LayerRule = "first",
    seed: int = 0,
    mode: str = "structured",
    heads: str = "whole",
    family: str | None = None,
    rescale: bool = False,
    large_heads: int | None = None,
    small_heads: int | None = None,
    large_grid: Sequence[int] | None = None,
    small_grid: Sequence[int] | None = None,
) -> SelectionPlan:
    """Plans the selection of a small network's weights from a large one.

    Classifier heads are never selected, not even for equal architectures: they belong to the old classes.
    A tensor of the small network without a counterpart of the same form is left alone, with the reason in the report.

    Args:
        large: module or state dict to take weights from.
        small: module or state dict that gives the wanted shapes. It may be volumetric where ``large`` is 2D.
        elements: ``uniform`` (evenly spaced), ``consecutive``, ``complement`` (what uniform leaves out), ``random``
            (seeded per axis) or ``importance`` (largest summed squared norm over all parameters on the axis).
        layers: ``first``, ``last``, ``even``, or explicit: a list of blocks, for staged networks one list per stage
            (or a dictionary from stage number to list; absent stages take the first ones).
        seed: seed of ``random``.
        mode: ``structured``, or ``reference``: the published code's index rule on every dimension on its own, without
            named axes and without regard to attention heads.
        heads: ``whole`` keeps whole attention heads; ``blend`` takes an equal number of channels from every old head.
        family: efficientnet, convnext, vit, resnet or generic; None recognises it from the tensor names.
        rescale: multiplies each copied weight by large / small width of the dimension it sums over. Off by default.
        large_heads: attention heads of the large network, where only a state dict is given (else 64 channels a head).
        small_heads: the same of the small network (else the large network's channels per head).
        large_grid: token grid (h, w[, d]) of the large network's position embedding; None reads it from the module, or
            takes it as square or cubic.
        small_grid: the same of the small network.

    Returns:
        The plan. It refers to the large network's tensors but copies none.

    Raises:
        SelectionError: when a rule is unknown, the small network is wider than the large one, or nothing corresponds.
    """
    check_element_rule(elements)
    _check_word("mode", mode, ("structured", "reference"))
    _check_word("heads", heads, ("whole", "blend"))
    _check_word("family", family, (None, "generic", *FAMILIES))
    big, little = _view(large, large_grid), _view(small, small_grid)
    builder = _Builder(big, little, elements, heads, mode, large_heads, small_heads)
    found = _common_family(big, little, family)
    if found is None:
        builder.plan_generic(layers)
    else:
        builder.plan_family(*found, layers)
    if not any(part.source and not part.reason and part.dims for part in builder.parts):
        raise SelectionError(
            "nothing can be selected: no tensor of the small network has a counterpart in the large one "
            f"(large: {_summary(big)}; small: {_summary(little)}); take both from one family"
        )
    indices = builder.choose_indices(elements, seed)
    verified = builder.verified and mode == "structured"
    name = found[0].family.name if found else "generic"
    plan = SelectionPlan(
        builder.parts, indices, large=big, small=little, family=name, verified=verified, rescale=rescale
    )
    _log(plan, builder)
    return plan


def select_weights(large: Network, small: nn.Module, **options: Any) -> SelectionReport:
    """Selects weights of ``large`` and loads them into ``small`` in place.

    Args:
        large: module or state dict to take weights from.
        small: module to initialise; tensors that aren't selected keep their values.
        options: arguments of :func:`plan_selection`.

    Returns:
        The report; rows with a ``reason`` weren't touched.
    """
    plan = plan_selection(large, small, **options)
    report = plan.report()
    target = small.state_dict()
    with torch.no_grad():
        for name, value in plan.apply().items():
            target[name].copy_(value)
    return report


class _Builder:
    """Collects the parts of a plan and checks that each axis has one size per network."""

    def __init__(
        self,
        large: _View,
        small: _View,
        rule: str,
        heads: str,
        mode: str,
        large_heads: int | None,
        small_heads: int | None,
    ) -> None:
        self.large, self.small, self.rule, self.heads, self.mode = large, small, rule, heads, mode
        self.given_heads = (large_heads, small_heads)
        self.parts: list[_Part] = []
        self.sizes: dict[str, _Axis] = {}
        self.same: dict[str, str] = {}
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
                self.parts.append(_Part(name, None, reason="the published code skips names with 'head'"))
                continue
            role, stage, block = axes.key
            if block is not None:
                block = blocks.get(stage, {}).get(block)
                if block is None:
                    depth = large.depths.get(stage, 0)
                    self.parts.append(
                        _Part(name, None, reason=f"the large network has only {depth} blocks here, none is left")
                    )
                    continue
            source = large.by_key.get((role, stage, block))
            if source is None:
                self.parts.append(self._missing(name, large, (role, stage, block)))
                continue
            self.parts.append(self._family_part(name, shape, axes, source, large.tensors[source]))
        self._tie_neighbours(small)
        self._note_absent(large, small, blocks)

    def _note_absent(
        self, large: NetworkAxes, small: NetworkAxes, blocks: Mapping[str, Mapping[int, int | None]]
    ) -> None:
        """Says which tensors of the used blocks the small network does without; a projection decides on consistency."""
        back = {(stage, source): block for stage, chosen in blocks.items() for block, source in chosen.items()}
        absent = []
        for (role, stage, block), name in large.by_key.items():
            if block is not None and (stage, block) not in back or not large.tensors[name].dims:
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

    def _outside(self, name: str, unknown: bool) -> _Part:
        if not unknown:
            return _Part(name, None, reason="classifier: belongs to the old classes")
        self.doubts.append(f"{name} is not in the family's table")
        return self._generic_part(name)

    def _missing(self, name: str, large: NetworkAxes, key: tuple[str, str, int | None]) -> _Part:
        """A tensor that the large network lacks: neutral where the layer around it exists, else left alone."""
        role, stage, block = key
        word = name.rpartition(".")[2]
        block_is_there = block is not None and any(key[1:] == (stage, block) for key in large.by_key)
        layer_is_there = (role.replace("bias", "weight"), stage, block) in large.by_key
        if (word == "bias" and layer_is_there) or (word == "gamma" and block_is_there):
            return _Part(name, None, neutral=NEUTRAL[word])
        return _Part(name, None, reason="the large network has no such tensor")

    def _family_part(
        self, name: str, shape: tuple[int, ...], small: TensorAxes, source: str, large: TensorAxes
    ) -> _Part:
        old = self.large.shapes[source]
        if small.kind != large.kind:
            kinds = f"{small.kind} here, {large.kind} in the large network"
            return _Part(name, source, reason=f"block of another kind: {kinds}")
        if len(small.dims) != len(large.dims) or len(shape) < len(small.dims) or len(old) < len(large.dims):
            return _Part(name, source, reason=f"other form: {_x(shape)} here, {_x(old)} in the large network")
        count = len(small.dims)
        if self.mode == "reference":
            return self._reference_part(name, shape, source, old, small)
        dims: list[tuple[_Axis, ...] | None] = []
        adapt: list[tuple[str, Callable[[Tensor], Tensor]]] = []
        for position, words in enumerate(small.dims):
            if words == ("tokens",):
                steps = self._positions(name, source)
                if isinstance(steps, str):
                    return _Part(name, source, reason=steps)
                adapt += steps
                dims.append(None)
            elif words == ("image",):
                adapt += self._channels(old[position], shape[position])
                dims.append(None)
            elif words == ("1",) or words == ("pixels",):
                if old[position] != shape[position]:
                    return _Part(name, source, reason=f"other form: {_x(shape)} here, {_x(old)} in the large network")
                dims.append(None)
            else:
                dims.append(self._axes(name, source, words, position))
        kernel = self._kernel(old[count:], shape[count:], patch="patch_embed" in name)
        if isinstance(kernel, str):
            return _Part(name, source, reason=kernel)
        add_first = self._lost_class_position() if small.key[0].startswith("cls_token") else None
        return _Part(name, source, tuple(dims), tuple(kernel + adapt), add_first=add_first)

    def _axes(self, name: str, source: str, words: tuple[str, ...], position: int) -> tuple[_Axis, ...]:
        """The axes of one dimension with their sizes in both networks."""
        old, new = self.large.shapes[source][position], self.small.shapes[name][position]
        if len(words) == 1:
            large, small = [old], [new]
        else:
            factor = math.prod(CONSTANTS.get(word, 1) for word in words)
            free = [word for word in words if word not in CONSTANTS]
            large, small = [old // factor], [new // factor]
            if len(free) == 2:
                if self.heads == "blend":
                    return self._blended(name, source, words, large[0], small[0])
                large, small = self._split_heads(name, source, large[0], small[0])
            sizes = iter(zip(large, small, strict=True))
            pairs = [(CONSTANTS[word],) * 2 if word in CONSTANTS else next(sizes) for word in words]
            large, small = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return tuple(self._axis(word, a, b, name, source) for word, a, b in zip(words, large, small, strict=True))

    def _axis(self, word: str, large: int, small: int, name: str, source: str) -> _Axis:
        if small > large:
            remedy = "make the small network narrower or take a larger one to select from"
            if word.endswith(".head"):
                remedy = "give the small network at most as many heads, or use heads='blend'"
            raise SelectionError(
                f"{name}: the small network has {small} on axis '{word}', the large one only {large} "
                f"(shape {_x(self.small.shapes[name])} from {_x(self.large.shapes[source])} of {source}, "
                f"rule '{self.rule}'); {remedy}"
            )
        axis = _Axis(word, large, small)
        known = self.sizes.setdefault(word, axis)
        if known != axis:
            self.doubts.append(f"axis {word} has sizes {known.large} and {large} in the large network ({name})")
            axis = _Axis(f"{word}@{large}->{small}", large, small)
            self.sizes.setdefault(axis.name, axis)
        return axis

    def _split_heads(self, name: str, source: str, large: int, small: int) -> tuple[list[int], list[int]]:
        """(heads, channels per head) of both networks for an attention of the given inner widths."""
        old_heads = _head_count(self.large, source, self.given_heads[0])
        new_heads = _head_count(self.small, name, self.given_heads[1])
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

    def _blended(self, name: str, source: str, words: tuple[str, ...], large: int, small: int) -> tuple[_Axis, ...]:
        """Heads as one axis that takes the same number of channels from every old head, where that divides."""
        head, head_dim = words[-2:]
        heads = _head_count(self.large, source, self.given_heads[0])
        if heads is None and large % DEFAULT_HEAD_DIM == 0:
            heads = large // DEFAULT_HEAD_DIM
        constants = [self._axis(word, CONSTANTS[word], CONSTANTS[word], name, source) for word in words[:-2]]
        if heads and large % heads == 0 and small % heads == 0:
            old, new = large // heads, small // heads
            # every old head stays; what the small network calls a head is cut from this row anew
            return (
                *constants,
                self._axis(head, heads, heads, name, source),
                self._axis(head_dim, old, new, name, source),
            )
        return (*constants, self._axis(f"{head}s", large, small, name, source))

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
        return [(f"kernel {_x(old)} -> {_x(new)}", partial(resize_kernel, size=new, patch=patch))]

    def _grids(self, names: Sequence[str]) -> list[tuple[tuple[int, ...], int] | None]:
        """(token grid, leading tokens without a place in it) of the large and the small position embedding."""
        grids = []
        for view, name, dims in zip((self.large, self.small), names, self.spatial_dims, strict=True):
            tokens = view.shapes[name][1]
            if view.grid is not None:
                known = (view.grid, tokens - math.prod(view.grid))
                grids.append(known if known[1] >= 0 else None)
                continue
            leading = ("cls_token", "reg_token", "register_tokens")
            extra = sum(shape[1] for key, shape in view.shapes.items() if key.endswith(leading))
            grids.append(guess_grid(tokens, dims, list(dict.fromkeys([extra, min(extra, 1), 0]))))
        return grids

    def _positions(self, name: str, source: str) -> list[tuple[str, Callable[[Tensor], Tensor]]] | str:
        grids = self._grids((source, name))
        for which, key, view, grid in zip(
            ("large", "small"), (source, name), (self.large, self.small), grids, strict=True
        ):
            if grid is None:
                tokens = view.shapes[key][1]
                return f"the grid of the {tokens} positions in the {which} network is unknown; give {which}_grid"
        (old_grid, old_prefix), (new_grid, new_prefix) = grids
        if (old_grid, old_prefix) == (new_grid, new_prefix):
            return []
        if len(new_grid) < len(old_grid):
            return f"positions {_x(old_grid)} of a volume don't fit {_x(new_grid)}"
        step = partial(
            resize_positions, old_grid=old_grid, new_grid=new_grid, old_prefix=old_prefix, new_prefix=new_prefix
        )
        return [(f"positions {_x(old_grid)} -> {_x(new_grid)}, {new_prefix} leading", step)]

    def _lost_class_position(self) -> str | None:
        """The large position embedding, if only there the class token has an entry (timm has one, MONAI has not)."""
        if self.mode == "reference":
            return None
        names = [_position_name(view) for view in (self.large, self.small)]
        if None in names:
            return None
        old, new = self._grids(names)
        return names[0] if old and new and old[1] > 0 and new[1] == 0 else None

    def _tie_neighbours(self, small: NetworkAxes) -> None:
        """Joins the streams of neighbouring stages where no projection need lie between them.

        Between two stages of equal width the residual connection may run straight through (ResNet's first stage,
        EfficientNet's stages without stride). Shapes alone can't tell; joining is right in both cases.
        """
        family = small.family
        if not family.staged:
            return
        streams = [family.stem, *(family.stream.replace("{s}", stage) for stage in sorted(small.depths, key=int))]
        for before, after in zip(streams, streams[1:], strict=False):
            a, b = self.sizes.get(before), self.sizes.get(after)
            if a and b and a != b and (a.large, a.small) == (b.large, b.small):
                self.same[after] = self.same.get(before, before)

    # ---- networks without a table, and the published rule

    def plan_generic(self, layers: LayerRule) -> None:
        if layers != "first":
            raise SelectionError(
                f"layers={layers!r} needs a known family ({', '.join(FAMILIES)}), and this network is of none: "
                "use layers='first'"
            )
        self.doubts.append("no family recognised: indices follow from sizes alone")
        for name in self.small.shapes:
            if is_classifier(name):
                self.parts.append(_Part(name, None, reason="classifier: belongs to the old classes"))
            elif self.mode == "reference" and "head" in name:
                self.parts.append(_Part(name, None, reason="the published code skips names with 'head'"))
            else:
                self.parts.append(self._generic_part(name))

    def _generic_part(self, name: str) -> _Part:
        """A tensor by itself: dimensions of equal sizes get equal indices, kernels must agree."""
        if name not in self.large.shapes:
            return _Part(name, None, reason="the large network has no such tensor")
        shape, old = self.small.shapes[name], self.large.shapes[name]
        count = min(len(shape), 2)
        if len(old) < count or (count < 2 and len(old) != count):
            return _Part(name, name, reason=f"other form: {_x(shape)} here, {_x(old)} in the large network")
        if self.mode == "reference":
            return self._reference_part(name, shape, name, old, None)
        kernel = self._kernel(old[count:], shape[count:], patch=False)
        if isinstance(kernel, str):
            return _Part(name, name, reason=kernel)
        is_image = len(shape) > 3 and old[1] == 3 and shape[1] != 3
        dims: list[tuple[_Axis, ...] | None] = []
        for position in range(count):
            if position == 1 and is_image:
                kernel += self._channels(old[1], shape[1])
                dims.append(None)
            else:
                dims.append(self._sized_axis(name, name, position))
        return _Part(name, name, tuple(dims), tuple(kernel))

    def _reference_part(
        self, name: str, shape: tuple[int, ...], source: str, old: tuple[int, ...], axes: TensorAxes | None
    ) -> _Part:
        """The published rule: each dimension on its own, kernels and positions too.

        Input channels are summed and kernels inflated as in the structured mode: the published code has neither.
        """
        adapt: list[tuple[str, Callable[[Tensor], Tensor]]] = []
        if len(shape) != len(old):
            count = min(2, len(shape))
            kernel = self._kernel(old[count:], shape[count:], patch=False)
            if isinstance(kernel, str):
                return _Part(name, source, reason=kernel)
            adapt += kernel
            old, shape = old[:count], shape[:count]
        dims: list[tuple[_Axis, ...] | None] = []
        for position in range(len(shape)):
            if position == 1 and axes is not None and axes.dims[1:2] == (("image",),):
                adapt += self._channels(old[1], shape[1])
                dims.append(None)
            else:
                dims.append(self._sized_axis(name, source, position))
        return _Part(name, source, tuple(dims), tuple(adapt))

    def _sized_axis(self, name: str, source: str, position: int) -> tuple[_Axis, ...]:
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
            if part.reason or part.source in self.large.buffers or not any(part.dims):
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
    if isinstance(layers, str) or not small.family.staged:
        rules = {stage: layers for stage in stages}
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


def _common_family(large: _View, small: _View, wanted: str | None) -> tuple[NetworkAxes, NetworkAxes] | None:
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


def _view(network: Network, grid: Sequence[int] | None) -> _View:
    if not isinstance(network, nn.Module):
        if not isinstance(network, Mapping) or not all(isinstance(value, Tensor) for value in network.values()):
            raise SelectionError(f"expected a module or a state dict of tensors, got {type(network).__name__}")
        buffers = {name for name in network if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
        shapes = {name: tuple(value.shape) for name, value in network.items()}
        return _View(network, shapes, frozenset(buffers), {}, tuple(grid) if grid else None)
    state = network.state_dict()
    heads, found_grid = {}, None
    for path, module in network.named_modules():
        if isinstance(getattr(module, "num_heads", None), int):
            heads[path] = module.num_heads
        if isinstance(getattr(module, "grid_size", None), tuple):
            found_grid = module.grid_size
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    buffers = frozenset(name for name, _ in network.named_buffers())
    return _View(state, shapes, buffers, heads, tuple(grid) if grid else found_grid)


def _head_count(view: _View, name: str, given: int | None) -> int | None:
    if given is not None:
        return given
    parts = name.split(".")
    paths = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]  # the attention itself first, then around it
    return next((view.heads[path] for path in paths if path in view.heads), None)


def _divide(channels: int, head_dim: int, name: str, argument: str) -> int:
    if channels % head_dim:
        raise SelectionError(
            f"{name}: {channels} attention channels aren't a multiple of {head_dim} per head, and a state dict doesn't "
            f"tell the number of heads; give {argument}"
        )
    return channels // head_dim


def _position_name(view: _View) -> str | None:
    return next((name for name in view.shapes if name.endswith(("pos_embed", "position_embeddings"))), None)


def _spatial_dims(view: _View, axes: NetworkAxes) -> int:
    ranks = [len(view.shapes[name]) - 2 for name, item in axes.tensors.items() if ("image",) in item.dims]
    return max([2, *ranks])


def _check_word(argument: str, word: Any, choices: Sequence[Any]) -> None:
    if word not in choices:
        raise SelectionError(f"{argument}={word!r} is unknown; choose one of {', '.join(map(str, choices))}")


def _x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _summary(view: _View) -> str:
    names = list(view.shapes)
    return f"{len(names)} tensors, {names[0]} first" if names else "no tensors"


def _log(plan: SelectionPlan, builder: _Builder) -> None:
    skipped = defaultdict(list)
    for part in plan._parts:
        if part.reason:
            skipped[part.reason].append(part.name)
    total, left = len(plan._parts), sum(map(len, skipped.values()))
    logger.info("Weight selection (%s): %d of %d tensors selected.", plan.family, total - left, total)
    for reason, names in skipped.items():
        logger.info("Not selected, %s: %s%s", reason, ", ".join(names[:3]), " ..." if len(names) > 3 else "")
    if not plan.verified and builder.mode == "structured":
        logger.warning("Consistency of the axes is not verified: %s.", "; ".join(builder.doubts[:3]))
