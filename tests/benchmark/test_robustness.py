# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from tiny_benchmark import changed

from scripts.benchmark import report
from scripts.benchmark.store import add_rows


@pytest.fixture
def shifted(plan, tmp_path):
    """Results with made-up corruptions: two seeds of the control, three of the method."""
    accuracy = {
        ("single", 0): {"none": 0.8, "noise": 0.6, "blur": 0.4},
        ("single", 1): {"none": 0.9, "noise": 0.5, "blur": 0.4},
        ("dual", 0): {"none": 0.8, "noise": 0.7, "blur": 0.5}, ("dual", 1): {"none": 0.8, "noise": 0.5, "blur": 0.5},
        ("dual", 2): {"none": 1.0, "noise": 0.0, "blur": 0.0},
    }  # fmt: skip
    for (row, seed), values in accuracy.items():
        found = [
            {"data": "phantoms", "fraction": 0.5, "row": row, "seed": seed, "network": "student", "corruption": name,
             "strength": 0 if name == "none" else 3, "accuracy": value, "balanced_accuracy": value, "macro_auc": "",
             "nll": 1 - value, "ece": 0.1}
            for name, value in values.items()
        ]  # fmt: skip
        add_rows(tmp_path, found, "robustness")
    report.main(["--results", str(tmp_path), "--plan", str(plan), "--no_pictures"])
    return tmp_path


def test_the_report_compares_corrupted_images_over_the_seeds_that_both_have(shifted):
    text = (shifted / "tables.md").read_text()
    section = text[text.index("# Corrupted images") : text.index("## Not run")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")]
    named = [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
    single, dual = named
    assert "in 2 ways" in section and single["row"] == "single" and dual["seeds"] == "3"
    assert single["accuracy"] == "0.850 ± 0.071" and single["corrupted"] == "0.475 ± 0.035"
    assert single["drop"] == "0.438 ± 0.088"  # 1 - 0.5 / 0.8 and 1 - 0.45 / 0.9
    assert single["corrupted minus control"] == "" and single["AUC corrupted"] == ""
    assert dual["corrupted minus control"] == "+0.075 ± 0.035 (2 of 2 better)"  # 0.6 - 0.5 and 0.5 - 0.45
    assert dual["drop minus control"] == "-0.125 ± 0.000 (2 of 2 better)"  # 0.25 - 0.375 and 0.375 - 0.5
    assert single["balanced accuracy corrupted"] == single["corrupted"] and single["NLL corrupted"] == "0.525 ± 0.035"
    assert single["noise"] == "0.550 ± 0.071" and single["blur"].startswith("0.400")
    claims = text[text.index("## Claims") :]
    assert (
        "**holds**: `dual` has a mean accuracy under corruption not below that of `single`: phantoms 50% +7.5" in claims
    )
    lost = "loses a smaller share of its accuracy under corruption than `single`: phantoms 50% -12.5 points."
    assert f"**holds**: `dual` {lost}" in claims


def test_claims_about_corrupted_images_are_open_without_measurements(done, plan):
    report.main(["--results", str(done / "results"), "--plan", str(plan), "--no_pictures"])
    text = (done / "results" / "tables.md").read_text()
    claim = "**open**: `dual` has a mean accuracy under corruption not below that of `single`:"
    assert f"{claim} phantoms 50% not run" in text
    path = changed(plan, "silent.json", lambda content: content["data"]["phantoms"].pop("robustness"))
    report.main(["--results", str(done / "results"), "--plan", str(path), "--no_pictures"])
    text = (done / "results" / "tables.md").read_text()
    assert f"{claim} not asked for by the plan" in text and text.count("not asked for by the plan") == 2
