# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from scripts import ROOT
from scripts.release import monailabel_env

OF_LABEL = ["monai[itk,mlflow]>=1.4.0", "fastapi>=0.110.2", "expiring_dict>=1.1.0", "pydicom-seg>=0.4.1",
            'sam2>=0.4.1; python_version >= "3.10"', "dicomweb-client[gcp]>=0.59.1"]  # fmt: skip
PROJECT = 'x = 1\ndependencies = [\n    "torch>=2.10",\n    "pydicom>=3.0.2",\n]\n[y]\ntest = [\n    "pytest",\n]\n'


def test_the_environment_takes_both_lists_less_what_does_not_fit():
    assert monailabel_env.requirements(OF_LABEL, PROJECT) == [
        "torch>=2.10", "pydicom>=3.0.2", "itk", "scikit-image", "jsonschema<4",
        "fastapi>=0.110.2", "expiring_dict>=1.1.0", "dicomweb-client[gcp]>=0.59.1",
    ]  # fmt: skip


def test_this_project_s_floors_are_among_them():
    found = {
        monailabel_env.name_of(line): line
        for line in monailabel_env.requirements([], (ROOT / "pyproject.toml").read_text())
    }
    assert {"torch", "monai", "timm", "safetensors", "pydicom"} <= set(found)
    assert found["pydicom"] == "pydicom>=3.0.2"
