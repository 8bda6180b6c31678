# SPDX-License-Identifier: Apache-2.0
"""What each operation of PyTorch that moves entries says about the dimensions of its operands, see :mod:`.tracing`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dual_skd.selection.terms import Term, concatenation, keep_whole, product, take_factors, take_segment, tie
from dual_skd.selection.tracer import NotFollowed, Tracer, handles, results_of, space


@handles("view", "_unsafe_view")
def view(t: Tracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> None:
    t.set(out, reshaped(t.read(x), list(out.shape)))


def reshaped(terms: Sequence[Term], shape: Sequence[int]) -> list[Term]:
    """The terms of a tensor of another shape with the same elements in the same order."""
    found: list[Term] = []
    rest = [term for term in terms if term.size > 1]
    wanted: list[int] = []
    group: list[Term] = []
    have = want = 1
    for size in shape:
        wanted.append(size)
        want *= size
        while have < want or (have % want and rest):
            group.append(rest.pop(0))
            have *= group[-1].size
        if have == want:
            found += _regrouped(group, wanted)
            wanted, group, have, want = [], [], 1, 1
    return found + [Term(size) for size in wanted]


def _regrouped(group: list[Term], sizes: Sequence[int]) -> list[Term]:
    large = [size for size in sizes if size > 1]
    split = list(group) if len(group) == len(large) == 1 else take_factors(product(group), large)
    if split is None and all(term.is_space for term in group):
        split = [space(size) for size in large]
    elif split is None:
        for term in group:
            keep_whole(term)
        split = [Term(size, whole=True) for size in large]
    parts = iter(split)
    return [Term(1) if size == 1 else next(parts) for size in sizes]


@handles("permute")
def permute(t: Tracer, out: Tensor, x: Tensor, dims: Sequence[int]) -> None:
    terms = t.read(x)
    t.set(out, [terms[dim] for dim in dims])


@handles("transpose")
def transpose(t: Tracer, out: Tensor, x: Tensor, a: int, b: int) -> None:
    terms = list(t.read(x))
    terms[a], terms[b] = terms[b], terms[a]
    t.set(out, terms)


@handles("transpose_")
def transpose_in_place(t: Tracer, out: Tensor, x: Tensor, a: int, b: int) -> None:
    terms = list(t.read(x))
    terms[a], terms[b] = terms[b], terms[a]
    t.replace(out, terms)


@handles("t")
def matrix_transpose(t: Tracer, out: Tensor, x: Tensor) -> None:
    t.set(out, t.read(x)[::-1])


@handles("unsqueeze", "squeeze")
def other_ones(t: Tracer, out: Tensor, x: Tensor, *args: Any) -> None:
    t.set(out, reshaped(t.read(x), list(out.shape)))


@handles("expand", "repeat")
def expand(t: Tracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> None:
    terms = t.read(x)
    new = out.dim() - x.dim()
    found = [Term(size) for size in out.shape[:new]]
    for term, size in zip(terms, out.shape[new:], strict=True):
        if term.size == size:
            found.append(term)
        elif term.size == 1:
            found.append(Term(size))
        else:
            found.append(concatenation([term] * (size // term.size)))
    t.set(out, found)


@handles("cat")
def cat(t: Tracer, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> None:
    tensors = [tensor for tensor in tensors if tensor.dim() == out.dim()]
    dim %= out.dim()
    all_terms = [t.read(tensor) for tensor in tensors]
    first = list(all_terms[0])
    for other in all_terms[1:]:
        for place, (a, b) in enumerate(zip(first, other, strict=True)):
            if place != dim:
                tie(a, b)
    first[dim] = concatenation([terms[dim] for terms in all_terms])
    t.set(out, first)


@handles("stack")
def stack(t: Tracer, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> None:
    dim %= out.dim()
    terms = list(t.read(tensors[0]))
    for other in tensors[1:]:
        for a, b in zip(terms, t.read(other), strict=True):
            tie(a, b)
    terms.insert(dim, Term(len(tensors), whole=True))
    t.set(out, terms)


@handles("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def split(t: Tracer, out: Sequence[Tensor], x: Tensor, sizes: Any, dim: int = 0) -> None:
    start, dim = 0, dim % x.dim()
    for part in out:
        _set_sliced(t, part, x, dim, start, start + part.shape[dim])
        start += part.shape[dim]


@handles("slice")
def take_slice(
    t: Tracer, out: Tensor, x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> None:
    dim %= x.dim()
    first = min(max((start or 0) + (x.shape[dim] if (start or 0) < 0 else 0), 0), x.shape[dim])
    if step == 1:
        _set_sliced(t, out, x, dim, first, first + out.shape[dim])
        return
    terms = list(t.read(x))
    place = terms[dim].is_space
    keep_whole(terms[dim])
    terms[dim] = space(out.shape[dim]) if place else Term(out.shape[dim], whole=True)
    t.set(out, terms)


def _set_sliced(t: Tracer, out: Tensor, x: Tensor, dim: int, start: int, stop: int) -> None:
    terms = list(t.read(x))
    part = take_segment(terms[dim], start, stop)
    if part is None:
        place = terms[dim].is_space
        keep_whole(terms[dim])
        part = space(stop - start) if place else Term(stop - start, whole=True)
    terms[dim] = part
    t.set(out, terms)


@handles("select", "unbind")
def select(t: Tracer, out: Any, x: Tensor, dim: int = 0, index: int = 0) -> None:
    terms = list(t.read(x))
    keep_whole(terms.pop(dim % x.dim()))
    for part in results_of(out):
        t.set(part, terms)


@handles("index", "index_select", "gather", "embedding", "_unsafe_index")
def index(t: Tracer, out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> None:
    """Indices name their entries: what they choose from is needed whole."""
    terms = t.read(x)
    if isinstance(args[0], (list, tuple)):  # x[..., indices]
        indexed = [dim for dim, each in enumerate(args[0]) if isinstance(each, Tensor)]
        ranks = max(args[0][dim].dim() for dim in indexed)
        adjacent = indexed == list(range(indexed[0], indexed[-1] + 1))
        at = indexed[0] if adjacent else 0
        kept = [term for dim, term in enumerate(terms) if dim not in indexed]
        new = [space(size) for size in out.shape[at : at + ranks]]
        found = [*kept[:at], *new, *kept[at:]]
    elif isinstance(args[0], Tensor):  # an embedding's rows
        indexed = [0]
        found = [*(space(size) for size in args[0].shape), *terms[1:]]
    else:
        indexed = [args[0] % x.dim()]
        same = [term.size == size for term, size in zip(terms, out.shape, strict=True)]
        found = [
            term if is_same and dim not in indexed else space(out.shape[dim])
            for dim, (term, is_same) in enumerate(zip(terms, same, strict=True))
        ]
    for dim in indexed:
        keep_whole(terms[dim])
    t.set(out, found)


@handles("roll", "flip")
def moved_along(t: Tracer, out: Tensor, x: Tensor, *args: Any) -> None:
    dims = args[-1] if args and isinstance(args[-1], (list, tuple)) else []
    terms = t.read(x)
    for dim in dims:
        if dim < x.dim() and not terms[dim].is_space:
            keep_whole(terms[dim])
    t.set(out, terms)


@handles("constant_pad_nd")
def pad(t: Tracer, out: Tensor, x: Tensor, widths: Sequence[int], *args: Any) -> None:
    terms = list(t.read(x))
    for number in range(len(widths) // 2):
        dim = x.dim() - 1 - number
        before, after = widths[2 * number], widths[2 * number + 1]
        if before == after == 0:
            continue
        if terms[dim].is_space or min(before, after) < 0:
            terms[dim] = space(out.shape[dim])
        else:
            terms[dim] = concatenation([Term(before), terms[dim], Term(after)])
    t.set(out, terms)


@handles("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(t: Tracer, out: Tensor, x: Tensor, groups: int) -> None:
    terms = t.read(x)
    groups_first = reshaped([terms[1]], [groups, x.shape[1] // groups])
    t.set(out, [terms[0], product(groups_first[::-1]), *terms[2:]])


@handles("pixel_shuffle")
def pixel_shuffle(t: Tracer, out: Tensor, x: Tensor, factor: int) -> None:
    terms = t.read(x)
    channels, *_ = reshaped([terms[1]], [out.shape[1], factor * factor])
    t.set(out, [terms[0], channels, space(out.shape[2]), space(out.shape[3])])


@handles("pixel_unshuffle")
def pixel_unshuffle(t: Tracer, out: Tensor, x: Tensor, factor: int) -> None:
    terms = t.read(x)
    channels = product([terms[1], Term(factor * factor, whole=True)])
    t.set(out, [terms[0], channels, space(out.shape[2]), space(out.shape[3])])


@handles("im2col")
def unfold(t: Tracer, out: Tensor, x: Tensor, kernel: Sequence[int], *args: Any) -> None:
    terms = t.read(x)
    t.set(out, [terms[0], product([terms[1], space(math.prod(kernel))]), space(out.shape[2])])


@handles("col2im")
def fold(t: Tracer, out: Tensor, x: Tensor, size: Sequence[int], kernel: Sequence[int], *args: Any) -> None:
    terms = t.read(x)
    channels, *_ = reshaped([terms[1]], [out.shape[1], math.prod(kernel)])
    t.set(out, [terms[0], channels, *(space(side) for side in size)])


@handles("unfold")
def windows_along(t: Tracer, out: Tensor, x: Tensor, dim: int, *args: Any) -> None:
    dim %= x.dim()
    terms = list(t.read(x))
    if not terms[dim].is_space:
        keep_whole(terms[dim])
    terms[dim] = space(out.shape[dim])
    t.set(out, [*terms, space(out.shape[-1])])


@handles("as_strided_")
def restrided(t: Tracer, out: Tensor, x: Tensor, shape: Sequence[int], *args: Any) -> None:
    """PyTorch restrides the result of a pooling in place: its shape must stay."""
    if [term.size for term in t.read(x)] != list(shape):
        raise NotFollowed("a tensor is restrided to another shape")


@handles("glu")
def gated(t: Tracer, out: Tensor, x: Tensor, dim: int = -1) -> None:
    dim %= x.dim()
    half = x.shape[dim] // 2
    terms = list(t.read(x))
    parts = [take_segment(terms[dim], 0, half), take_segment(terms[dim], half, 2 * half)]
    if parts[0] is None or parts[1] is None:
        raise NotFollowed("a gate that can't be halved")
    tie(parts[0], parts[1])
    terms[dim] = parts[0]
    t.set(out, terms)
