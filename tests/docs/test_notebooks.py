# SPDX-License-Identifier: Apache-2.0
"""The tutorials are stored as this version of the package runs them; .ci/run runs them again."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from pathlib import Path

import pytest

import dual_skd
from dual_skd.cli.dispatch import parser_of

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
OF_THIS_MACHINE = re.compile(r"(?<![\w.])/(?:tmp|home|root|work|Users|var|private|mnt|usr)/|[A-Z]:\\\\|file://")

of_each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def text(output: dict) -> str:
    """What is read in an output: its text and HTML, without pictures."""
    shown = [output.get("text", ""), *(value for kind, value in output.get("data", {}).items() if "image" not in kind)]
    return re.sub(r'"data:image/[^"]*"', "", "".join("".join(part) for part in shown))


def commands(path: Path) -> list[list[str]]:
    """The words of every ``dual-skd`` command in code, in code blocks and within sentences."""
    found = [
        line[1:] for cell in cells(path, "code") for line in "".join(cell["source"]).splitlines() if line[:1] == "!"
    ]
    for cell in cells(path, "markdown"):
        source = "".join(cell["source"])
        found += re.findall(r"^dual-skd .*$", source, re.MULTILINE) + re.findall(r"`(dual-skd [^`]*)`", source)
    return [shlex.split(line.replace("\n", " ")) for line in found]


def test_there_are_tutorials_and_they_have_commands():
    assert len(NOTEBOOKS) == 4 and len(commands(NOTEBOOKS[1])) > 5


@of_each
def test_every_cell_was_run_in_order_and_none_failed(path):
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or "Warning:" in text(output)]


@of_each
def test_what_is_stored_is_of_this_code_and_this_version(path):
    stored = json.loads(path.read_text(encoding="utf-8"))["metadata"]["dual_skd"]
    code = "\0".join("".join(cell["source"]) for cell in cells(path, "code"))
    again = f"run `python -m scripts.release.run_notebooks --write {path.name[:2]}`"
    assert stored["code"] == hashlib.sha256(code.encode()).hexdigest(), f"code was changed and not run; {again}"
    assert stored["version"] == dual_skd.__version__, again
    assert text(cells(path, "code")[0]["outputs"][0]) == f"dual-skd {dual_skd.__version__}\n"


@of_each
def test_nothing_of_the_machine_is_stored(path):
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            assert not OF_THIS_MACHINE.search(text(output)), text(output)[:2000]
            assert "\r" not in text(output) and "\x1b" not in text(output)  # bars, colours


@of_each
def test_its_commands_are_ones_that_the_parser_takes(path):
    for _, name, *rest in commands(path):
        assert parser_of(name).parse(rest)


@of_each
def test_its_links_lead_somewhere(path):
    for cell in cells(path, "markdown"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", "".join(cell["source"])):
            assert (path.parent / target).exists(), target
