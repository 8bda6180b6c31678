# SPDX-License-Identifier: Apache-2.0
"""Dimensions as terms: what tying, splitting and joining does to the axes."""

from __future__ import annotations

import pytest

from dual_skd.selection.terms import Term, concatenation, keep_whole, product, take_factors, take_segment, tie


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
