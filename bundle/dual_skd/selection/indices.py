# SPDX-License-Identifier: Apache-2.0
"""The axes of a plan: one size per network, and one set of indices wherever the axis occurs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from dual_skd.selection.families import FIXED_SIZES
from dual_skd.selection.parts import Axis, Dim, Part, is_whole
from dual_skd.selection.rules import choose_elements
from dual_skd.selection.view import View


class PlanAxes:
    """Collects axes by name.

    Attributes:
        sizes: the axes by name.
        doubts: why the axes may be inconsistent.
    """

    def __init__(self) -> None:
        self.sizes: dict[str, Axis] = {}
        self.doubts: list[str] = []
        self._joined: dict[str, str] = {}  # axis -> the one whose indices it keeps

    def add(self, axis: Axis, tensor: str) -> Axis:
        """Returns the axis; under another name, with a doubt, where a tensor gives a known one another size."""
        known = self.sizes.setdefault(axis.name, axis)
        if known != axis:
            self.doubts.append(
                f"axis {axis.name} is {known.small} of {known.large} in one tensor, {axis.small} of {axis.large} in "
                f"{tensor.rpartition('.')[0] or tensor}"
            )
            axis = Axis(f"{axis.name}@{axis.large}->{axis.small}", axis.large, axis.small)
            self.sizes.setdefault(axis.name, axis)
        return axis

    def join(self, axis: str, other: str) -> None:
        """Makes an axis keep the indices of another one."""
        self._joined[axis] = self._root(other)

    def choose(self, rule: str, seed: int, parts: Iterable[Part], large: View) -> dict[str, Tensor]:
        """The indices kept of each axis, by an element rule."""
        strengths = self._strengths(parts, large) if rule == "importance" else {}
        indices = {}
        for axis in self.sizes.values():
            if FIXED_SIZES.get(axis.name) != axis.large:  # a layer may have the name of one
                root = self._root(axis.name)
                indices[axis.name] = choose_elements(
                    rule, axis.large, axis.small, axis=root, seed=seed, strength=strengths.get(root)
                )
        return indices

    def _root(self, axis: str) -> str:
        return self._joined.get(axis, axis)

    def _strengths(self, parts: Iterable[Part], large: View) -> dict[str, Tensor]:
        """Squared norm per index of each axis, summed over all selected parameters on it (no running statistics)."""
        totals: dict[str, Tensor] = {}
        for part in parts:
            if part.reason or part.source is None or part.source in large.buffers or not any(part.dims):
                continue
            tensor = large.state[part.source]
            if tensor.device.type == "meta" or not tensor.is_floating_point():
                continue
            squared = tensor.detach().float().square()
            for position, dim in enumerate(part.dims):
                if dim is not None and not is_whole(dim):
                    self._add_strengths(totals, _sum_over_others(squared, position).double().cpu(), dim)
        return totals

    def _add_strengths(self, totals: dict[str, Tensor], values: Tensor, dim: Dim) -> None:
        """Adds the values along a dimension of the large network to those of its axes."""
        composed = values.reshape([factor.large for factor in dim])
        for place, factor in enumerate(dim):
            along = _sum_over_others(composed, place)
            if isinstance(factor, Axis):
                root = self._root(factor.name)
                totals[root] = totals.get(root, 0) + along
                continue
            for start, segment in factor.segments:
                stop = start + math.prod(each.large for each in segment)
                self._add_strengths(totals, along[start:stop], segment)


def entries(dim: Dim, kept: Mapping[str, Tensor]) -> Tensor:
    """The indices of the large network's dimension that the small one's is taken from.

    Args:
        dim: its factors.
        kept: axis name -> indices kept; axes that aren't named are kept whole.
    """
    flat = torch.zeros(1, dtype=torch.long)
    for factor in dim:
        if isinstance(factor, Axis):
            index = kept.get(factor.name)
            index = torch.arange(factor.large) if index is None else index
        else:
            index = torch.cat([start + entries(segment, kept) for start, segment in factor.segments])
        flat = (flat[:, None] * factor.large + index).flatten()
    return flat


def _sum_over_others(values: Tensor, dim: int) -> Tensor:
    others = [other for other in range(values.dim()) if other != dim]
    return values.sum(others) if others else values
