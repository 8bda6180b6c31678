# SPDX-License-Identifier: Apache-2.0
"""Examples that users copy have to run, and options they look up have to exist."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "bundle" / "docs").glob("*.md"))]
MODULES = [
    "networks",
    "schedule",
    "label_free",
    "losses",
    "momentum",
    "selection.plan",
    "data.corruptions",
    "data.reading.grey",
    "data.reading.locators",
    "evaluation.bootstrap",
    "evaluation.delong",
    "evaluation.mcnemar",
    "evaluation.operating_point",
    "evaluation.paired",
    "prediction.predictor",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_examples_of_a_page_run(page):
    for example in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(example, str(page), "exec"), {})


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_docstrings_are_true(name):
    assert doctest.testmod(import_module(f"dual_skd.{name}")).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
