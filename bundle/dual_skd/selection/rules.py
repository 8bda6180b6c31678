# SPDX-License-Identifier: Apache-2.0
"""Which indices of an axis, and which blocks of a stage, are kept.

Every rule returns sorted, distinct indices, so that equal sizes always give the identity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from dual_skd.errors import SelectionError
from dual_skd.options.choices import ElementRule, LayerRule

ELEMENT_RULES = get_args(ElementRule)
LAYER_RULES = get_args(LayerRule)
Layers = str | Sequence[int] | Sequence[Sequence[int]] | Mapping[Any, Sequence[int]]  # a rule, or the blocks themselves


def uniform(large: int, small: int) -> Tensor:
    """Evenly spaced indices: a whole step where the ratio is an integer, else a rounded linspace over both ends.

    This is the index formula of Xu et al., "Initializing Models with Larger Ones", 2023 (arXiv 2311.18823).
    """
    if large % small == 0:
        return torch.arange(small) * (large // small)
    return torch.linspace(0, large - 1, small).round().long()


def consecutive(large: int, small: int) -> Tensor:
    """The first ``small`` indices."""
    return torch.arange(small)


def complement(large: int, small: int) -> Tensor:
    """The indices that :func:`uniform` leaves out.

    With a ratio of exactly 2 the two rules are disjoint and cover the axis. With a larger ratio the kept ones are
    spread evenly over what was left out; with a smaller one everything left out is kept, and evenly spread uniform ones
    fill up.
    """
    taken = uniform(large, small)
    is_left = torch.ones(large, dtype=torch.bool)
    is_left[taken] = False
    left = is_left.nonzero().flatten()
    if len(left) >= small:
        return left[uniform(len(left), small)]
    fill = taken[uniform(small, small - len(left))]
    return torch.cat([left, fill]).sort().values


def random(large: int, small: int, *, seed: int, axis: str) -> Tensor:
    """A subset drawn without replacement; depends on ``seed`` and the axis name only, not on the order of calls."""
    digest = hashlib.sha256(f"{seed}/{axis}/{large}/{small}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randperm(large, generator=generator)[:small].sort().values


def importance(small: int, *, strength: Tensor) -> Tensor:
    """The ``small`` strongest entries of ``strength`` (L,); of equal ones the first."""
    order = strength.sort(descending=True, stable=True).indices
    return order[:small].sort().values


def choose_elements(
    rule: str, large: int, small: int, *, axis: str = "", seed: int = 0, strength: Tensor | None = None
) -> Tensor:
    """Applies an element rule.

    Args:
        rule: one of ``ELEMENT_RULES``.
        large: size of the axis in the large network.
        small: size of the axis in the small network, at most ``large``.
        axis: name of the axis; part of the seed of ``random``.
        seed: seed of ``random``.
        strength: squared norm per index (L,), needed by ``importance``.

    Returns:
        Sorted indices, int64 (small,).

    Raises:
        SelectionError: on an unknown rule, or when the small network is wider than the large one.
    """
    check_word("elements", rule, ELEMENT_RULES)
    if small > large:
        raise SelectionError(f"axis {axis!r}: {small} indices can't be kept of {large} (rule {rule!r})")
    if rule == "uniform":
        return uniform(large, small)
    if rule == "consecutive":
        return consecutive(large, small)
    if rule == "complement":
        return complement(large, small)
    if rule == "random":
        return random(large, small, seed=seed, axis=axis)
    if large == small:
        return torch.arange(large)
    if strength is None:
        raise SelectionError(f"axis {axis!r}: the rule 'importance' needs the large network's values, not only shapes")
    return importance(small, strength=strength)


def check_word(argument: str, word: object, words: Sequence[object], otherwise: str = "") -> None:
    """Raises a ``SelectionError`` that lists the valid words unless ``word`` is one of them."""
    if word not in words:
        raise SelectionError(f"{argument}={word!r} is unknown; choose one of {', '.join(map(str, words))}{otherwise}")


def choose_layers(
    rule: str | Sequence[int], large: int, small: int, *, stage: str = "", keep_first: bool = False
) -> list[int | None]:
    """For each block of the small stage, the block of the large stage that it is taken from.

    Args:
        rule: ``first``, ``last``, ``even`` (the spacing of :func:`uniform`) or an explicit list of large blocks.
        large: number of blocks in the large stage.
        small: number of blocks in the small stage.
        stage: name of the stage, for messages.
        keep_first: the first block of a stage changes stride and width and can only come from the first one
            (EfficientNet, ResNet); the rule then picks the others.

    Returns:
        One entry per small block; None where the large stage has no block left (the small one is deeper).

    Raises:
        SelectionError: on an unknown rule or an explicit list that doesn't fit.
    """
    place = f"stage {stage}" if stage else "the network"
    if not isinstance(rule, str):
        chosen = [int(block) for block in rule]
        if len(chosen) != small or any(not 0 <= block < large for block in chosen):
            raise SelectionError(
                f"layers={chosen} for {place}: expected {small} blocks (the small network's depth), "
                f"each in 0..{large - 1}"
            )
        if keep_first and chosen[0] != 0:
            raise SelectionError(
                f"layers={chosen} for {place}: block 0 changes width and stride, so the list must begin with 0"
            )
        return list(chosen)
    check_word("layers", rule, LAYER_RULES, ", or list the blocks")
    if small >= large or rule == "first":
        return [block if block < large else None for block in range(small)]
    if rule == "even":
        return uniform(large, small).tolist()
    if keep_first:
        return [0, *range(large - small + 1, large)]
    return list(range(large - small, large))


def map_blocks(
    layers: Layers, large: Mapping[str, int], small: Mapping[str, int], *, staged: bool, keep_first: bool
) -> dict[str, dict[int, int | None]]:
    """Stage -> block of the small network -> block of the large one, as :func:`choose_layers` has it.

    Args:
        layers: one rule or list for all stages, or one per stage.
        large: stage -> number of blocks.
        small: the same of the small network.
        staged: whether the networks have stages.
        keep_first: see :func:`choose_layers`.

    Raises:
        SelectionError: ``layers`` doesn't fit the stages.
    """
    stages = sorted(small, key=lambda stage: int(stage or 0))
    rules: dict[str, Any] = dict.fromkeys(stages, layers)
    if not staged and not isinstance(layers, str):
        if isinstance(layers, Mapping) or any(isinstance(block, Sequence) for block in layers):
            raise SelectionError(f"layers={layers}: this network has no stages; list its blocks alone, as [0, 2, 5]")
    elif isinstance(layers, Mapping):
        given = {str(stage): rule for stage, rule in layers.items()}
        if strange := set(given) - set(stages):
            raise SelectionError(f"layers names stages {sorted(strange)}; the small network has {', '.join(stages)}")
        rules = {stage: given.get(stage, "first") for stage in stages}
    elif not isinstance(layers, str):
        if len(layers) != len(stages) or any(isinstance(rule, int) for rule in layers):
            raise SelectionError(f"layers={layers}: expected one list of blocks for each of the {len(stages)} stages")
        rules = dict(zip(stages, layers, strict=True))
    mapped = {}
    for stage in stages:
        depth = large.get(stage, 0)
        chosen = choose_layers(rules[stage], depth, small[stage], stage=stage, keep_first=keep_first) if depth else []
        mapped[stage] = dict(enumerate(chosen))
    return mapped
