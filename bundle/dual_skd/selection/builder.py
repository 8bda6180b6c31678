# SPDX-License-Identifier: Apache-2.0
"""Plans a selection tensor by tensor for networks without a table of axes, by names and sizes alone."""

from __future__ import annotations

import logging
from functools import partial

from dual_skd.errors import SelectionError
from dual_skd.selection.families import FAMILIES
from dual_skd.selection.indices import PlanAxes
from dual_skd.selection.parts import Axis, NotSelected, Part, Step, by, other_form
from dual_skd.selection.resample import channel_steps, kernel_steps, resize_positions, window_steps
from dual_skd.selection.rules import Layers
from dual_skd.selection.view import View

logger = logging.getLogger(__name__)

GRID_REMEDY = "give {0}_grid (--{0}-grid of the select command), in training img_size in {0}_options"
NEUTRAL = {"bias": 0.0, "gamma": 1.0}  # a network without a bias or a layer scale computes as with these
ABSENT = "the large network has no such tensor"
CLASSIFIER = "classifier: belongs to the old classes"


class PlanBuilder:
    """Makes the part of each tensor and collects the axes: dimensions of equal sizes keep equal indices.

    Args:
        large: network to select from.
        small: network to select for.
        rule: the element rule, for messages.
        mode: ``structured`` or ``reference``.
    """

    family = "generic"
    why = "no table was used, and no image followed"  # there is no better way

    def __init__(self, large: View, small: View, rule: str, mode: str) -> None:
        self.large, self.small, self.rule = large, small, rule
        self.reference = mode == "reference"
        self.axes = PlanAxes()
        self.spatial_dims = [2, 2]  # of the large and of the small network

    @property
    def doubts(self) -> list[str]:
        """Why the axes may be inconsistent."""
        return ["the published index rule has no named axes"] if self.reference else self.axes.doubts

    def parts(self, layers: Layers) -> list[Part]:
        """One part per tensor of the small network.

        Raises:
            SelectionError: a layer rule that doesn't fit, or an axis that is wider in the small network.
        """
        if layers != "first":
            raise SelectionError(
                f"layers={layers!r} needs a known family ({', '.join(FAMILIES)}), and this network is of none: "
                "use layers='first' (in training --selection_layers first --selection_layers_auxiliary first)"
            )
        self.axes.doubts.append(f"channels are matched by size alone: {self.why}")
        if not self.small.classifier:
            self.axes.doubts.append("no classifier is recognised, so it is selected like any other layer")
        return self._all_parts()

    def _all_parts(self) -> list[Part]:
        return [self._part(name) for name in self.small.shapes]

    def _part(self, name: str) -> Part:
        source = None
        try:
            source = self._source(name)
            if source is None:
                return Part(name, None, neutral=NEUTRAL[name.rpartition(".")[2]])
            return self._selected(name, source)
        except NotSelected as reason:
            return Part(name, source, reason=str(reason))

    def _source(self, name: str) -> str | None:
        """The tensor of the large network that a tensor is taken from; None where that one computes without."""
        if name in self.small.classifier:
            raise NotSelected(CLASSIFIER)
        self._leave_out_heads(name)
        return self._equal_name(name)

    def _leave_out_heads(self, name: str) -> None:
        if self.reference and "head" in name:
            raise NotSelected("the published code skips names with 'head'")

    def _equal_name(self, name: str) -> str:
        if name not in self.large.shapes:
            raise NotSelected(ABSENT)
        return name

    def _selected(self, name: str, source: str) -> Part:
        """The part of a tensor by itself: dimensions of equal sizes get equal indices, kernels must agree."""
        new, old = self.small.shapes[name], self.large.shapes[source]
        count = min(len(new), 2)
        if len(old) < count or (count < 2 and len(old) != count):
            raise other_form(new, old)
        if self.reference:
            return self._published_part(name, source)
        if name.endswith("relative_position_bias_table") and len(old) == count == 2 and old[0] != new[0]:
            steps = window_steps(old[0], new[0])
            return Part(name, source, (None, self._axis_by_size(name, source, 1)), steps)
        steps = kernel_steps(old[count:], new[count:])
        return self._by_size(name, source, count, steps, image=len(new) > 3 and old[1] == 3 and new[1] != 3)

    def _published_part(self, name: str, source: str, *, image: bool = False) -> Part:
        """The published rule, for comparison only: each dimension on its own, kernels and positions too.

        Input channels are summed and kernels inflated as in the structured mode: the published code has neither.
        """
        new, old = self.small.shapes[name], self.large.shapes[source]
        if len(new) == len(old):
            return self._by_size(name, source, len(new), (), image=image)
        count = min(len(new), 2)
        return self._by_size(name, source, count, kernel_steps(old[count:], new[count:]), image=image)

    def _by_size(self, name: str, source: str, count: int, steps: tuple[Step, ...], *, image: bool) -> Part:
        """The first ``count`` dimensions by their sizes; the second one are the channels of an ``image``."""
        new, old = self.small.shapes[name], self.large.shapes[source]
        dims = [None if image and place == 1 else self._axis_by_size(name, source, place) for place in range(count)]
        return Part(name, source, tuple(dims), steps + (channel_steps(old[1], new[1]) if image else ()))

    def _axis_by_size(self, name: str, source: str, place: int) -> tuple[Axis, ...]:
        old, new = self.large.shapes[source][place], self.small.shapes[name][place]
        return (self._axis(f"size {old}->{new}", old, new, name, source),)

    def _axis(self, word: str, large: int, small: int, name: str, source: str) -> Axis:
        if small > large:
            remedy = "make the small network narrower or take a larger one to select from"
            if word.endswith(".head"):
                remedy = "give the small network at most as many heads"
            raise SelectionError(
                f"{name}: the small network has {small} on axis '{word}', the large one only {large} "
                f"(shape {by(self.small.shapes[name])} from {by(self.large.shapes[source])} of {source}, "
                f"rule '{self.rule}'); {remedy}"
            )
        return self.axes.add(Axis(word, large, small), name)

    def _token_grids(self, large: str, small: str) -> list[tuple[tuple[int, ...], int] | None]:
        """(token grid, leading tokens) of a position embedding in the large and in the small network."""
        sides = zip((self.large, self.small), (large, small), self.spatial_dims, strict=True)
        return [view.token_grid(name, dims) for view, name, dims in sides]

    def _position_steps(self, name: str, source: str) -> tuple[Step, ...]:
        old, new = self._token_grids(source, name)
        old_tokens, new_tokens = self.large.shapes[source][1], self.small.shapes[name][1]
        if self.large.grid is None and old_tokens == new_tokens and self.spatial_dims[0] == self.spatial_dims[1]:
            # a network that is fine-tuned again has the grid it had
            if old != new and new is not None:
                logger.warning(
                    "%s: the grid of its %d positions in the large network is unknown, so it is taken to be that of "
                    "the small one, %s; %s.", name, old_tokens, by(new[0]), GRID_REMEDY.format("large")
                )  # fmt: skip
            return ()
        if old is None or new is None:
            which, tokens = ("large", old_tokens) if old is None else ("small", new_tokens)
            reason = f"the grid of the {tokens} positions in the {which} network is unknown"
            logger.warning("%s isn't selected: %s; %s.", name, reason, GRID_REMEDY.format(which))
            raise NotSelected(reason)
        if old == new:
            return ()
        (old_grid, old_prefix), (new_grid, new_prefix) = old, new
        if len(new_grid) < len(old_grid):
            raise NotSelected(f"positions {by(old_grid)} of a volume don't fit {by(new_grid)}")
        step = partial(
            resize_positions, old_grid=old_grid, new_grid=new_grid, old_prefix=old_prefix, new_prefix=new_prefix
        )
        return ((f"positions {by(old_grid)} -> {by(new_grid)}, {new_prefix} leading", step),)
