# SPDX-License-Identifier: Apache-2.0
"""docs/troubleshooting.md quotes messages as the package says them, of every module that refuses something."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "bundle" / "dual_skd"
GAP = "…"  # what differs from one message to the next
# tables of messages are headed so; others quote other programs
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
TABLES = re.findall(r"^\| message \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
QUOTED = [quote for table in TABLES for quote in re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)]
WITHIN_PYTHON = """
    data.augment data.cache data.corruptions data.demo data.near_duplicates.finder data.near_duplicates.signatures
    data.reading.grey data.reading.preprocessing evaluation.explanation evaluation.robustness metrics.intervals
    metrics.definitions metrics.mcnemar metrics.net_benefit metrics.paired metrics.reliability_diagram
    metrics.resampling metrics.sample_size metrics.subgroups metrics.validation selection.check selection.copies
    selection.embedding selection.rules selection.view training.ema training.former_arguments training.label_free
    training.losses training.task
""".split()  # of arguments of functions, by whoever calls them; serving.pytorch hands on what the readers say


@cache
def strings_of(path: Path) -> list[str]:
    """The texts of a module, with a gap where an f-string or a log message has a value."""
    return [said for node in ast.walk(ast.parse(path.read_text("utf-8"))) if (said := _text(node))]


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[sdgr]|\{\d?\w*\}", GAP, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else GAP for part in node.values)
    return ""


def says(path: Path, quote: str) -> bool:
    """Whether a text of the module has the parts of a quoted message, in their order, from its beginning."""
    parts = [re.escape(part) for part in re.split(f" ?{GAP} ?", quote)]
    return any(re.match(f"(?s)(Error: )?{'.*?'.join(parts)}", text) for text in strings_of(path))


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("quote", QUOTED)
def test_a_quoted_message_is_one_that_the_package_says(quote):
    assert len(quote.replace(GAP, "")) > 8
    assert any(says(path, quote) for path in MODULES)


def test_every_module_that_refuses_something_is_quoted():
    refusing = {path for path in MODULES if re.search(r"raise \w*(?:Input|Selection)Error\(", path.read_text("utf-8"))}
    name_of = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in refusing}
    silent = {name_of[path] for path in refusing if not any(says(path, quote) for quote in QUOTED)}
    assert silent == set(WITHIN_PYTHON)
