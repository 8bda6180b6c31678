# SPDX-License-Identifier: Apache-2.0
"""Examples that users copy have to run, and options they look up have to exist."""

from __future__ import annotations

import doctest
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dual_skd

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "bundle" / "docs").glob("*.md"))]
MODULES = [
    "networks.build",
    "networks.shapes",
    "evaluation.students",
    "training.schedule",
    "training.losses",
    "training.ema",
    "selection.plan",
    "data.corruptions",
    "data.reading.grey",
    "data.reading.locators",
    "metrics.intervals",
    "metrics.delong",
    "metrics.mcnemar",
    "metrics.operating_point",
    "metrics.paired",
    "metrics.per_patient",
    "metrics.subgroup_differences",
    "metrics.recalibration",
    "metrics.risks",
    "serving.predictor",
    "utils.wording",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_examples_of_a_page_run(page, tmp_path, monkeypatch):
    run_examples(page, tmp_path, monkeypatch)


def run_examples(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs the examples of a page; one that begins with the name of a file is the module that later ones import."""
    monkeypatch.syspath_prepend(folder)
    examples = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for example in examples:
        if file := re.match(r"# (\w+)\.py\n", example):
            (folder / f"{file[1]}.py").write_text(example, encoding="utf-8")
            monkeypatch.delitem(sys.modules, file[1], raising=False)
        exec(compile(example, str(page), "exec"), {})
    return examples


def test_the_loop_around_a_network_of_ones_own_is_plain_pytorch_and_selects_consistent_weights(
    tmp_path, monkeypatch, capsys
):
    *_, loop = run_examples(ROOT / "docs" / "howto" / "own_network.md", tmp_path, monkeypatch)
    assert len([line for line in loop.splitlines() if line]) <= 25 and "monai" not in loop
    assert {"plan_selection(", ".check()", "SelfDistillationLoss("} <= set(re.findall(r"\w+\(|\.check\(\)", loop))
    assert capsys.readouterr().out.splitlines()[-2:] == ["consistent", "consistent"]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_docstrings_are_true(name):
    assert doctest.testmod(import_module(f"dual_skd.{name}")).failed == 0


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and MkDocs give the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    words = [re.sub(r"[^\w -]", "", heading.lower()) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {word.strip().replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(path), f"{page.name} links to {target}#{anchor}"


def test_every_public_name_is_in_the_reference_of_python():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for package in (dual_skd, dual_skd.evaluation, dual_skd.metrics):
        for name in {*package.__all__} - {"__version__"}:
            assert f"::: {getattr(package, name).__module__}.{name}\n" in text, name
