# SPDX-License-Identifier: Apache-2.0
"""Measures the package's structure: files, lines per room, sizes of functions, imports that climb.

    python -m scripts.measure.structure [PACKAGE]

A line is any line of a ``.py`` file. A function's lines go from ``def`` to its last statement. An import climbs where
a room imports one that stands above it in pyproject.toml, wherever in the file the import stands.
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts import PROJECT, ROOT

LARGEST_FILE, LARGEST_FUNCTION = 400, 60  # lines


def rooms() -> list[str]:
    """The rooms, from the top, as pyproject.toml gives them to import-linter."""
    text = PROJECT.read_text(encoding="utf-8")  # tomllib comes with Python 3.11
    return re.findall(r'"(\w+)"', re.search(r"^layers = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)[1])


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Name and lines of every function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def rooms_imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Rooms of the package that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith(f"{package}."))


def over(sizes: dict[str, int], limit: int) -> str:
    """Names and sizes above a limit, the largest first."""
    return ", ".join(f"{name} {size}" for name, size in sorted(sizes.items(), key=lambda one: -one[1]) if size > limit)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", nargs="?", type=Path, default=ROOT / "bundle" / "dual_skd")
    package = parser.parse_args(arguments).package
    order = rooms()
    lines, sizes, climbs, files = Counter(), {}, [], {}
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        place = path.relative_to(package)
        room = place.parts[0] if len(place.parts) > 1 else "loose"
        tree = ast.parse(text)
        files[str(place)] = len(text.splitlines())
        lines[room] += files[str(place)]
        sizes |= {f"{place}:{name}": size for name, size in functions(tree)}
        if room in order:
            climbs += [
                f"{place} -> {other}"
                for other in rooms_imported(tree, package.name)
                if other in order and order.index(other) < order.index(room)
            ]
    print(f"{len(files)} files, {sum(lines.values())} lines")
    print("lines per room: " + ", ".join(f"{room} {count}" for room, count in lines.most_common()))
    print(f"function: median {statistics.median(sizes.values())}, largest {max(sizes.values())} lines")
    print(f"files over {LARGEST_FILE} lines: {sorted(name for name, size in files.items() if size > LARGEST_FILE)}")
    print(
        f"functions over {LARGEST_FUNCTION}: {sorted(name for name, size in sizes.items() if size > LARGEST_FUNCTION)}"
    )
    print(f"imports that climb: {len(climbs)} {climbs[:5]}")


if __name__ == "__main__":
    main()
