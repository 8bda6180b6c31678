# SPDX-License-Identifier: Apache-2.0
"""Reads a network's tensors through the table of its family, see :mod:`.families`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from dual_skd.selection.families import FAMILIES, Family, Marker

Dims = tuple[tuple[str, ...], ...]  # per dimension the axes it is made of, without the kernel
Key = tuple[str, str, int | None]  # role, stage, block
JOINED = "+"  # "+2:5" is all that block 5 of stage 2 reads, "+2:" all of stage 2


@dataclass(frozen=True)
class TensorAxes:
    """The axes of one tensor.

    Args:
        key: tensors of two networks with equal keys correspond.
        dims: per dimension the axes it is made of, without the kernel.
        kind: kind of block, ``""`` outside of blocks.
    """

    key: Key
    dims: Dims
    kind: str = ""


@dataclass(frozen=True)
class NetworkAxes:
    """The axes of a network's tensors.

    Args:
        family: the family.
        shapes: tensor name -> shape.
        tensors: name -> axes, for each tensor the table knows.
        unknown: names that it doesn't know, without the classifier -> stage and block of those that lie in one.
        depths: stage -> number of blocks (one stage ``""`` where the family isn't staged).
    """

    family: Family
    shapes: Mapping[str, tuple[int, ...]]
    tensors: dict[str, TensorAxes]
    unknown: dict[str, tuple[str, int] | None]
    depths: dict[str, int]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Size of each axis that is the whole first dimension of a tensor."""
        return {
            axes.dims[0][0]: self.shapes[name][0]
            for name, axes in self.tensors.items()
            if axes.dims and len(axes.dims[0]) == 1
        }

    @cached_property
    def by_key(self) -> dict[Key, str]:
        """Name of each tensor by its key."""
        return {axes.key: name for name, axes in self.tensors.items()}


def find_family(names: Collection[str]) -> Family | None:
    """The family whose signature occurs among the tensor names, behind any prefix, or None."""
    return next((family for family in FAMILIES.values() if _prefix(family, names) is not None), None)


def family_prefix(names: Collection[str]) -> str | None:
    """What stands in front of the names of a known family; None where there is no known family."""
    return next((found for family in FAMILIES.values() if (found := _prefix(family, names)) is not None), None)


def describe(
    family: Family, shapes: Mapping[str, tuple[int, ...]], classifier: frozenset[str] = frozenset()
) -> NetworkAxes:
    """Reads a network's tensors through a family's table.

    Args:
        family: the family.
        shapes: tensor name, without a prefix -> shape.
        classifier: names of the classifier's tensors, which no table has.
    """
    pattern = re.compile(rf"(?P<block>{_regex(family.block)})\.(?P<rest>.+)")
    places = {name: found for name in shapes if (found := pattern.fullmatch(name))}
    shapes_in: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    depths: dict[str, int] = defaultdict(int)
    for name, found in places.items():
        shapes_in[found["block"]][found["rest"]] = shapes[name]
        stage = found["s"] if family.staged else ""
        depths[stage] = max(depths[stage], int(found["b"]) + 1)
    kinds = {
        block: next((kind for kind, marker in family.blocks if _is_marked(marker, inside)), "")
        for block, inside in shapes_in.items()
    }
    rows = {kind: _compiled(table) for (kind, _), table in family.blocks.items()}
    outer_rows = _compiled(family.tensors)
    stages = sorted(depths, key=int) if family.staged else []

    tensors: dict[str, TensorAxes] = {}
    unknown: dict[str, tuple[str, int] | None] = {}
    for name, shape in shapes.items():
        place, kind = places.get(name), ""
        if place:
            kind = kinds[place["block"]]
            row_found = _first_match(rows.get(kind, []), place["rest"], shape)
        else:
            row_found = _first_match(outer_rows, name, shape)
        if row_found:
            match, row = row_found
            words = match.groupdict() | (place.groupdict() if place else {})
            tensors[name] = _axes(family, row, words, kind, stages, shape)
        elif name not in classifier:
            unknown[name] = (place["s"] if family.staged else "", int(place["b"])) if place else None
    return NetworkAxes(family, shapes, tensors, unknown, dict(depths))


@dataclass(frozen=True)
class _Row:
    """One row of a table; ``role`` is its first alternative and equal across libraries."""

    pattern: re.Pattern[str]
    role: str
    dims: list[list[str]]
    has_kernel: bool

    def fits(self, shape: tuple[int, ...]) -> bool:
        """True where a tensor of this shape can be what the row describes; scalars (counters) fit every row."""
        named = len(self.dims)
        return not shape or len(shape) == named or (self.has_kernel and len(shape) > named)


def _compiled(table: Mapping[str, str]) -> list[_Row]:
    rows = []
    for names, dims in table.items():
        alternatives = [name.strip() for name in names.split("|")]
        words = [word.strip("()").split() for word in re.findall(r"\([^)]*\)|[^\s*]+", dims)]
        rows += [_Row(re.compile(_regex(name)), alternatives[0], words, "*" in dims) for name in alternatives]
    return rows


def _regex(name: str) -> str:
    pattern = re.sub(r"\\\{([sbn])\\\}", r"(?P<\1>\\d+)", re.escape(name))
    return pattern.replace(r"\.\*", r"\.(?P<leaf>\w+)")


def _prefix(family: Family, names: Collection[str]) -> str | None:
    signature = re.compile(family.signature)
    prefix = next((found[1] for found in map(signature.fullmatch, names) if found), None)
    if prefix is None or (family.needs and prefix + family.needs not in names):
        return None
    other = re.compile(re.escape(prefix) + rf"(?:{family.excludes})")
    return None if family.excludes and any(map(other.fullmatch, names)) else prefix


def _is_marked(marker: Marker, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return marker(shapes) if callable(marker) else marker in shapes


def _first_match(rows: list[_Row], name: str, shape: tuple[int, ...]) -> tuple[re.Match[str], _Row] | None:
    return next(((match, row) for row in rows if row.fits(shape) and (match := row.pattern.fullmatch(name))), None)


def _axes(
    family: Family, row: _Row, words: Mapping[str, str], kind: str, stages: list[str], shape: tuple[int, ...]
) -> TensorAxes:
    """The axes that a row gives a tensor, with the words of its place put in."""
    stage = words.get("s") or ""
    block = int(words["b"]) if "b" in words else None
    before = after = family.stream.replace("{s}", stage)
    if stage and not block:  # the first block of a stage reads the stage in front of it
        before = family.stem if stage in stages[:1] else family.stream.replace("{s}", str(int(stage) - 1))
    last = "".join(stages[-1:])
    read = last if not stage else stage if block is not None else str(int(stage) - 1)  # the stage that is joined
    values = {
        "s": stage,
        "b": block,
        "n": words.get("n"),
        "block": words.get("block", ""),
        "last": last,
        "in": before,
        "out": after,
        "before": f"{JOINED}{read}:{block}",
        "joined": f"{JOINED}{read}:",
    }
    dims = tuple(tuple(word.format(**values) for word in dim) for dim in row.dims) if shape else ()
    role = row.role.replace("{n}", words.get("n") or "")
    return TensorAxes((f"{role}:{words.get('leaf') or ''}", stage, block), dims, kind)
