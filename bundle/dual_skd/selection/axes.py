# SPDX-License-Identifier: Apache-2.0
"""Reads a network's tensors through the table of its family, see :mod:`.families`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from dual_skd.selection.families import CLASSIFIERS, FAMILIES, Family

Dims = tuple[tuple[str, ...], ...]  # per dimension the axes it is made of, without the kernel
Key = tuple[str, str, int | None]  # role, stage, block


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
        prefix: part of every name in front of the family's names.
        tensors: name -> axes, for each tensor the table knows.
        unknown: names that it doesn't know, without the classifier.
        depths: stage -> number of blocks (one stage ``""`` where the family isn't staged).
    """

    family: Family
    prefix: str
    tensors: dict[str, TensorAxes]
    unknown: list[str]
    depths: dict[str, int]

    @cached_property
    def by_key(self) -> dict[Key, str]:
        """Name of each tensor by its key."""
        return {axes.key: name for name, axes in self.tensors.items()}


def is_classifier(name: str) -> bool:
    """True for the tensors of a classifier head: they belong to the old classes and are never selected.

    A norm and a hidden layer in front of it (timm's ``head.pre_logits``) are features like any other.
    """
    parts = name.split(".")
    return parts[0] in CLASSIFIERS and parts[1:2] not in (["norm"], ["pre_logits"])


def find_family(names: Iterable[str]) -> Family | None:
    """The family whose signature occurs among the tensor names, or None."""
    return next((family for family in FAMILIES.values() if _prefix(family, names) is not None), None)


def describe(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> NetworkAxes:
    """Reads a network's tensors through a family's table.

    Args:
        family: the family.
        shapes: tensor name -> shape.
    """
    prefix = _prefix(family, shapes) or ""
    pattern = re.compile(rf"(?P<block>{_regex(family.block)})\.(?P<rest>.+)")
    places = {name: pattern.fullmatch(name[len(prefix) :]) for name in shapes if name.startswith(prefix)}
    names_in: dict[str, set[str]] = defaultdict(set)
    depths: dict[str, int] = defaultdict(int)
    for found in filter(None, places.values()):
        names_in[found["block"]].add(found["rest"])
        stage = found["s"] if family.staged else ""
        depths[stage] = max(depths[stage], int(found["b"]) + 1)
    kinds = {
        block: next((kind for kind, marker in family.blocks if marker in names), "")
        for block, names in names_in.items()
    }
    rows = {kind: _compiled(table) for (kind, _), table in family.blocks.items()}
    outer_rows = _compiled(family.tensors)
    stages = sorted(depths, key=int) if family.staged else []

    tensors: dict[str, TensorAxes] = {}
    unknown: list[str] = []
    for name, shape in shapes.items():
        place, kind, row_found = places.get(name), "", None
        if place:
            kind = kinds[place["block"]]
            row_found = _first_match(rows.get(kind, []), place["rest"], shape)
        elif name in places:
            row_found = _first_match(outer_rows, name[len(prefix) :], shape)
        if row_found:
            match, row = row_found
            words = match.groupdict() | (place.groupdict() if place else {})
            tensors[name] = _axes(family, row, words, kind, stages, shape)
        elif not is_classifier(name.removeprefix(prefix)):
            unknown.append(name)
    return NetworkAxes(family, prefix, tensors, unknown, dict(depths))


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
    pattern = re.escape(name).replace(r"\{s\}", r"(?P<s>\d+)").replace(r"\{b\}", r"(?P<b>\d+)")
    return pattern.replace(r"\.\*", r"\.(?P<leaf>\w+)")


def _prefix(family: Family, names: Iterable[str]) -> str | None:
    signature = re.compile(family.signature)
    return next((found[1] for found in map(signature.fullmatch, names) if found), None)


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
    values = {"s": stage, "b": block, "block": words.get("block", ""), "last": last, "in": before, "out": after}
    dims = tuple(tuple(word.format(**values) for word in dim) for dim in row.dims) if shape else ()
    return TensorAxes((f"{row.role}:{words.get('leaf') or ''}", stage, block), dims, kind)
