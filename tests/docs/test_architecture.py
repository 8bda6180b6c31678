# SPDX-License-Identifier: Apache-2.0
"""docs/architecture.md names files and rooms as they are; its examples are run with those of the other pages."""

from __future__ import annotations

import ast
import re

import pytest

from scripts import ROOT
from scripts.measure.structure import rooms

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "bundle" / "dual_skd"
PLACES = re.findall(r"^\| .+ \| `([\w/]+\.py)` \| `([\w.]+)` \|$", PAGE, re.MULTILINE)


def names_in(body: list[ast.stmt], before: str = "") -> set[str]:
    """What a module defines: functions, classes with their methods, and assigned names."""
    found = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(before + node.name)
        if isinstance(node, ast.ClassDef):
            found |= names_in(node.body, f"{node.name}.")
        if isinstance(node, ast.Assign):
            found |= {before + target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(before + node.target.id)
    return found


@pytest.mark.parametrize(("file", "name"), PLACES)
def test_what_a_maintainer_looks_for_is_where_the_page_says(file, name):
    assert name in names_in(ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body)


def test_fifteen_questions_and_more_are_answered():
    assert len(PLACES) >= 15


def test_the_drawing_shows_the_rooms_in_their_order():
    drawing = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)[1]
    first_words = re.findall(r"^(\w+)(?:  (\w+))? {2,}", drawing, re.MULTILINE)
    assert [name for pair in first_words for name in pair if name] == [*rooms(), "security"]
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders | {"errors"} == {*rooms(), "security"}


def test_nothing_lies_beside_the_rooms_but_errors_and_entrances():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}


def test_a_worked_example_has_under_thirty_lines():
    examples = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(examples) == 5 and max(example.count("\n") for example in examples) < 30
