# SPDX-License-Identifier: Apache-2.0
"""Plans a selection by the axes that following an image through both networks shows, see :mod:`.tracing`."""

from __future__ import annotations

from collections.abc import Sequence

from dual_skd.selection.blocks import block_names, without_further_blocks
from dual_skd.selection.builder import ABSENT, CLASSIFIER, PlanBuilder
from dual_skd.selection.pairing import NoCounterpart, Pairing
from dual_skd.selection.parts import Dim, NotSelected, Part, Step, axes_of, other_form
from dual_skd.selection.resample import channel_steps, kernel_steps, window_steps
from dual_skd.selection.rules import Layers
from dual_skd.selection.terms import Term
from dual_skd.selection.tracing import NetworkTrace
from dual_skd.selection.view import View
from dual_skd.utils.wording import first_few


class TracedBuilder(PlanBuilder):
    """Makes the part of each tensor by the axes that its network's computation gives it.

    Args:
        large, small, rule, mode: see :class:`PlanBuilder`.
        traces: of the large and of the small network.
    """

    family = "traced"

    def __init__(
        self, large: View, small: View, rule: str, mode: str, traces: tuple[NetworkTrace, NetworkTrace]
    ) -> None:
        super().__init__(large, small, rule, mode)
        self.large_trace, self.small_trace = traces
        self.spatial_dims = [len(trace.image) - 1 for trace in traces]
        self.classifier = self.small_trace.classifier or small.classifier  # as it is used, else as it is named
        self.pairing = Pairing()
        self.names: dict[str, str] = {}

    def parts(self, layers: Layers) -> list[Part]:
        """One part per tensor of the small network.

        Raises:
            SelectionError: a layer rule that doesn't fit, or an axis that is wider in the small network.
        """
        self.names = block_names(layers, self.large.shapes, self.small.shapes)
        terms = {
            name: self._named_terms(name, source) for name, source in self.names.items() if name not in self.classifier
        }
        for place in range(max(map(len, terms.values()), default=0)):  # an axis is named by the layer that makes it
            for name, pairs in terms.items():
                if place < len(pairs):
                    self.pairing.pair(_axis_name(name, place), *pairs[place])
        parts = self._all_parts()
        self.axes.doubts += self.pairing.clashes.values()
        self._doubt_lost(parts)
        return parts

    def _source(self, name: str) -> str | None:
        if name in self.classifier:
            raise NotSelected(CLASSIFIER)
        return self._equal_name(self.names[name])

    def _named_terms(self, name: str, source: str) -> list[tuple[Term, Term]]:
        """The terms of a tensor in both networks, dimension by dimension, without its kernel."""
        if name not in self.small_trace.dims or source not in self.large_trace.dims:
            return []
        small, large = self.small_trace.dims[name], self.large_trace.dims[source]
        here, there = (
            len(dims) - trace.kernels.get(key, 0)
            for dims, trace, key in ((small, self.small_trace, name), (large, self.large_trace, source))
        )
        return list(zip(small[:here], large[:there], strict=True)) if here == there else []

    def _selected(self, name: str, source: str) -> Part:
        new, old = self.small.shapes[name], self.large.shapes[source]
        terms = self._named_terms(name, source)
        if len(terms) < len(new) and not self._used(name, source) and new != old:
            raise NotSelected("the network doesn't use it")
        if not terms and new != old:
            raise other_form(new, old)
        dims: list[Dim | None] = []
        steps: tuple[Step, ...] = ()
        for place, (small, large) in enumerate(terms):
            if new[place] == old[place] == 1:
                dims.append(None)
            elif self._is_channels(small, large):
                steps += channel_steps(old[place], new[place])
                dims.append(None)
            elif small.is_space or large.is_space or (name.endswith("relative_position_bias_table") and place == 0):
                steps += self._space_steps(name, source, place)
                dims.append(None)
            else:
                dims.append(self._dimension(name, place, small, large))
        patch = name in self.small_trace.patches
        return Part(name, source, tuple(dims), kernel_steps(old[len(terms) :], new[len(terms) :], patch=patch) + steps)

    def _is_channels(self, small: Term, large: Term) -> bool:
        """Whether these are the image's channels; a single one is tied to nothing."""
        return small.root is self.small_trace.channels.root or large.root is self.large_trace.channels.root

    def _used(self, name: str, source: str) -> bool:
        return name in self.small_trace.dims and source in self.large_trace.dims

    def _dimension(self, name: str, place: int, small: Term, large: Term) -> Dim:
        source = self.names[name]
        try:
            dim = self.pairing.dimension(_axis_name(name, place), small, large)
        except NoCounterpart as reason:
            self.axes.doubts.append(f"{name}: {reason}")
            raise NotSelected(str(reason)) from reason
        for axis in axes_of(dim):
            self._axis(axis.name, axis.large, axis.small, name, source)
        return dim

    def _space_steps(self, name: str, source: str, place: int) -> tuple[Step, ...]:
        """The steps from the places of one tensor to those of the other one, where the images differ in size."""
        new, old = self.small.shapes[name], self.large.shapes[source]
        if name == self.small.position_name and place == 1 and len(new) == 3:
            return self._position_steps(name, source)
        if new[place] == old[place]:
            return ()
        if name.endswith("relative_position_bias_table"):
            return window_steps(old[place], new[place])
        raise other_form(new, old)

    def _doubt_lost(self, parts: Sequence[Part]) -> None:
        """Doubts a plan whose networks don't have the same layers; a network may have fewer or more blocks."""
        absent = [part.name for part in parts if part.reason == ABSENT and part.name in self.small_trace.dims]
        if new := without_further_blocks(absent, self.large.shapes):
            self.axes.doubts.append(f"the large network has no {first_few(new)}")
        used = {part.source for part in parts} | self.large_trace.classifier
        left = [name for name in self.large_trace.dims if name not in used and name not in self.names.values()]
        if lost := without_further_blocks(left, self.names.values()):
            self.axes.doubts.append(f"the small network has no {first_few(lost)}")


def _axis_name(name: str, place: int) -> str:
    """The name of an axis that a tensor is the first to have: its layer's, and that of the layer's input."""
    layer, _, leaf = name.rpartition(".")
    layer = layer if leaf in ("weight", "bias") else name
    return layer if place == 0 else f"{layer}.in" if place == 1 else f"{layer}.{place}"
