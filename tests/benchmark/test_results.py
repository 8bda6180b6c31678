# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil

import numpy as np
from tiny_benchmark import lines

from scripts.benchmark.plan import read_plan
from scripts.benchmark.results import Results
from scripts.benchmark.robustness import Robustness
from scripts.benchmark.store import write_rows
from scripts.benchmark.tables import table_of


def test_measured_rows_that_the_plan_no_longer_has_stay_in_its_tables(plan):
    content = read_plan(plan)
    results = Results(plan.parent, content)
    line = {"data": "phantoms", "fraction": "1.0", "network": "student"}
    results.lines = [line | {"row": row} for row in ("gone_b", "single", "gone_a", "gone_b")]
    (rows,) = (rows for data, fraction, rows in results.tables() if (data, fraction) == ("phantoms", 1.0))
    planned = [row for row in content["rows"] if row in rows]
    assert "single" in planned and rows == [*planned, "gone_b", "gone_a"]


def test_rows_are_compared_over_the_seeds_that_all_of_them_have(plan):
    content = read_plan(plan)
    results = Results(plan.parent, content)
    line = {"data": "phantoms", "fraction": "1.0", "network": "student"}
    results.lines = [
        line | {"row": row, "seed": seed, "ece": ece}
        for row, seed, ece in (("single", 0, 0.1), ("single", 1, 0.3), ("dual", 1, 0.2), ("dual", 2, 0.9))
    ]
    assert results.shared_means("phantoms", 1.0, ("single", "dual"), "ece").tolist() == [0.3, 0.2]
    assert np.isnan(results.shared_means("phantoms", 1.0, ("single", "large"), "ece")).all()
    results.lines.append(line | {"fraction": "0.5", "row": "single", "seed": 1, "ece": 0.7})
    cells = [("phantoms", share, row) for share, row in ((0.5, "single"), (1.0, "single"), (1.0, "dual"))]
    assert results.means_of(cells, "ece").tolist() == [0.7, 0.3, 0.2]


def test_a_table_has_no_outdated_cells_beside_others_and_is_marked_when_it_has_no_others(done, plan, tmp_path):
    folder = shutil.copytree(done / "results", tmp_path / "results")
    stored = lines(done)
    half = [line | {"fraction": "0.5"} for line in stored if line["row"] == "single"]
    write_rows(folder, [line | {"settings": "00000000"} for line in half] + stored, "benchmark")
    results = Results(folder, read_plan(plan))
    assert (
        results.outdated == {"phantoms_0.5_single_0"} and results.hidden == set() and len(results.lines) > len(stored)
    )
    assert results.mark("phantoms", 0.5) == " †" and results.mark("phantoms", 1.0) == ""
    assert "## phantoms, 50% of the training images †" in table_of(results, "phantoms", 0.5, ["single"])

    changed_row = [line | ({"settings": "00000000"} if line["row"] == "dual" else {}) for line in stored]
    write_rows(folder, changed_row, "benchmark")
    measured = [
        {"data": "phantoms", "fraction": 1.0, "row": row, "seed": 0, "network": "student", "corruption": "none"}
        | {"strength": 0} for row in ("single", "dual")
    ]  # fmt: skip
    write_rows(folder, measured, "robustness")
    results = Results(folder, read_plan(plan))
    assert results.hidden == {"phantoms_1.0_dual_0"} and results.mark("phantoms", 1.0) == ""
    assert {line["row"] for line in results.lines} == {line["row"] for line in stored} - {"dual"}
    shift = Robustness(folder, results.plan, results.hidden)
    assert shift.seeds("phantoms", 1.0, "single") and not shift.seeds("phantoms", 1.0, "dual")
