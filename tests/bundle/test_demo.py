# SPDX-License-Identifier: Apache-2.0
"""What the README promises of its first command, with two thirds of its epochs."""

from __future__ import annotations

import json
import shutil

import pytest

from dual_skd.errors import input_error_behind


def test_the_student_learns_the_demo_data_as_the_readme_says(tmp_path, run):
    output = tmp_path / "output"
    run("train.json", output_dir=str(output), epochs=8)
    run("evaluate.json", output_dir=str(output))
    run("evaluate.json", output_dir=str(output), dataset_dir=str(output / "demo" / "second_hospital"))
    metrics = json.loads((output / "metrics.json").read_text())
    here, elsewhere = metrics["test"]["student"], metrics["second_hospital"]["student"]
    assert 0.90 < here["macro_auc"] < 0.99  # the faint findings are missed
    assert elsewhere["macro_auc"] < here["macro_auc"] and elsewhere["nll"] > here["nll"]
    patients = shutil.copytree(output / "demo" / "images", tmp_path / "patients")
    with pytest.raises(Exception) as caught:  # this folder is the default of inference, too
        run("inference.json", output_dir=str(output), dataset_dir=str(patients))
    assert "knows nothing of" in str(input_error_behind(caught.value))
    assert not (output / "predictions.csv").exists()
