# SPDX-License-Identifier: Apache-2.0
"""Reads the JSON and YAML configs of a bundle as plain data, and names every string in them by its path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

SUFFIXES = (".json", ".yaml", ".yml")
MAX_BYTES = 64 * 2**20  # a data list of a large data set is among the configs
MAX_VALUES = 3_000_000  # YAML can write one list that stands in itself many times
MAX_DEPTH = 100
SEPARATOR = "::"  # of MONAI's config ids


def read_config(path: Path) -> tuple[Any, str]:
    """Reads a file as plain values.

    Returns:
        (content, "") or (None, what is wrong). A key that is written twice is wrong: readers differ in which they take.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        return None, f"has {size / 2**20:.0f} MiB, more than a config of people"
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict:
        keys = [key for key, _ in items]
        repeated.extend(key for place, key in enumerate(keys) if key in keys[:place])
        return dict(items)

    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            content = json.loads(text, object_pairs_hook=pairs)
        else:
            content = yaml.safe_load(text)
            repeated += _repeated_yaml_keys(yaml.compose(text, Loader=yaml.SafeLoader))
    except (OSError, ValueError, RecursionError, yaml.YAMLError, TypeError) as error:
        return None, f"can't be read ({' '.join(str(error).split())[:200] or type(error).__name__})"
    if repeated:
        return None, f"has the key {repeated[0]!r} twice in one place"
    return content, ""


def walk(content: Any) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """(path, key, value) of every value that isn't a dictionary or list, depth first.

    Raises:
        ValueError: more values, or deeper ones, than a config of people has.
    """
    count = 0
    open_ends: list[tuple[tuple[str, ...], str, Any]] = [((), "", content)]
    while open_ends:
        path, key, value = open_ends.pop()
        count += 1
        if count > MAX_VALUES or len(path) > MAX_DEPTH:
            raise ValueError("has more values, or deeper ones, than can be looked at")
        if isinstance(value, dict):
            inner = [((*path, str(name)), str(name), one) for name, one in value.items()]
            open_ends += reversed(inner)
        elif isinstance(value, list):
            open_ends += reversed([((*path, str(place)), key, one) for place, one in enumerate(value)])
        else:
            yield path, key, value


def _repeated_yaml_keys(root: yaml.Node | None) -> list[str]:
    found: list[str] = []
    seen: set[int] = set()
    open_ends = [] if root is None else [root]
    while open_ends:
        node = open_ends.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [str(key.value) for key, _ in node.value]
            found += [key for place, key in enumerate(keys) if key in keys[:place]]
            open_ends += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            open_ends += node.value
    return found
