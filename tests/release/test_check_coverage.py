# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

from scripts.release.check_coverage import CRITICAL, main, report


def measured(lines: int = 95, **branches: int) -> dict:
    names = [name.replace("*", "plan") for name in CRITICAL]
    files = {
        f"bundle/dual_skd/{name}.py": {"summary": {"covered_branches": branches.get(name, 10), "num_branches": 10}}
        for name in [*names, "networks", "data/schedule"]
    }
    return {"totals": {"covered_lines": lines, "num_statements": 100}, "files": files}


def test_what_is_reached_is_said_of_the_package_and_of_each_critical_module(tmp_path, capsys):
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps(measured(networks=0)))
    assert main([str(path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == " 95.0 % of the lines of the package" and len(said) == 1 + len(CRITICAL)
    path.write_text(json.dumps(measured(lines=89, **{"training/trainer": 8})))
    assert main([str(path)]) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "below 90 %: lines of the package",
        "below 90 %: branches of training/trainer",
    ]


def test_a_critical_module_that_was_not_measured_is_named():
    content = measured()
    content["files"].pop("bundle/dual_skd/training/losses.py")
    assert report(content)[1] == ["training/losses: no such module was measured"]
