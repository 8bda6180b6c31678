# SPDX-License-Identifier: Apache-2.0
"""The dimensions of tensors as terms: axes, products of axes, and concatenations of axes.

A network says by what it computes which dimensions belong together. An addition ties two dimensions index by index, a
reshape splits one into factors (the last one running fastest), a concatenation makes one of several. A :class:`Term` is
one dimension; tying two terms (:func:`tie`) splits their axes until both have the same form. What can't be brought to
one form is kept whole (:func:`keep_whole`): no index of it may be left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence


class Term:
    """One dimension: an axis, or a product or a concatenation of other terms.

    Args:
        size: number of indices.
        form: ``axis``, ``product`` or ``concatenation``.
        parts: the terms it is made of; none of an axis.
        space: its indices are places in the image, or follow from them.
        whole: every index is needed.
    """

    def __init__(
        self,
        size: int,
        form: str = "axis",
        parts: Sequence[Term] = (),
        *,
        space: bool = False,
        whole: bool = False,
    ) -> None:
        self.size, self.form, self._parts = size, form, list(parts)
        self.space, self.whole = space, whole
        self._same: Term | None = None

    @property
    def root(self) -> Term:
        """The term that stands for all those tied to it."""
        root = self
        while root._same is not None:
            root = root._same
        term = self
        while term is not root:  # shortens the way for the next question
            term._same, term = root, term._same or root
        return root

    @property
    def is_axis(self) -> bool:
        """Whether it isn't made of others."""
        return self.root.form == "axis"

    @property
    def factors(self) -> list[Term]:
        """The factors of its product, without products among them and without those of size 1."""
        return [part for part in self._flat("product") if part.size > 1]

    @property
    def segments(self) -> list[Term]:
        """The segments of its concatenation, without concatenations among them."""
        return list(self._flat("concatenation"))

    def axes(self) -> Iterator[Term]:
        """The axes that it is made of, in order."""
        root = self.root
        if root.form == "axis":
            yield root
        for part in root._parts:
            yield from part.axes()

    @property
    def is_space(self) -> bool:
        """Whether it counts places in the image, maybe with others (a class token) before or after them."""
        root = self.root
        if root.form == "axis":
            return root.space
        if root.form == "product":
            return all(factor.is_space for factor in root.factors)
        return any(segment.is_space for segment in root.segments)

    def become(self, other: Term) -> None:
        """Makes this term the other one."""
        root, target = self.root, other.root
        if root is target:
            return
        for axis in target.axes():
            axis.space |= root.space
            axis.whole |= root.whole
        root._same = target

    def split(self, form: str, sizes: Sequence[int]) -> None:
        """Makes an axis a product or a concatenation of new axes."""
        root = self.root
        root.form = form
        root._parts = [Term(size, space=root.space, whole=root.whole) for size in sizes]

    def _flat(self, form: str) -> Iterator[Term]:
        root = self.root
        if root.form != form:
            yield root
        else:
            for part in root._parts:
                yield from part._flat(form)


def product(terms: Sequence[Term]) -> Term:
    """The product of terms, the last one running fastest."""
    factors = [factor for term in terms for factor in term.factors]
    if len(factors) == 1:
        return factors[0]
    return Term(math.prod(factor.size for factor in factors), "product", factors) if factors else Term(1)


def concatenation(terms: Sequence[Term]) -> Term:
    """The concatenation of terms."""
    terms = [term for term in terms if term.size]
    if len(terms) == 1:
        return terms[0]
    return Term(sum(term.size for term in terms), "concatenation", terms)


def keep_whole(term: Term) -> Term:
    """Says that every index of a term is needed; places in the image are needed anyway."""
    for axis in term.axes():
        axis.whole = True
    return term


def tie(a: Term, b: Term) -> None:
    """Says that two dimensions have the same indices.

    Raises:
        ValueError: they have different sizes.
    """
    a, b = a.root, b.root
    if a is b or a.size == b.size == 1:
        return
    if a.size != b.size:
        raise ValueError(f"dimensions of {a.size} and {b.size} can't be the same")
    if a.is_axis:
        a.become(b)
    elif b.is_axis:
        b.become(a)
    elif not (_tie_products(a, b) if "product" in (a.form, b.form) else _tie_concatenations(a, b)):
        keep_whole(a)
        keep_whole(b)


def take_factors(term: Term, sizes: Sequence[int]) -> list[Term] | None:
    """The terms of the given sizes whose product a term is; None where it can't be split so."""
    rest, found = term.factors, []
    for size in sizes:
        taken: list[Term] = []
        missing = size
        while missing > 1:
            if missing % rest[0].size and (rest[0].size % missing or not _split_front(rest, missing)):
                return None
            taken.append(rest.pop(0))
            missing //= taken[-1].size
        found.append(product(taken))
    return found


def take_segment(term: Term, start: int, stop: int) -> Term | None:
    """The part of a dimension from one index to another; None where it can't be split so."""
    if (start, stop) == (0, term.size):
        return term
    if not _cut(term, [start, stop]):
        return None
    taken, at = [], 0
    for segment in term.segments:
        if start <= at and at + segment.size <= stop:
            taken.append(segment)
        at += segment.size
    return concatenation(taken)


def _split_front(factors: list[Term], size: int) -> bool:
    """Splits the first factor into one of the given size and the rest."""
    front = factors[0].root
    if front.form == "concatenation":
        segments = front.segments
        if len({segment.size for segment in segments}) > 1 or len(segments) != size:
            return False
        for segment in segments[1:]:
            tie(segments[0], segment)
        front.become(Term(front.size, "product", [Term(size, whole=True), segments[0]]))
    elif front.is_axis:
        front.split("product", [size, front.size // size])
    factors[:1] = front.factors
    return factors[0].size == size


def _tie_products(a: Term, b: Term) -> bool:
    """Ties a product to a product or a concatenation; False where the forms can't be the same."""
    if "concatenation" in (a.form, b.form):
        whole, parts = (a, b) if a.form == "product" else (b, a)
        found = take_factors(parts, [factor.size for factor in whole.factors])
    else:
        whole, parts = a, b
        found = take_factors(b, [factor.size for factor in a.factors])
        if found is None:
            whole, parts = b, a
            found = take_factors(a, [factor.size for factor in b.factors])
    if found is None:
        return False
    for mine, theirs in zip(whole.factors, found, strict=True):
        tie(mine, theirs)
    return True


def _tie_concatenations(a: Term, b: Term) -> bool:
    edges = sorted({*_edges(a), *_edges(b)})
    if not (_cut(a, edges) and _cut(b, edges)):
        return False
    ends = edges[1:]
    for start, stop in zip([0, *ends], ends, strict=False):
        one, other = take_segment(a, start, stop), take_segment(b, start, stop)
        if one is None or other is None:
            return False
        tie(one, other)
    return True


def _edges(term: Term) -> list[int]:
    found = [0]
    for segment in term.segments:
        found.append(found[-1] + segment.size)
    return found


def _cut(term: Term, edges: Sequence[int]) -> bool:
    """Splits the axes of a concatenation (or the axis alone) so that no part crosses an edge."""
    start = 0
    for segment in term.segments:
        inside = sorted(edge - start for edge in edges if start < edge < start + segment.size)
        if inside and not _cut_segment(segment, inside):
            return False
        start += segment.size
    return True


def _cut_segment(segment: Term, edges: Sequence[int]) -> bool:
    sizes = [stop - start for start, stop in zip([0, *edges], [*edges, segment.size], strict=True)]
    if segment.is_axis:
        segment.split("concatenation", sizes)
        return True
    first, *others = segment.factors  # a product: only whole runs of its slowest factor
    run = math.prod(other.size for other in others)
    if any(size % run for size in sizes) or not first.is_axis:
        return False
    first.split("concatenation", [size // run for size in sizes])
    segment.become(Term(segment.size, "concatenation", [product([part, *others]) for part in first.segments]))
    return True
