# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from scripts.release import example_report as script


def test_a_report_that_names_its_computer_is_no_example(tmp_path):
    report = tmp_path / "run" / "report" / "report.html"
    with pytest.raises(SystemExit, match="dual-skd evaluate"):
        script.copy_report(tmp_path / "run", tmp_path / "out")
    report.parent.mkdir(parents=True)
    report.write_text("<p>result</p>", encoding="utf-8")
    assert script.copy_report(tmp_path / "run", tmp_path / "out").read_text(encoding="utf-8") == "<p>result</p>"
    report.write_text(f"<p>{tmp_path}/a.png</p>", encoding="utf-8")
    with pytest.raises(SystemExit, match="without --show-names"):
        script.copy_report(tmp_path / "run", tmp_path / "out")
