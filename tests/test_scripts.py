# SPDX-License-Identifier: Apache-2.0
"""Every program of scripts/ can be imported, and its help names the command that starts it."""

from __future__ import annotations

from importlib import import_module

import pytest

from scripts import ROOT

PROGRAMS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "scripts").rglob("*.py")
    if "ArgumentParser(" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_explains_itself(name, capsys):
    if name == "scripts.release.run_notebooks":
        pytest.importorskip("nbformat", reason="runs notebooks, with the packages of the extra docs")
    main = import_module(name).main
    with pytest.raises(SystemExit, match="0"):
        main(["-h"])
    assert f"python -m {name}" in capsys.readouterr().out
