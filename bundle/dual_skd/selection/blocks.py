# SPDX-License-Identifier: Apache-2.0
"""Finds the repeated blocks of a network by the names and shapes of its tensors, where no table names them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from dual_skd.errors import SelectionError
from dual_skd.selection.rules import Layers, map_blocks

Shapes = Mapping[str, tuple[int, ...]]
Blocks = dict[int, dict[str, tuple[int, ...]]]  # number -> name inside of the block -> shape


def block_names(layers: Layers, large: Shapes, small: Shapes) -> dict[str, str]:
    """The large network's name of each tensor of the small one, by a layer rule.

    A stage is a numbered list of modules of which all, the first one apart, have the same tensors of the same shapes.

    Args:
        layers: the rule, see :func:`.plan.plan_selection`.
        large: tensor name -> shape.
        small: the same of the small network.

    Raises:
        SelectionError: the rule isn't ``first`` and there are no stages, or it doesn't fit them.
    """
    if layers == "first":
        return {name: name for name in small}
    there, here = _lists(large), _lists(small)
    stages = [path for path in here if path in there and (_is_stage(there[path]) or _is_stage(here[path]))]
    if not stages:
        raise SelectionError(
            f"layers={layers!r} needs repeated blocks of one form, and this network has none: use layers='first' (in "
            "training --selection_layers first --selection_layers_auxiliary first)"
        )
    mapped = map_blocks(
        layers,
        {str(number): len(there[path]) for number, path in enumerate(stages)},
        {str(number): len(here[path]) for number, path in enumerate(stages)},
        staged=len(stages) > 1,
        keep_first=any(_first_differs(there[path]) for path in stages),
    )
    names = {name: name for name in small}
    for number, path in enumerate(stages):
        for block, source in mapped[str(number)].items():
            for inside in here[path][block]:
                own = f"{path}.{block}.{inside}"
                names[own] = own if source is None else f"{path}.{source}.{inside}"
    return names


def _lists(shapes: Shapes) -> dict[str, Blocks]:
    """Path of each numbered list of modules -> its blocks, the outermost lists of equal blocks alone."""
    found: dict[str, Blocks] = defaultdict(lambda: defaultdict(dict))
    for name, shape in shapes.items():
        for match in re.finditer(r"\.(\d+)(?=\.)", name):
            found[name[: match.start()]][int(match[1])][name[match.end() + 1 :]] = shape
    numbered = {path: blocks for path, blocks in found.items() if sorted(blocks) == list(range(len(blocks)))}
    outer = [path for path, blocks in numbered.items() if _is_stage(blocks)]
    inside = tuple(f"{path}." for path in outer)
    return {path: blocks for path, blocks in numbered.items() if not path.startswith(inside)}


def _is_stage(blocks: Blocks) -> bool:
    """Whether there are several blocks, and all after the first one have the same tensors of the same shapes."""
    others = [blocks[number] for number in sorted(blocks)][1:]
    return bool(others) and all(other == others[0] for other in others) and set(others[0]) <= set(blocks[0])


def _first_differs(blocks: Blocks) -> bool:
    return len(blocks) > 1 and blocks[0] != blocks[1]


def repeated(names: Sequence[str]) -> set[str]:
    """The names without their numbers: equal for the same tensor of different blocks."""
    return {re.sub(r"\d+", "#", name) for name in names}
