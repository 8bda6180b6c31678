# SPDX-License-Identifier: Apache-2.0
"""Dimensions as terms: what tying, splitting and joining does to the axes."""

from __future__ import annotations

import pytest
import torch

from dual_skd.selection.pairing import NoCounterpart, Pairing
from dual_skd.selection.terms import Term, concatenation, keep_whole, product, take_factors, take_segment, tie
from dual_skd.selection.tracer import Tracer


def sizes(term: Term) -> list[int]:
    return [axis.size for axis in term.axes()]


def test_an_axis_that_is_tied_to_a_product_becomes_it() -> None:
    channels, heads, per_head = Term(12), Term(3), Term(4)
    tie(channels, product([heads, per_head]))
    assert [factor.root for factor in channels.factors] == [heads, per_head]


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [([3, 12], [3, 4, 3], [3, 4, 3]), ([4, 6], [8, 3], [4, 2, 3]), ([2, 2, 6], [4, 6], [2, 2, 6])],
)
def test_products_are_split_to_their_common_factors(one: list[int], other: list[int], common: list[int]) -> None:
    a, b = (product([Term(size) for size in each]) for each in (one, other))
    tie(a, b)
    assert sizes(a) == sizes(b) == common
    assert all(x.root is y.root for x, y in zip(a.axes(), b.axes(), strict=True))


def test_products_without_common_factors_are_kept_whole() -> None:
    a, b = (product([Term(size) for size in each]) for each in ((4, 9), (6, 6)))
    tie(a, b)
    assert all(axis.whole for term in (a, b) for axis in term.axes())


def test_concatenations_are_cut_where_either_is() -> None:
    a, b = (concatenation([Term(size) for size in each]) for each in ((5, 3), (2, 6)))
    tie(a, b)
    assert sizes(a) == sizes(b) == [2, 3, 3]


def test_a_concatenation_of_equal_parts_is_a_product_whose_first_factor_is_kept_whole() -> None:
    parts, channels = [Term(4), Term(4), Term(4)], Term(4)
    tie(concatenation(parts), product([Term(3), channels]))
    assert len({part.root for part in (*parts, channels)}) == 1


def test_heads_may_be_cut_between_but_not_within() -> None:
    heads, per_head = Term(6), Term(4)
    dim = product([heads, per_head])
    assert take_segment(dim, 0, 8).size == 8
    assert sizes(heads) == [2, 4]
    other = product([Term(6), Term(4)])
    assert take_segment(other, 0, 6) is None and sizes(other) == [6, 4]


def test_factors_that_a_term_does_not_have_are_refused() -> None:
    assert take_factors(product([Term(4), Term(9)]), [6, 6]) is None
    assert [term.size for term in take_factors(Term(12), [3, 4])] == [3, 4]


def test_an_axis_keeps_what_is_known_of_all_that_are_tied_to_it() -> None:
    whole, other = keep_whole(Term(4)), Term(4)
    tie(whole, other)
    assert other.root.whole
    tokens = concatenation([Term(1), Term(9, space=True)])
    positions = Term(10)
    tie(positions, tokens)
    assert positions.is_space and not product([Term(3), Term(9, space=True)]).is_space
    with pytest.raises(ValueError, match="4 and 5"):
        tie(Term(4), Term(5))


def test_forms_that_do_not_fit_are_kept_whole() -> None:
    pairs = [
        (product([Term(3), Term(4)]), concatenation([Term(5), Term(7)])),
        (concatenation([product([Term(6), Term(4)]), Term(4)]), concatenation([Term(6), Term(22)])),
    ]
    for a, b in pairs:
        tie(a, b)
        assert all(axis.whole for term in (a, b) for axis in term.axes())
    term = Term(4)
    term.become(term)
    assert term.root is term


def test_parts_of_a_concatenation_are_those_of_the_layers_that_make_them() -> None:
    pairing = Pairing()
    heads, per_head, other = Term(2), Term(3), Term(5)
    wide_heads, wide_per_head, wide_other = Term(4), Term(6), Term(10)
    pairs = ((heads, wide_heads), (per_head, wide_per_head), (other, wide_other))
    for name, (small, large) in zip("abc", pairs, strict=True):
        pairing.pair(name, small, large)
    small = concatenation([product([heads, per_head]), other])
    large = concatenation([Term(7), wide_other, product([wide_heads, wide_per_head])])
    ((joined,),) = (pairing.dimension("d", small, large),)
    assert [start for start, _ in joined.segments] == [17, 7]
    with pytest.raises(NoCounterpart, match="joined parts of sizes 6, 5 here, 7, 10, 24, 1 there"):
        pairing.dimension("d", concatenation([Term(6), other]), concatenation([*large.segments, Term(1)]))
    with pytest.raises(NoCounterpart, match="a product of 5, 7 here, of 4, 3, 2 there"):
        pairing.dimension("d", product([Term(5), Term(7)]), product([Term(4), Term(3), Term(2)]))


def test_a_handler_that_gives_wrong_sizes_is_found_out() -> None:
    with pytest.raises(AssertionError, match=r"terms of \[3\] for a tensor of \[2\]"):
        Tracer().set(torch.zeros(2), [Term(3)])
