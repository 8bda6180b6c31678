# SPDX-License-Identifier: Apache-2.0
"""Numbers that pages take from the benchmark are those of its table, by set, share of the images and method."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import mean

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
SETS = {"chest X-ray": ("chest_xray", "0.1"), "brain MRI": ("brain_mri", "0.1"), "lung CT": ("lung_ct", "1.0")}
METHODS = {"plain": "single", "dual model": "coupled"}


@pytest.fixture(scope="module")
def cells() -> list[dict[str, str]]:
    with open(DOCS / "results" / "benchmark.csv", encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["network"] == "student"]


def values(cells, metric: str, data: str, fraction: str, method: str, *, first: bool = False) -> list[float]:
    wanted = (data, fraction, METHODS[method])
    return [
        float(row[metric])
        for row in cells
        if (row["data"], row["fraction"], row["row"]) == wanted and not (first and row["seed"] != "0")
    ]


def test_what_more_pixels_bring(cells):
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w[\w -]*), \d+ \| ([\w ]+) \|" + r" ([\d.]+) \|" * 4 + "$", page, re.MULTILINE)
    assert len(rows) == 6
    for name, method, *told in rows:
        data, fraction = SETS[name]
        found = [
            values(cells, metric, one, fraction, method, first=True)
            for metric in ("macro_auc", "nll")
            for one in (data, f"{data}_224")
        ]
        assert told == [f"{one[0]:.{digits}f}" for one, digits in zip(found, (3, 3, 2, 2), strict=True)]


def test_what_more_images_bring(cells):
    page = (DOCS / "howto" / "few_labels.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (\d+) %[^|]*\| ([\d.]+) \| ([\d.]+) \((\d+)\) \| ([\d.]+) \| ([\d.]+) \((\d+)\) \|$", page, re.MULTILINE
    )
    assert len(rows) == 4
    for share, *told in rows:
        found = []
        for data in ("chest_xray", "brain_mri"):
            plain, dual = (values(cells, "macro_auc", data, str(int(share) / 100), method) for method in METHODS)
            found += [f"{mean(plain):.3f}", f"{mean(dual):.3f}", str(len(dual))]
        assert told == found
