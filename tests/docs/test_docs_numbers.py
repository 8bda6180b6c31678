# SPDX-License-Identifier: Apache-2.0
"""Numbers that pages take from the benchmark are those of its table, by set, share of the images and method."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import mean

import pytest

from dual_skd.options import Training
from scripts.benchmark.plan import PLAN, read_plan

DOCS = Path(__file__).resolve().parents[2] / "docs"
SETS = {"chest X-ray": ("chest_xray", "0.1"), "brain MRI": ("brain_mri", "0.1"), "lung CT": ("lung_ct", "1.0")}
METHODS = {"plain": "single", "dual model": "coupled"}


@pytest.fixture(scope="module")
def cells() -> list[dict[str, str]]:
    with open(DOCS / "results" / "benchmark.csv", encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["network"] == "student"]


def values(cells, metric: str, data: str, fraction: str, method: str) -> dict[str, float]:
    """A metric by seed."""
    wanted = (data, fraction, METHODS[method])
    return {row["seed"]: float(row[metric]) for row in cells if (row["data"], row["fraction"], row["row"]) == wanted}


def test_what_more_pixels_bring(cells):
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w[\w -]*), \d+ \| ([\w ]+) \| (\d+) \|" + r" ([\d.]+) \|" * 4 + "$", page, re.MULTILINE)
    assert len(rows) == 6
    gains = []
    for name, method, *told in rows:
        data, fraction = SETS[name]
        found = []
        for metric, digits in (("macro_auc", 3), ("nll", 2)):
            few, many = (values(cells, metric, one, fraction, method) for one in (data, f"{data}_224"))
            shared = few.keys() & many.keys()
            found += [f"{mean(of_size[seed] for seed in shared):.{digits}f}" for of_size in (few, many)]
            changes = [many[seed] - few[seed] for seed in shared]
            if metric == "macro_auc":
                assert min(changes) > 0  # "in every seed"
                gains.append(mean(changes))
            else:
                assert mean(changes) < 0
        assert told == [str(len(shared)), *found]
    found = f"{min(gains):.3f} to {max(gains):.3f}"
    assert f"AUC rises in every row, by {found}," in page and f"AUC rose by {found}" in (DOCS / "faq.md").read_text()


def test_what_more_images_bring(cells):
    page = (DOCS / "howto" / "few_labels.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (\d+) %[^|]*\| ([\d.]+) \| ([\d.]+) \((\d+)\) \| ([\d.]+) \| ([\d.]+) \((\d+)\) \|$", page, re.MULTILINE
    )
    assert len(rows) == 4
    for share, *told in rows:
        found = []
        for data in ("chest_xray", "brain_mri"):
            plain, dual = (
                values(cells, "macro_auc", data, str(int(share) / 100), method).values() for method in METHODS
            )
            found += [f"{mean(plain):.3f}", f"{mean(dual):.3f}", str(len(dual))]
        assert told == found


def test_how_many_steps_the_benchmark_had():
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d,]+) \((\D+?)(?:, (\d+) %|, all)?\) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert len(rows) == 5
    plan, batch_size = read_plan(PLAN), Training().batch_size
    for images, name, share, epochs, steps in rows:
        assert plan["data"][SETS[name][0]]["epochs"][str(float(share or 100) / 100)] == int(epochs)
        steps_per_epoch = int(images.replace(",", "")) // batch_size  # a batch that isn't full is left out
        assert steps_per_epoch * int(epochs) == int(steps)
