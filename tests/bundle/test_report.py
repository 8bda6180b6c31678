# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from dual_skd.data import write_demo


@pytest.fixture
def finished(trained, tmp_path) -> Path:
    """A copy of the finished run, to write into."""
    return shutil.copytree(trained, tmp_path / "run")


def test_an_evaluation_ends_with_its_report(finished, run):
    run("evaluate.json", output_dir=str(finished), report=True)
    page = (finished / "report" / "report.html").read_text(encoding="utf-8")
    assert "Measured: 9 test images of " in page and "Surest, and right" in page
    assert page.count("data:image/png;base64,") >= 6  # the images and their maps
    analysis = json.loads((finished / "metrics.json").read_text())["test"]["analysis"]
    assert analysis["patients"]["known"] > 0 and analysis["calibration"]["images"] == 9
    assert "3 validation images of it" in analysis["operating_points"][0]["reason"]  # of 9: too few for a threshold
    for record in json.loads((finished / "datalist.json").read_text())["test"]:
        assert Path(record["image"]).name not in page and record["patient"] not in page


def test_another_data_set_brings_its_patients_and_sites(finished, run, tmp_path):
    elsewhere = write_demo(tmp_path / "elsewhere", seed=7, counts={"test": 8})
    with (elsewhere / "datalist.csv").open() as file:
        listed = list(csv.DictReader(file))
    with (elsewhere / "all.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "patient", "site"])
        writer.writerows([row["image"], row["label"], f"new{place // 2}", "north" if place < 4 else "south"]
                         for place, row in enumerate(listed))  # fmt: skip
    run("evaluate.json", output_dir=str(finished), dataset_dir=str(elsewhere / "all.csv"), patient_pattern="",
        report_as="elsewhere", report=True)  # fmt: skip
    analysis = json.loads((finished / "metrics.json").read_text())["elsewhere"]["analysis"]
    assert analysis["patients"]["known"] == (len(listed) + 1) // 2 and analysis["data"]["external"]
    assert [group["name"] for group in analysis["subgroups"]["columns"]["site"]] == ["north", "south"]
    assert (finished / "report_elsewhere" / "plots" / "subgroups_balanced_accuracy.svg").is_file()
    run("evaluate.json", output_dir=str(finished), report_as="elsewhere", report=True)  # the run's own images now
    assert json.loads((finished / "datalist_elsewhere.json").read_text()) == {"own": "test"}


def test_a_report_may_be_switched_off(finished, run):
    run("evaluate.json", output_dir=str(finished), report=False)
    assert not (finished / "report").exists()
    assert "analysis" not in json.loads((finished / "metrics.json").read_text())["test"]
