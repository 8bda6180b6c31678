# SPDX-License-Identifier: Apache-2.0
"""Reads the JSON and YAML configs of a bundle as plain data, and names every value in them by its path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from dual_skd.security.expressions import SEPARATOR

SUFFIXES = (".json", ".yaml", ".yml")  # of a name, which may be nothing else
MOST_BYTES = {".json": 2**25, ".yaml": 2**18, ".yml": 2**18}  # a data list of a large data set is among them
MOST_VALUES = 500_000
MOST_LEVELS = 100
MOST_OF_A_PATH = 2_000  # characters
MOST_OF_A_NUMBER = 1_000
# a part of an id that reaches into another entry, as MONAI and this audit read it alike
PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|0|[1-9][0-9]*")
_NEITHER_READS_ALIKE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Value:
    """A value of a config.

    Args:
        file: relative to the bundle.
        path: keys from the root on; the separators of MONAI in a key split it.
        value: a plain value, or a dictionary or list, whose parts are values of their own.
        overrides: its key reaches into another entry, by a separator or a ``+``.
        merges: its key begins with a ``+``.
    """

    file: str
    path: tuple[str, ...]
    value: Any
    overrides: bool = False
    merges: bool = False

    @property
    def key(self) -> str:
        return self.path[-1] if self.path else ""

    @property
    def place(self) -> str:
        return SEPARATOR.join(self.path)


def starred(path: Iterable[str]) -> tuple[str, ...]:
    """A path with ``*`` in place of positions in lists, which another file may move."""
    return tuple("*" if part.isdecimal() else part for part in path)


def suffix_of(name: str) -> str:
    """The suffix by which MONAI takes a file for a config, "" for other files."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")


def read_config(text: bytes, suffix: str) -> tuple[Any, str]:
    """Reads a config as plain values.

    Returns:
        (content, "") or (None, what is wrong). A key that is written twice is wrong: readers differ in which they take.
    """
    if len(text) > MOST_BYTES[suffix]:
        return None, f"holds {len(text) / 2**20:.0f} MiB, more than a config can have"
    try:
        letters = text.decode("utf-8")
        if _NEITHER_READS_ALIKE.search(letters):
            raise ValueError("characters that readers take differently")
        return (_json if suffix == ".json" else _yaml)(letters), ""
    except Exception as error:  # the libraries have many, such as OverflowError of a number
        return None, f"can't be read ({' '.join(str(error).split())[:200] or type(error).__name__})"


def walk(file: str, content: Any) -> Iterator[Value]:
    """Every value of a config, depth first.

    Raises:
        ValueError: more values, or deeper ones, than a config of people has.
    """
    count = 0
    open_ends = [Value(file, (), content)]
    while open_ends:
        one = open_ends.pop()
        count += 1
        if count > MOST_VALUES or len(one.path) > MOST_LEVELS or sum(map(len, one.path)) > MOST_OF_A_PATH:
            raise ValueError("has more values, deeper ones, or longer keys than can be looked at")
        yield one
        if isinstance(one.value, dict | list):
            inner = one.value.items() if isinstance(one.value, dict) else enumerate(one.value)
            open_ends += reversed([_inner(one, str(key), value) for key, value in inner])


def _inner(outer: Value, key: str, value: Any) -> Value:
    merges = key.startswith("+") and not outer.path  # MONAI merges entries of the root alone
    parts = re.split(r"#|::", key[merges:])
    overrides = outer.overrides or merges or len(parts) > 1
    return Value(outer.file, (*outer.path, *parts), value, overrides, merges)


def _json(text: str) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_repeated([key for key, _ in items])
        return dict(items)

    return json.loads(text, object_pairs_hook=pairs)


def _yaml(text: str) -> Any:
    loader = yaml.SafeLoader(text)  # as MONAI does; the one in C reads some texts differently
    try:
        root = loader.get_single_node()
        seen, open_ends = set(), [root] if root is not None else []
        while open_ends:
            node = open_ends.pop()
            if id(node) in seen:
                raise ValueError("a part that stands in two places, by an alias")
            seen.add(id(node))
            if isinstance(node, yaml.MappingNode):
                _refuse_repeated([str(key.value) for key, _ in node.value])
                open_ends += [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                open_ends += node.value
            elif not node.tag.endswith(":str") and len(node.value) > MOST_OF_A_NUMBER:
                raise ValueError(f"a number of {len(node.value)} characters")
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _refuse_repeated(keys: list[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"the key {key!r} twice in one place")
        seen.add(key)
