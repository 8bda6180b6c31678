# SPDX-License-Identifier: Apache-2.0
"""What the README promises of its first command, with two thirds of its epochs."""

from __future__ import annotations

import json


def test_the_student_learns_the_demo_data_as_the_readme_says(tmp_path, run):
    output = tmp_path / "output"
    run("train.json", output_dir=str(output), epochs=8)
    run("evaluate.json", output_dir=str(output))
    student = json.loads((output / "metrics.json").read_text())["test"]["student"]
    assert student["macro_auc"] > 0.90
