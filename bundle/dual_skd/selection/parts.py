# SPDX-License-Identifier: Apache-2.0
"""The parts of a plan: how each tensor of the small network is taken from one of the large network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

Step = tuple[str, Callable[[Tensor], Tensor]]  # an adaptation: its note in the report, and its function


@dataclass(frozen=True)
class Axis:
    """One named axis: its size in both networks."""

    name: str
    large: int
    small: int


@dataclass(frozen=True)
class Concatenation:
    """Axes one after the other, as the channels that a DenseNet's layer reads.

    Args:
        segments: (first index in the large network, dimension), in the small network's order.
        large: size in the large network, which may have segments that the small one lacks.
    """

    segments: tuple[tuple[int, Dim], ...]
    large: int

    @property
    def small(self) -> int:
        """Size in the small network."""
        return sum(math.prod(factor.small for factor in dim) for _, dim in self.segments)


Dim = tuple["Axis | Concatenation", ...]  # the factors of a dimension, the last one running fastest


def axes_of(dim: Dim) -> Iterator[Axis]:
    """The axes that a dimension is made of."""
    for factor in dim:
        if isinstance(factor, Axis):
            yield factor
        else:
            for _, segment in factor.segments:
                yield from axes_of(segment)


def is_whole(dim: Dim) -> bool:
    """Whether all of a dimension is kept in its order."""
    return all(factor.large == factor.small for factor in dim)


@dataclass(frozen=True)
class Part:
    """The plan of one tensor.

    Args:
        name: name in the small network.
        source: name in the large network.
        dims: axes of each dimension that is index-selected; None for a dimension that is not.
        steps: adaptations after the selection.
        reason: why nothing is selected, ``""`` for selected tensors.
        neutral: value of a tensor that the large network computes without.
        add_first: a position embedding whose first entry is added, for a class token that has no position of its own in
            the small network.
        piece: (place, number) where this tensor is one of several that the plan stacks along their first dimension.
    """

    name: str
    source: str | None
    dims: tuple[Dim | None, ...] = ()
    steps: tuple[Step, ...] = ()
    reason: str = ""
    neutral: float | None = None
    add_first: str | None = None
    piece: tuple[int, int] | None = None


def piece_of(part: Part, tensor: Tensor) -> Tensor:
    """What belongs to a part of a tensor that its plan stacks."""
    return tensor.chunk(part.piece[1])[part.piece[0]] if part.piece else tensor


class NotSelected(Exception):
    """A tensor can't be selected; the message is the reason in the report."""


def other_form(small: Sequence[int], large: Sequence[int]) -> NotSelected:
    """The refusal of a tensor by its shapes."""
    return NotSelected(f"other form: {by(small)} here, {by(large)} in the large network")


def by(shape: Sequence[int]) -> str:
    """A shape in words, "8x3x7x7"."""
    return "x".join(map(str, shape)) or "scalar"
