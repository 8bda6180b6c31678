# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dual_skd.metrics.predictions import read_predictions, write_predictions
from dual_skd.serving.prediction import Prediction, PredictionTable
from dual_skd.utils.csv_text import escaped, read_rows, unescaped
from dual_skd.utils.files import write_csv

FORMULAS = [
    '=HYPERLINK("http://evil","x")', "=cmd|' /C calc'!A0", "+1+1", "-1+cmd|'x'!A0", "@SUM(1)", "\t=1+1", "\r=1+1",
    "＝1+1", "'=1+1", "''=1+1", "normal;=1+1", 'normal;"=1+1', "normal\n=1+1", "normal\t-2+3",
]  # fmt: skip
NAMES = ["normal", "-", "+", "-1", "+1", "'", "'quoted'", "a=b", "a - b", "p@q", "", "1;2", "0.5"]


def cells_of(text: str, delimiter: str) -> list[str]:
    """The cells that a spreadsheet of a country with this delimiter would make of a line, without quotes around."""
    return [cell.strip('"') for cell in re.split(f"[{delimiter}\r\n]", text)]


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_of_a_table_is_a_formula_in_any_country_and_the_name_comes_back(name, tmp_path):
    write_csv(tmp_path / "a.csv", [["image", name], [Path(name), -0.5]])
    text = (tmp_path / "a.csv").read_text()
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    for cell in [*rows[0], rows[1][0], *cells_of(text, ";"), *cells_of(text, "\t")]:
        assert not re.match(r"\s*[=+\-@＝]", cell), (cell, text)
    assert list(read_rows(tmp_path / "a.csv")) == [{"image": str(Path(name)), name: "-0.5"}]


def test_numbers_signs_and_what_is_no_formula_stay_as_they_are():
    assert [escaped(name) for name in NAMES] == NAMES
    assert escaped("-0.25") == "-0.25" and escaped("-1e-05") == "-1e-05" and escaped(-3) == -3
    assert escaped("-1e5+x") == "'-1e5+x" and escaped("-١") == "'-١"


@given(st.text(st.sampled_from("=+-@'\"\t\r\n;,a1.＝")) | st.text())
def test_every_text_comes_back(text):
    assert unescaped(escaped(text)) == text


def test_predictions_keep_the_names_of_classes_that_are_formulas(tmp_path):
    names = [FORMULAS[0], "-", "-1", "'=1+1"]
    p = np.eye(4) * 0.7 + 0.075
    write_predictions(tmp_path / "p.csv", [f"{name}/a.png" for name in names], np.arange(4), p, names)
    with (tmp_path / "p.csv").open(newline="") as file:
        assert [row["predicted"] for row in csv.DictReader(file)] == [f"'{FORMULAS[0]}", "-", "-1", "''=1+1"]
    found = read_predictions(tmp_path / "p.csv")
    assert found.class_names == names and found.columns["predicted"] == names and list(found.labels) == [0, 1, 2, 3]
    assert found.images == [f"{name}/a.png" for name in names]


def test_the_table_of_an_inference_has_no_formula(tmp_path):
    table = PredictionTable(tmp_path / "p.csv", ["image", "predicted", "p_=1+1", "uncertainty", "problem"])
    table.append([Prediction("=a/b.png", "=1+1", {"=1+1": 0.9}, 0.1), Prediction("@a", problem="=bad")])
    table.publish()
    assert (tmp_path / "p.csv").read_text().splitlines() == [
        "image,predicted,p_=1+1,uncertainty,problem", "'=a/b.png,'=1+1,0.9,0.100000,", "'@a,,,,'=bad",
    ]  # fmt: skip
