# SPDX-License-Identifier: Apache-2.0
"""Plans a selection by the named axes of a family, see :mod:`.families`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from itertools import pairwise

from dual_skd.errors import SelectionError
from dual_skd.selection.axes import JOINED, Key, NetworkAxes, describe, find_family
from dual_skd.selection.builder import ABSENT, CLASSIFIER, PlanBuilder
from dual_skd.selection.families import FAMILIES, FIXED_SIZES
from dual_skd.selection.parts import Concatenation, Dim, NotSelected, Part, Step, by, other_form
from dual_skd.selection.resample import channel_steps, kernel_steps, window_steps
from dual_skd.selection.rules import Layers, map_blocks
from dual_skd.selection.view import View
from dual_skd.utils.wording import first_few

logger = logging.getLogger(__name__)

DEFAULT_HEAD_DIM = 64  # of every standard ViT; assumed where only a state dict is known
CONSTANT = (("constant",),)  # the dimensions of a tensor that isn't learned


class UnknownTensor(SelectionError):
    """The family's table doesn't have a tensor whose shape differs in the two networks."""


class FamilyBuilder(PlanBuilder):
    """Makes the part of each tensor by its axes; tensors that the family's table doesn't know go by their sizes.

    Args:
        large, small, rule, mode: see :class:`PlanBuilder`.
        axes: of both networks, from :func:`common_family`.
        heads: attention heads of both networks, where given.
    """

    def __init__(
        self,
        large: View,
        small: View,
        rule: str,
        mode: str,
        axes: tuple[NetworkAxes, NetworkAxes],
        heads: tuple[int | None, int | None],
    ) -> None:
        super().__init__(large, small, rule, mode)
        self.large_axes, self.small_axes = axes
        self.family = self.small_axes.family.name
        self.heads = heads
        self.spatial_dims = [_spatial_dims(view, of) for view, of in zip((large, small), axes, strict=True)]
        self.blocks: dict[str, dict[int, int | None]] = {}  # stage -> small block -> large block
        self.lost: dict[tuple[str, ...], str] = {}  # output axis -> layer that reads another stage

    def parts(self, layers: Layers) -> list[Part]:
        """One part per tensor of the small network.

        Raises:
            SelectionError: a layer rule that doesn't fit, or an axis that is wider in the small network.
        """
        family = self.small_axes.family
        self.blocks = map_blocks(
            layers, self.large_axes.depths, self.small_axes.depths, staged=family.staged, keep_first=family.keep_first
        )
        parts = [self._without_lost_layer(part) for part in self._all_parts()]
        self._join_streams()
        self._warn_of_absent()
        self._doubt_other_residuals(parts)
        return parts

    def _source(self, name: str) -> str | None:
        """The tensor of the large network with the same key; None where the large one computes without."""
        axes = self.small_axes.tensors.get(name)
        if axes is None:
            if name not in self.small_axes.unknown:
                raise NotSelected(CLASSIFIER)
            return self._of_unknown(name)
        if axes.dims == CONSTANT:
            raise NotSelected("made from the network's sizes, not learned")
        self._leave_out_heads(name)
        role, stage, block = axes.key
        if block is not None:
            block = self._large_block(stage, block)
        source = self.large_axes.by_key.get((role, stage, block))
        if source is None and not self._is_neutral(name, (role, stage, block)):
            raise NotSelected(ABSENT)
        return source

    def _of_unknown(self, name: str) -> str:
        """The source of a tensor that the table doesn't know: its axes aren't known, so no size may change."""
        source = self._equal_name(self._in_large(name))
        new, old = self.small.shapes[name], self.large.shapes[source]
        if new != old and not self.reference:
            raise UnknownTensor(
                f"{name}: the table of family '{self.family}' doesn't have this tensor, and its shape differs "
                f"({by(new)} from {by(old)}), so its channels can't be matched with those of the other tensors; give "
                "the networks themselves (modules), so that their axes can be followed, or family='generic' to match "
                "them by their sizes alone"
            )
        return source

    def _in_large(self, name: str) -> str:
        """The name of an unknown tensor in the block that the large network gives."""
        place = self.small_axes.unknown[name]
        if place is None:
            return name
        stage, block = place
        large = self._large_block(stage, block)
        path, other = (self.small_axes.family.block.format(s=stage, b=number) for number in (block, large))
        return other + name.removeprefix(path)

    def _has_source(self, place: tuple[str, int] | None) -> bool:
        return place is None or self.blocks[place[0]].get(place[1]) is not None

    def _large_block(self, stage: str, block: int) -> int:
        """The block of the large network that gives one of the small network."""
        large = self.blocks[stage].get(block)
        if large is None:
            depth = self.large_axes.depths.get(stage, 0)
            raise NotSelected(f"the large network has only {depth} blocks here, none is left")
        return large

    def _is_neutral(self, name: str, key: Key) -> bool:
        """Whether the large network has the layer around a tensor that it lacks, a bias or a layer scale."""
        role, stage, block = key
        if name.endswith(".bias"):
            return (role.replace("bias", "weight"), stage, block) in self.large_axes.by_key
        in_block = block is not None and any(other[1:] == (stage, block) for other in self.large_axes.by_key)
        return name.endswith(".gamma") and in_block

    def _selected(self, name: str, source: str) -> Part:
        small = self.small_axes.tensors.get(name)
        if small is None:
            return super()._selected(name, source)
        large = self.large_axes.tensors[source]
        new, old, count = self.small.shapes[name], self.large.shapes[source], len(small.dims)
        if small.kind != large.kind:
            raise NotSelected(f"block of another kind: {small.kind} here, {large.kind} in the large network")
        if count != len(large.dims) or len(new) < count or len(old) < count:
            raise other_form(new, old)
        if small.key[2] is None and small.dims != large.dims:  # only names with {last} can differ outside of blocks
            self.lost[small.dims[0]] = name
            here, there = next((a[0], b[0]) for a, b in zip(small.dims, large.dims, strict=True) if a != b)
            raise NotSelected(f"the networks end in different stages ({here} here, {there} in the large network)")
        if self.reference:
            return self._published_part(name, source, image=small.dims[1:2] == (("image",),))
        dims: list[Dim | None] = []
        steps: tuple[Step, ...] = ()
        for place, words in enumerate(small.dims):
            if words == ("tokens",):
                steps += self._position_steps(name, source)
            elif words == ("image",):
                steps += channel_steps(old[place], new[place])
            elif words == ("window",):
                steps += window_steps(old[place], new[place]) if old[place] != new[place] else ()
            elif words not in (("1",), ("pixels",)):
                dims.append(self._named_axes(name, source, words, place))
                continue
            elif old[place] != new[place]:
                raise other_form(new, old)
            dims.append(None)
        steps = kernel_steps(old[count:], new[count:], patch="patch_embed" in name) + steps
        add_first = self._lost_class_position() if small.key[0].startswith("cls_token") else None
        return Part(name, source, tuple(dims), steps, add_first=add_first)

    def _named_axes(self, name: str, source: str, words: tuple[str, ...], place: int) -> Dim:
        """The axes of one dimension with their sizes in both networks."""
        if words[0].startswith(JOINED):
            return (self._joined(name, source, words[0].removeprefix(JOINED).partition(":")[0], place),)
        fixed = math.prod(FIXED_SIZES.get(word, 1) for word in words)
        large, small = self.large.shapes[source][place] // fixed, self.small.shapes[name][place] // fixed
        if sum(word not in FIXED_SIZES for word in words) == 2:
            sizes = iter(self._split_heads(name, source, large, small))
        else:
            sizes = iter([(large, small)])
        pairs = [(FIXED_SIZES[word],) * 2 if word in FIXED_SIZES else next(sizes) for word in words]
        return tuple(self._axis(word, *pair, name, source) for word, pair in zip(words, pairs, strict=True))

    def _joined(self, name: str, source: str, stage: str, place: int) -> Concatenation:
        """A stage's stream and what its blocks add, one after the other, as far as a dimension has them."""
        family = self.small_axes.family
        stream = family.stream.replace("{s}", stage)
        sizes = self.large_axes.sizes, self.small_axes.sizes
        large, small = self.large.shapes[source][place], self.small.shapes[name][place]
        starts = [sizes[0][stream]]  # of each block's channels in the large network
        for block in range(self.large_axes.depths[stage]):
            starts.append(starts[-1] + sizes[0][self._grown(stage, block)])
        segments: list[tuple[int, Dim]] = [(0, (self._axis(stream, sizes[0][stream], sizes[1][stream], name, source),))]
        whole = sizes[1][stream]
        for block in range(self.small_axes.depths[stage]):
            if whole >= small:
                break
            grown, given = self._grown(stage, block), self._large_block(stage, block)
            axis = self._axis(grown, sizes[0][self._grown(stage, given)], sizes[1][grown], name, source)
            segments.append((starts[given], (axis,)))
            whole += axis.small
            if starts[given + 1] > large:
                raise NotSelected("reads a block that the large network's block doesn't read")
        if whole != small:
            raise other_form(self.small.shapes[name], self.large.shapes[source])
        return Concatenation(tuple(segments), large)

    def _grown(self, stage: str, block: int) -> str:
        """The axis that a block adds."""
        family = self.small_axes.family
        return family.grows.replace("{block}", family.block.format(s=stage, b=block))

    def _split_heads(self, name: str, source: str, large: int, small: int) -> list[tuple[int, int]]:
        """Heads, and channels per head, of both networks for an attention of the given inner widths."""
        head_dim = DEFAULT_HEAD_DIM
        found = []
        for view, tensor, channels, given, argument in (
            (self.large, source, large, self.heads[0], "large_heads"),
            (self.small, name, small, self.heads[1], "small_heads"),
        ):
            heads = view.head_count(tensor, given)
            if heads is None and channels % head_dim:
                raise SelectionError(
                    f"{tensor}: {channels} attention channels aren't a multiple of {head_dim} per head, and a state "
                    f"dict doesn't tell the number of heads; give {argument}"
                )
            heads = channels // head_dim if heads is None else heads
            if channels % heads:
                raise SelectionError(
                    f"{tensor}: {channels} attention channels can't be {heads} heads; correct {argument}"
                )
            head_dim = channels // heads
            found.append((heads, head_dim))
        return list(zip(*found, strict=True))

    def _lost_class_position(self) -> str | None:
        """The large position embedding, if only there the class token has an entry (timm has one, MONAI has not)."""
        source, name = self.large.position_name, self.small.position_name
        if source is None or name is None:
            return None
        old, new = self._token_grids(source, name)
        return source if old and new and old[1] > 0 and new[1] == 0 else None

    def _without_lost_layer(self, part: Part) -> Part:
        """A normalisation goes with the layer in front of it: statistics of other channels would mislead."""
        axes = self.small_axes.tensors.get(part.name)
        if axes is None or part.reason or len(axes.dims) > 1:
            return part
        layer = self.lost.get(axes.dims[0] if axes.dims else _axis_beside(self.small_axes, part.name))
        return Part(part.name, part.source, reason=f"belongs to {layer}, which isn't selected") if layer else part

    def _join_streams(self) -> None:
        """Joins the streams of neighbouring stages where no projection need lie between them.

        Between two stages of equal width the residual connection may run straight through (ResNet's first stage,
        EfficientNet's stages without stride). Shapes alone can't tell; joining is right in both cases. Streams that are
        equal in the small network alone can't be joined: where a residual connection runs there, it adds channels that
        have nothing to do with each other.
        """
        family = self.small_axes.family
        stages = sorted(self.small_axes.depths, key=int) if family.staged else []
        streams = [family.stem, *(family.stream.replace("{s}", stage) for stage in stages)]
        for stage, (before, after) in zip(stages, pairwise(streams), strict=True):
            a, b = self.axes.sizes.get(before), self.axes.sizes.get(after)
            if not a or not b or before == after or a.small != b.small:
                continue
            block = family.block.format(s=stage, b=0)
            if a.large == b.large:
                self.axes.join(after, before)
            elif family.skips_by_width and self.small.skips.get(block, True):  # unknown of a state dict
                self.axes.doubts.append(f"{block} may add its input, which the large network's block can't")

    def _warn_of_absent(self) -> None:
        """Warns of tensors of the used blocks that the small network lacks; without a projection the axes differ."""
        back = {(stage, source): block for stage, chosen in self.blocks.items() for block, source in chosen.items()}
        known = {self._in_large(name) for name, place in self.small_axes.unknown.items() if self._has_source(place)}
        absent = [
            name for name, place in self.large_axes.unknown.items()
            if name not in known and (place is None or place in back) and self.large.shapes[name]
        ]  # fmt: skip
        for (role, stage, block), name in self.large_axes.by_key.items():
            is_left_out = block is not None and (stage, block) not in back
            if is_left_out or self.large_axes.tensors[name].dims in ((), CONSTANT):
                continue
            if (role, stage, back.get((stage, block))) not in self.small_axes.by_key:
                absent.append(name)
                if role.startswith("downsample.0.weight"):
                    self.axes.doubts.append(
                        f"the large network projects its residual stream ({name}), the small one doesn't"
                    )
        if absent:
            logger.warning(
                "The small network has no counterpart of %s, so it computes something else than the large one.",
                first_few(absent),
            )

    def _doubt_other_residuals(self, parts: Iterable[Part]) -> None:
        """Doubts what a residual connection carries where the large network has another one, or none."""
        for part in parts:
            axes = self.small_axes.tensors.get(part.name)
            if axes and part.reason == ABSENT and axes.key[0].startswith("downsample.0.weight"):
                self.axes.doubts.append(
                    f"the small network projects its residual stream ({part.name}), the large doesn't"
                )
        for stage, chosen in self.blocks.items():
            for block, source in chosen.items():
                paths = [self.small_axes.family.block.format(s=stage, b=number) for number in (block, source)]
                if self.large.skips.get(paths[1]) and self.small.skips.get(paths[0]) is False:
                    self.axes.doubts.append(f"{paths[1]} adds its input in the large network, {paths[0]} doesn't")


def common_family(large: View, small: View, wanted: str | None) -> tuple[NetworkAxes, NetworkAxes] | None:
    """The axes of both networks; None where they are of no family, or not of the same one."""
    if wanted == "generic":
        return None
    family, other = (FAMILIES[wanted],) * 2 if wanted else (find_family(large.shapes), find_family(small.shapes))
    if family is not other:
        names = [found.name if found else "unknown" for found in (family, other)]
        logger.warning("The large network is of family %s, the small one of family %s.", *names)
        return None
    if family is None:
        return None
    return describe(family, large.shapes, large.classifier), describe(family, small.shapes, small.classifier)


def _axis_beside(axes: NetworkAxes, counter: str) -> tuple[str, ...]:
    """The axis of the layer that a scalar, a normalisation's counter, belongs to; () without one."""
    layer = counter.rpartition(".")[0] + "."
    return next((a.dims[0] for name, a in axes.tensors.items() if name.startswith(layer) and a.dims), ())


def _spatial_dims(view: View, axes: NetworkAxes) -> int:
    ranks = [len(view.shapes[name]) - 2 for name, item in axes.tensors.items() if ("image",) in item.dims]
    return max([2, *ranks])
