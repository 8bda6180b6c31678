# SPDX-License-Identifier: Apache-2.0
"""Finds for each axis of a small network the axis of the large one that it is a part of."""

from __future__ import annotations

from functools import cache
from itertools import count

from dual_skd.selection.parts import Axis, Concatenation, Dim
from dual_skd.selection.terms import Term


class NoCounterpart(Exception):
    """Two dimensions aren't made of the same axes; the message says how."""


class Pairing:
    """The axes of two networks that correspond, found from the tensors that correspond.

    Attributes:
        clashes: two axes -> why the small network isn't a part of the large one.
    """

    def __init__(self) -> None:
        self.clashes: dict[str, str] = {}
        self._partner: dict[Term, Term] = {}
        self._names: dict[Term, str] = {}

    def pair(self, name: str, small: Term, large: Term) -> None:
        """Pairs the axes of one dimension.

        Args:
            name: of the dimension, for messages and for the axes that it is the first to have.
            small: the dimension in the small network.
            large: the same in the large one.
        """
        small, large = small.root, large.root
        if small.is_axis and large.is_axis:
            self._pair_axes(name, small, large)
        elif small.form == large.form == "concatenation":
            # the segments of others are those of the layers that make them
            if len(small.segments) == len(large.segments):
                for segment, other in zip(small.segments, large.segments, strict=True):
                    self.pair(name, segment, other)
        elif "concatenation" not in (small.form, large.form):
            for number, (one, other) in enumerate(self._aligned(small, large) or []):
                if one is not None:
                    self.pair(f"{name}.{number}", one, other)

    def dimension(self, name: str, small: Term, large: Term) -> Dim:
        """One dimension as a part of the large network's.

        Raises:
            NoCounterpart: the two are made of different axes, or indices are needed that the small network lacks.
        """
        small, large = small.root, large.root
        if small.is_axis and large.is_axis:
            return (self._axis(name, small, large),)
        if "concatenation" in (small.form, large.form):
            return self._concatenation(name, small, large)
        aligned = self._aligned(small, large)
        if aligned is None:
            raise NoCounterpart(f"a product of {_sizes(small)} here, of {_sizes(large)} there")
        found: list[Axis | Concatenation] = []
        for one, other in aligned:
            if one is None:
                found.append(Axis(self._name(other, name), other.size, 1))
            else:
                found += self.dimension(name, one, other)
        return tuple(found)

    def _pair_axes(self, name: str, small: Term, large: Term) -> None:
        self._name(large, name)
        known = self._partner.setdefault(small, large)
        if known is not large and not small.size == known.size == large.size:
            pair = f"{self._name(known, name)} and {self._name(large, name)}"
            self.clashes[pair] = f"the small network adds {pair}, which the large one keeps apart ({name})"

    def _axis(self, name: str, small: Term, large: Term) -> Axis:
        if small.size != large.size and (small.whole or large.whole or small.space or large.space):
            why = "depends on the size of the image" if small.space or large.space else "is needed whole"
            raise NoCounterpart(f"axis {self._name(large, name)} {why}: {small.size} here, {large.size} there")
        return Axis(self._name(large, name), large.size, small.size)

    def _concatenation(self, name: str, small: Term, large: Term) -> Dim:
        segments: list[tuple[int, Dim]] = []
        for one, start, other in self._matched(name, small, large):
            segments.append((start, self.dimension(name, one, other)))
        return (Concatenation(tuple(segments), large.size),)

    def _matched(self, name: str, small: Term, large: Term) -> list[tuple[Term, int, Term]]:
        """(segment, start in the large network, segment there), in the small network's order."""
        starts, at = [], 0
        for segment in large.segments:
            starts.append((at, segment))
            at += segment.size
        if len(small.segments) == len(starts):
            return [(one, *there) for one, there in zip(small.segments, starts, strict=True)]
        found = []
        for segment in small.segments:
            place = next((n for n, (_, other) in enumerate(starts) if self._correspond(segment, other)), None)
            if place is None:
                raise NoCounterpart(
                    f"{len(small.segments)} joined parts of sizes {_sizes(small)} here, {_sizes(large)} there"
                )
            found.append((segment, *starts.pop(place)))
        return found

    def _correspond(self, small: Term, large: Term) -> bool:
        small, large = small.root, large.root
        if small.is_axis and large.is_axis:
            return self._partner.get(small) is large
        if small.form != large.form:
            return False
        pairs = zip(small.factors, large.factors, strict=False)
        return len(small.factors) == len(large.factors) and all(self._correspond(*pair) for pair in pairs)

    def _aligned(self, small: Term, large: Term) -> list[tuple[Term | None, Term]] | None:
        """Pairs the factors of two products; one that the small network lacks has size 1 there, as a single head.

        None where there is no way to pair them.
        """
        mine, theirs = small.factors or [small], large.factors or [large]
        if len(mine) == len(theirs):
            return list(zip(mine, theirs, strict=True))

        @cache
        def best(i: int, j: int) -> tuple[float, tuple[int | None, ...]]:
            """The pairing of the factors from i and j on that keeps most sizes."""
            if j == len(theirs):
                return (0.0, ()) if i == len(mine) else (-float("inf"), ())
            options: list[tuple[float, tuple[int | None, ...]]] = [(-float("inf"), ())]
            if not theirs[j].root.whole:
                score, choice = best(i, j + 1)
                options.append((score, (None, *choice)))
            if i < len(mine) and mine[i].size <= theirs[j].size:
                score, choice = best(i + 1, j + 1)
                options.append((score + (mine[i].size == theirs[j].size), (i, *choice)))
            return max(options, key=lambda option: option[0])

        score, choice = best(0, 0)
        if score < 0:
            return None
        return [(None if i is None else mine[i], theirs[j]) for j, i in enumerate(choice)]

    def _name(self, large: Term, name: str) -> str:
        """The name of an axis of the large network: of the first dimension that has it, numbered if it has several."""
        if large not in self._names:
            taken = set(self._names.values())
            numbered = (f"{name}:{number}" for number in count(2))
            self._names[large] = name if name not in taken else next(new for new in numbered if new not in taken)
        return self._names[large]


def _sizes(term: Term) -> str:
    parts = term.segments if term.root.form == "concatenation" else term.factors
    return ", ".join(str(part.size) for part in parts)
