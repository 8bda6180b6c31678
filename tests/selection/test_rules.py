# SPDX-License-Identifier: Apache-2.0
"""Index sets, by hand and by property."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dual_skd.errors import SelectionError
from dual_skd.selection.rules import ELEMENT_RULES, choose_elements, choose_layers, complement, uniform

SIZES = st.integers(1, 300).flatmap(lambda large: st.tuples(st.just(large), st.integers(1, large)))


@pytest.mark.parametrize(
    ("large", "small", "expected"),
    [
        (8, 4, [0, 2, 4, 6]),
        (9, 3, [0, 3, 6]),
        (7, 3, [0, 3, 6]),
        (10, 4, [0, 3, 6, 9]),
        (5, 4, [0, 1, 3, 4]),
        (6, 1, [0]),
        (3, 3, [0, 1, 2]),
    ],
)
def test_uniform_is_evenly_spaced(large: int, small: int, expected: list[int]) -> None:
    assert uniform(large, small).tolist() == expected


@pytest.mark.parametrize(
    ("large", "small", "expected"),
    [
        (8, 4, [1, 3, 5, 7]),  # ratio 2: the other half
        (9, 3, [1, 4, 7]),  # 1 2 4 5 7 8 are left, every second of them is kept
        (5, 4, [0, 2, 3, 4]),  # 2 is left; of the uniform ones 0 1 3 4, evenly spaced ones fill up: 0 3 4
        (4, 4, [0, 1, 2, 3]),
        (6, 1, [1]),
    ],
)
def test_complement_takes_what_uniform_left_out(large: int, small: int, expected: list[int]) -> None:
    assert complement(large, small).tolist() == expected


@settings(max_examples=300, derandomize=True)
@given(SIZES, st.sampled_from(ELEMENT_RULES), st.integers(0, 5))
def test_every_rule_keeps_sorted_distinct_indices_in_range(sizes: tuple[int, int], rule: str, seed: int) -> None:
    large, small = sizes
    strength = torch.rand(large, generator=torch.Generator().manual_seed(seed))
    kept = choose_elements(rule, large, small, axis="a", seed=seed, strength=strength).tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == small
    assert 0 <= kept[0] and kept[-1] < large
    if large == small:
        assert kept == list(range(large))


@given(st.integers(1, 200))
def test_at_ratio_two_uniform_and_complement_are_disjoint_and_cover(small: int) -> None:
    taken, others = uniform(2 * small, small).tolist(), complement(2 * small, small).tolist()
    assert sorted(taken + others) == list(range(2 * small))


@given(SIZES)
def test_the_complement_avoids_uniform_as_far_as_sizes_allow(sizes: tuple[int, int]) -> None:
    large, small = sizes
    shared = set(uniform(large, small).tolist()) & set(complement(large, small).tolist())
    assert len(shared) == max(0, 2 * small - large)


def test_consecutive_is_a_run() -> None:
    assert choose_elements("consecutive", 9, 4).tolist() == [0, 1, 2, 3]


def test_random_depends_on_seed_and_axis_only() -> None:
    def draw(seed: int, axis: str) -> list[int]:
        return choose_elements("random", 100, 50, seed=seed, axis=axis).tolist()

    torch.manual_seed(1)
    first = draw(0, "stage1")
    torch.manual_seed(2)
    assert draw(0, "stage1") == first
    assert draw(1, "stage1") != first
    assert draw(0, "stage2") != first


def test_random_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    choose_elements("random", 100, 50, axis="a")
    assert torch.equal(torch.get_rng_state(), before)


def test_importance_keeps_the_strongest_and_the_first_of_equals() -> None:
    strength = torch.tensor([1.0, 9.0, 3.0, 3.0, 5.0])
    assert choose_elements("importance", 5, 3, strength=strength).tolist() == [1, 2, 4]


def test_importance_without_values_is_refused() -> None:
    with pytest.raises(SelectionError, match="needs the large network's values"):
        choose_elements("importance", 5, 3, axis="embed")


def test_an_unknown_rule_lists_the_known_ones() -> None:
    with pytest.raises(SelectionError, match="'evenly' is unknown; choose one of uniform, consecutive"):
        choose_elements("evenly", 4, 2)


def test_more_indices_than_there_are_is_refused() -> None:
    with pytest.raises(SelectionError, match="axis 'mlp': 5 indices can't be kept of 4"):
        choose_elements("uniform", 4, 5, axis="mlp")


@pytest.mark.parametrize(
    ("rule", "keep_first", "expected"),
    [
        ("first", False, [0, 1, 2]),
        ("last", False, [3, 4, 5]),
        ("last", True, [0, 4, 5]),
        ("even", False, [0, 2, 4]),
        ([5, 0, 2], False, [5, 0, 2]),
        ([0, 3, 3], True, [0, 3, 3]),
    ],
)
def test_three_layers_of_six(rule: str | list[int], keep_first: bool, expected: list[int]) -> None:
    assert choose_layers(rule, 6, 3, keep_first=keep_first) == expected


@pytest.mark.parametrize("rule", ["first", "last", "even"])
def test_a_deeper_small_stage_has_blocks_without_source(rule: str) -> None:
    assert choose_layers(rule, 2, 4) == [0, 1, None, None]


@pytest.mark.parametrize(
    ("rule", "keep_first", "message"),
    [
        ([0, 1], False, "expected 3 blocks"),
        ([0, 1, 6], False, r"each in 0\.\.5"),
        ([1, 2, 3], True, "must begin with 0"),
        ("middle", False, "choose one of first, last, even"),
    ],
)
def test_layer_rules_that_do_not_fit_are_refused(rule: str | list[int], keep_first: bool, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        choose_layers(rule, 6, 3, stage="2", keep_first=keep_first)
