# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dual_skd
from dual_skd.cli.dispatch import COMMANDS

HEAVY = ("torch", "monai", "pandas", "timm", "ignite", "matplotlib")
PACKAGES = [f"dual_skd{room}" for room in ("", ".data", ".evaluation", ".metrics", ".networks", ".selection")]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there_under_its_own_name(package):
    module = import_module(package)
    for name in module.__all__:
        found = getattr(module, name)
        assert isinstance(found, str | tuple | dict) or found.__name__ == name
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


def imported(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of the packages a process of its own has imported when it has run the code."""
    code = f"""import sys
try:
    {code}
except SystemExit as ended:
    assert not ended.code
print(*[name for name in {names!r} if name in sys.modules])"""
    env = os.environ | {"PYTHONPATH": str(Path(dual_skd.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def test_selection_and_the_command_line_do_not_import_monai():
    code = "import dual_skd, dual_skd.cli.select, dual_skd.cli.dispatch; dual_skd.plan_selection"
    assert imported(code, ("monai", "timm", "ignite")) == []


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_there_at_once_as_it_imports_nothing_heavy(command):
    words = [*filter(None, [command]), "-h"]
    assert imported(f"from dual_skd.cli import main; main({words!r})", HEAVY) == []


def test_every_name_that_an_expression_of_a_config_uses_is_found_after_one_import():
    configs = Path(__file__).resolve().parents[1] / "bundle" / "configs"
    named = {
        name
        for path in configs.glob("*.json")
        for expression in re.findall(r'"\$[^"]*"', path.read_text(encoding="utf-8"))
        for name in re.findall(r"(?<!import )(dual_skd(?:\.\w+)+)", expression)
    }
    assert {"dual_skd.runs.random_state.ResumableSampler", "dual_skd.data.paths_of"} <= named
    code = f"import dual_skd; {'; '.join(sorted(named))}"
    assert imported(code, ("monai",)) == ["monai"]
