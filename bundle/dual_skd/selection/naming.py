# SPDX-License-Identifier: Apache-2.0
"""Plans speak timm's tensor names: turns the names of a network into them, and the parts of a plan back."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor, nn

from dual_skd.selection.axes import family_prefix
from dual_skd.selection.libraries import LIBRARIES, Library
from dual_skd.selection.parts import Part
from dual_skd.selection.view import View, heads_of, view_of

NUMBER = re.compile(r"\{(\d*)([sb])([+-]\d+)?\}")  # {s}, {2s+1}, {b}: a number in a name of a library's table


@dataclass(frozen=True)
class Naming:
    """How the names in a plan stand for the names of one network.

    Args:
        own: name in the plan -> the network's own names; several tensors are stacked along their first dimension.
            Names that are absent here are equal.
        flat: names in the plan of tensors whose dimensions of size one are dropped.
    """

    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    flat: frozenset[str] = frozenset()

    def values(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A network's tensors and the stacked ones in the plan, which are made when they are asked for."""
        is_virtual = self.flat or any(len(names) > 1 for names in self.own.values())
        return _Renamed(self, state) if is_virtual else state

    def parts(self, parts: Sequence[Part], names: Iterable[str]) -> list[Part]:
        """The parts of a plan, one per tensor of the network, with its own ``names`` in their order."""
        if not self.own:
            return list(parts)
        found = {}
        for part in parts:
            own = self.own[part.name]
            for place, name in enumerate(own):
                found[name] = replace(part, name=name, piece=(place, len(own)) if len(own) > 1 else None)
        return [found[name] for name in names]

    def sourced(self, parts: Sequence[Part]) -> list[Part]:
        """The same parts with the large network's own names as sources, apart from stacked and flat tensors."""
        own = self._own
        return [
            replace(part, source=part.source and own(part.source), add_first=part.add_first and own(part.add_first))
            for part in parts
        ]

    def _own(self, name: str) -> str:
        own = self.own.get(name, (name,))
        return name if len(own) > 1 or name in self.flat else own[0]

    def view(self, own: View, named: View) -> View:
        """The network with its own names, and those in the plan of stacked and flat tensors."""
        virtual = {name: named.shapes[name] for name, names in self.own.items() if len(names) > 1 or name in self.flat}
        return replace(own, shapes=own.shapes | virtual, state=self.values(own.state)) if virtual else own

    def source(self, part: Part) -> str | None:
        """The network's own name, or names, of the tensor that a part is taken from."""
        if part.source is None:
            return None
        own = self.pieces(part.source)
        return own[part.piece[0]] if part.piece and self.is_piece(part) else " + ".join(own)

    def is_piece(self, part: Part) -> bool:
        """Whether a part is one of several tensors in both networks."""
        return part.piece is not None and part.piece[1] == len(self.pieces(part.source or ""))

    def pieces(self, source: str) -> tuple[str, ...]:
        """The network's own tensors that a source is made of."""
        is_virtual = len(self.own.get(source, ())) > 1 or source in self.flat
        return self.own[source] if is_virtual else (source,)

    def spread(self, source: str, value: Tensor, state: Mapping[str, Tensor]) -> None:
        """Writes a source's value into the network's own tensors."""
        own = self.pieces(source)
        if len(own) == 1:
            state[own[0]].copy_(value.reshape(state[own[0]].shape))
            return
        for name, piece in zip(own, value.split([len(value) // len(own)] * len(own)), strict=True):
            state[name].copy_(piece.reshape(state[name].shape))


class _Renamed(Mapping[str, Tensor]):
    def __init__(self, naming: Naming, state: Mapping[str, Tensor]) -> None:
        self._naming, self._state = naming, state

    def __getitem__(self, name: str) -> Tensor:
        pieces = [self._state[own] for own in self._naming.pieces(name)]
        value = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return value.flatten() if name in self._naming.flat else value

    def __contains__(self, name: object) -> bool:
        return all(own in self._state for own in self._naming.pieces(str(name)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


Named = tuple[tuple[View, View], tuple[Naming, Naming]]  # of the large and of the small network


def common_names(large: View, small: View) -> Named:
    """Both networks with names that correspond, and their namings.

    Networks of known libraries or families get timm's names; see :func:`meet` for others.
    """
    first, second = _timm_names(large), _timm_names(small)
    if first is None or second is None:
        return meet(large, small)
    return (_renamed(large, first), _renamed(small, second)), (first, second)


def in_names_of(network: View, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state dict by a network's own names, where both networks' names are known.

    Args:
        network: of the family that the tensors are of, in any library.
        state: names of another library, or below a prefix, or the network's own.

    Returns:
        Every tensor, stacked or split as the network has it. Those without a name in the network keep theirs.
    """
    _, (theirs, ours) = common_names(view_of(state), network)
    found, used = {}, set[str]()
    for name, own in (ours.own or {name: (name,) for name in network.shapes}).items():
        pieces = theirs.own.get(name, (name,))
        if not all(piece in state for piece in pieces):
            continue
        used.update(pieces)
        tensors: Sequence[Tensor] = [state[piece] for piece in pieces]
        if len(tensors) != len(own):
            tensors = torch.cat(list(tensors)).chunk(len(own))
        for key, tensor in zip(own, tensors, strict=True):
            is_flat = name in theirs.flat | ours.flat and tensor.numel() == math.prod(network.shapes[key])
            found[key] = tensor.reshape(network.shapes[key]) if is_flat else tensor
    return {name: value for name, value in state.items() if name not in used} | found


def meet(large: View, small: View) -> Named:
    """Strips the prefixes, ``module.``, ``backbone.``, ..., with which most names are equal; else the shortest."""
    best = max(
        ((one, other) for one in _prefixes(large) for other in _prefixes(small)),
        key=lambda pair: (
            len(_stripped(pair[0], large) & _stripped(pair[1], small)),
            -len(pair[0]) - len(pair[1]),
        ),
    )
    namings = _without(best[0], large), _without(best[1], small)
    return (_renamed(large, namings[0]), _renamed(small, namings[1])), namings


def _timm_names(view: View) -> Naming | None:
    """The naming of a network of a known library or family; None for others."""
    for library in LIBRARIES:
        signature = re.compile(library.signature)
        if found := next(filter(None, map(signature.fullmatch, view.shapes)), None):
            return _by_library(library, view, found[1])
    prefix = family_prefix(view.shapes)
    return None if prefix is None else _without(prefix, view)


def _without(prefix: str, view: View) -> Naming:
    """The naming that strips a prefix; the other names stay."""
    if not prefix:
        return Naming()
    return Naming({name.removeprefix(prefix): (name,) for name in view.shapes})


def _stripped(prefix: str, view: View) -> set[str]:
    return {name.removeprefix(prefix) for name in view.shapes}


def _prefixes(view: View) -> list[str]:
    """The prefixes that all names but the classifier's have, ``""`` first."""
    names = [name for name in view.shapes if name not in view.classifier]
    parts = names[0].split(".")[:-1] if names else []
    prefixes = ["".join(f"{part}." for part in parts[:end]) for end in range(len(parts) + 1)]
    return [prefix for prefix in prefixes if all(name.startswith(prefix) for name in names)]


def _renamed(view: View, naming: Naming) -> View:
    """The view of a network with the names of the plan, without its tensors."""
    if not naming.own:
        return view
    of = {own: name for name, names in naming.own.items() for own in names}
    shapes = {}
    for name, names in naming.own.items():
        shape = view.shapes[names[0]]
        shapes[name] = (sum(view.shapes[own][0] for own in names), *shape[1:]) if len(names) > 1 else shape
        if name in naming.flat:
            shapes[name] = (max(shape),)
    heads = {**heads_of(shapes), **view.heads}
    heads |= {of[own]: count for own in view.shapes if (count := view.head_count(own, None)) is not None}
    return replace(
        view, state={}, shapes=shapes, heads=heads, skips=_moved(view.skips, of), module=_inside(view, naming),
        buffers=frozenset(of[name] for name in view.buffers if name in of),
        classifier=frozenset(of[name] for name in view.classifier if name in of),
    )  # fmt: skip


def _moved(skips: Mapping[str, bool], of: Mapping[str, str]) -> dict[str, bool]:
    """What is known of blocks, by their paths in the plan."""
    moved = {}
    for path, skip in skips.items():
        name = next((name for own, name in of.items() if own.startswith(f"{path}.")), None)
        found = re.match(r"(blocks\.\d+\.\d+)\.", name or "")
        if found:
            moved[found[1]] = skip
    return moved


def _inside(view: View, naming: Naming) -> nn.Module | None:
    """The module inside wrappers that has the names of the plan; None where a library's table gave them."""
    name, own = next(iter(naming.own.items()))
    prefix = own[0].removesuffix(name).rstrip(".")
    if view.module is None or naming.own != _without(f"{prefix}.", view).own:
        return None
    return view.module.get_submodule(prefix)


def _by_library(library: Library, view: View, prefix: str) -> Naming:
    places = _matched(library, [name.removeprefix(prefix) for name in view.shapes if name.startswith(prefix)])
    found: dict[str, dict[int, str]] = defaultdict(dict)  # timm's name -> piece -> own name
    for name, place in places.items():
        found[place.name][place.piece] = prefix + name
    whole = {place.name for place in places.values() if len(found[place.name]) == place.count}
    own = {name: tuple(own for _, own in sorted(found[name].items())) for name in found if name in whole}
    known = {name for names in own.values() for name in names}
    own |= {name.removeprefix(prefix): (name,) for name in view.shapes if name not in known}
    return Naming(own, frozenset(place.name for place in places.values() if place.is_flat and place.name in own))


@dataclass(frozen=True)
class _Place:
    """What the table says of one tensor: timm's name, and its piece of so many."""

    name: str
    piece: int = 0
    count: int = 1
    is_flat: bool = False


def _matched(library: Library, names: Sequence[str]) -> dict[str, _Place]:
    """Own name -> its place, for the names that the library's table has."""
    blocks = _blocks(library, names)
    outer = _compiled(tuple(library.tensors.items()))
    matched = {}
    for name in names:
        block = next((path for path in _parents(name) if path in blocks), None)
        if block is None:
            hit = _row(outer, name, {}, "")
        else:
            rows, numbers = blocks[block]
            hit = _row(rows, name.removeprefix(f"{block}."), numbers, f"{library.timm_block}.")
        if hit:
            matched[name] = hit
    return matched


def _blocks(library: Library, names: Sequence[str]) -> dict[str, tuple[list[_CompiledRow], dict[str, int]]]:
    """Path of each block -> its rows, and timm's numbers of its stage and itself."""
    pattern = re.compile(rf"(?P<block>{_pattern(library.block)})\.(?P<rest>.+)")
    inside: dict[str, set[str]] = defaultdict(set)
    numbers = {}
    for found in filter(None, map(pattern.fullmatch, names)):
        if (place := _numbers(library.block, found)) is not None:
            inside[found["block"]].add(found["rest"])
            numbers[found["block"]] = place
    kinds = {
        block: next(rows for marker, rows in library.blocks.items() if marker in rests)
        for block, rests in inside.items()
        if any(marker in rests for marker in library.blocks)
    }
    first: dict[int | None, int] = {}  # number of each stage's first block: some libraries count through the stages
    for block in kinds:
        stage, number = numbers[block].get("s"), numbers[block]["b"]
        first[stage] = min(first.get(stage, number), number)
    return {
        block: (
            _compiled(tuple(rows.items())),
            numbers[block] | {"b": numbers[block]["b"] - first[numbers[block].get("s")]},
        )
        for block, rows in kinds.items()
    }


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))


_CompiledRow = tuple[list[tuple[re.Pattern[str], str]], str]


@cache
def _compiled(rows: tuple[tuple[str, str], ...]) -> list[_CompiledRow]:
    """Each alternative of each row: the patterns of its pieces with their texts, and timm's name."""
    found = []
    for names, timm in rows:
        for alternative in names.split("|"):
            pieces = [piece.strip() for piece in alternative.split("+ ")]
            found.append(([(re.compile(_pattern(piece)), piece) for piece in pieces], timm))
    return found


def _row(rows: Sequence[_CompiledRow], name: str, numbers: Mapping[str, int], path: str) -> _Place | None:
    """The place that the first fitting row gives a name inside a block, or outside with an empty ``path``."""
    for pieces, timm in rows:
        for piece, (pattern, text) in enumerate(pieces):
            found = pattern.fullmatch(name)
            own = _numbers(text, found) if found else None
            if found is None or own is None:
                continue
            words = {**numbers, **own, **found.groupdict()}
            whole, _, note = f"{path}{timm}".partition(" ")
            for word, value in {**numbers, **own}.items():
                whole = whole.replace(f"{{{word}}}", str(value))
            return _Place(whole.replace(".*", f".{words.get('leaf', '')}"), piece, len(pieces), note == "flat")
    return None


def _pattern(name: str) -> str:
    """A name of a table as a regular expression."""
    parts = []
    end = 0
    for found in NUMBER.finditer(name):
        parts += [re.escape(name[end : found.start()]), rf"(?P<{found[2]}>\d+)"]
        end = found.end()
    text = "".join(parts) + re.escape(name[end:])
    return text.replace(r"\.\*", r"\.(?P<leaf>\w+)")


def _numbers(name: str, found: re.Match[str]) -> dict[str, int] | None:
    """Stage and block that a match of :func:`_pattern` means; None where a number doesn't fit, 4 for {2s+1}."""
    numbers = {}
    for factor, word, summand in NUMBER.findall(name):
        number, rest = divmod(int(found[word]) - int(summand or 0), int(factor or 1))
        if rest or number < 0:
            return None
        numbers[word] = number
    return numbers
