# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re

import numpy as np
from tiny_benchmark import lines

from scripts.benchmark import report
from scripts.benchmark.claims import claims
from scripts.benchmark.plan import read_plan
from scripts.benchmark.results import Results
from scripts.benchmark.tables import comparisons, corrected_table


def test_the_report_has_all_tables_with_blanks_for_what_has_not_run(done, plan):
    results = done / "results"
    report.main(["--results", str(results), "--plan", str(plan), "--no_pictures"])
    text = (results / "tables.md").read_text()
    assert "## phantoms, 100% of the training images" in text and "## phantoms, 50% of the training images" in text
    tables = text[text.index("## phantoms") :].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in tables if line.startswith("| ")]
    head, single = rows[0], rows[2]
    (line,) = [line for line in lines(done) if line["row"] == "single"]
    assert single[:3] == ["single", "student", "1"]
    assert single[head.index("NLL")] == f"{float(line['nll']):.3f}"
    assert single[head.index("AUC minus control")] == ""
    dual = next(row for row in rows if row[:2] == ["dual", "student"])
    assert re.fullmatch(
        r"[+-]0\.\d{3} \([+-]\d\.\d{3} to [+-]\d\.\d{3}\), p \d\.\d{3}", dual[head.index("ECE minus control")]
    )
    blank = [row for row in rows if row[2:] == [""] * (len(head) - 2)]
    assert [row[0] for row in blank] == ["single", "dual"]  # the half of the data, not run
    claims = text[text.index("## Claims") :]
    assert "**holds**: accuracy of 0.01 or better on phantoms (" in claims
    assert "phantoms 50% not run" in claims and claims.count("\n* ") == 11
    sizes = {line["row"]: int(line["parameters"]) for line in lines(done) if line["network"] == "student"}
    share = f"{sizes['dual'] / sizes['large']:.1%}"
    assert f"**does not hold**: `dual` has under 1/5 of the large model's parameters: phantoms 100% {share}." in claims


def test_the_short_table_and_the_claims_stand_between_the_marks_of_the_document(done, plan):
    document = done / "results.md"
    document.write_text("Before\n<!-- made by scripts/benchmark/report.py -->\nformer lines\n<!-- end -->\nAfter\n")
    for _ in range(2):  # a second time changes nothing
        report.main(["--results", str(done / "results"), "--plan", str(plan), "--no_pictures"])
        text = document.read_text()
        assert text.startswith("Before\n<!-- made") and text.endswith("<!-- end -->\nAfter\n") and "former" not in text
        rows = [line for line in text.splitlines() if line.startswith("| phantoms")]
        assert [row.split(" | ")[1] for row in rows] == ["single", "dual", "large", "distill"]
        assert text.count("accuracy of 0.01 or better") == 1
    content = json.loads(plan.read_text()) | {"short": ["large", "single"]}
    chosen = plan.with_name("short.json")
    chosen.write_text(json.dumps(content))
    report.main(["--results", str(done / "results"), "--plan", str(chosen), "--no_pictures"])
    rows = [line for line in document.read_text().splitlines() if line.startswith("| phantoms")]
    assert [row.split(" | ")[1] for row in rows] == ["single", "large"]
    assert "| distill | student |" in (done / "results" / "tables.md").read_text()


def test_the_report_compares_calibrated_students_with_each_other(done, plan):
    results = Results(done / "results", read_plan(plan))
    stored = results._stored("phantoms", 1.0)
    halves, seven = np.full((9, 3), 1 / 3), np.full((9, 3), 0.15) + 0.55 * np.eye(3)[stored["labels"]]
    stored |= {"single/0/calibrated": halves, "dual/0/calibrated": seven, "dual/0/temperature": np.array(2.5)}
    lines = corrected_table(results, "calibrated")
    (line,) = [line for line in lines if line.startswith("| phantoms, 100% | dual | ")]
    cells = line.strip("| ").split(" | ")
    assert cells[3] == "2.50" and cells[6:8] == ["0.357", "0.300"]  # -log 0.7, and always right
    assert cells[8].startswith("-0.742 (")  # log 3 before
    assert results.differences("phantoms", 1.0, "single", "single", "calibrated") == {}

    results.plan["claims"]["scarce"] = [["phantoms", 1.0], ["phantoms", 0.5]]
    (claim,) = [text for text in claims(results) if "with a temperature fitted for each" in text]
    assert claim.startswith("* **open**") and "phantoms 100% -0.742, p = 0.0" in claim and "50% not run" in claim


def test_pairs_of_rows_are_compared(done, plan):
    content = read_plan(plan)
    results = Results(done / "results", content)
    assert comparisons(results) == []
    content["claims"] |= {"compared": [["dual", "single"], ["dual", "large"]], "scarce": [["phantoms", 1.0]]}
    *_, first, second = comparisons(results)
    auc = results.differences("phantoms", 1.0, "dual", "single")["macro_auc"]
    assert first.startswith("| `dual` minus `single` | phantoms, 100% | 1 | ") and f"| {auc.value:+.3f} (" in first
    assert second.startswith("| `dual` minus `large` | phantoms, 100% | 1 | ")


def test_a_pair_can_be_compared_over_the_seeds_that_came_later_alone(done, plan):
    content = read_plan(plan)
    content["claims"] |= {"compared": [["dual", "single", 1], ["dual", "single", 2]], "scarce": [["phantoms", 1.0]]}
    results = Results(done / "results", content)
    results.lines = [line | {"seed": seed} for line in results.lines for seed in (0, 1)]
    stored = results._stored("phantoms", 1.0)
    stored |= {key.replace("/0/", "/1/"): value for key, value in stored.items() if "/0/" in key}
    stored["dual/1/student"] = stored["single/1/student"]
    *_, row = comparisons(results)  # of seed 1, whose probabilities are the same; none has seed 2
    assert row.startswith("| `dual` minus `single` | phantoms, 100% | 1 (from 1 on) | +0.000 (+0.000 to +0.000) |")
