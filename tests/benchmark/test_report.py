# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re

import numpy as np
import pytest
from tiny_benchmark import lines

from dual_skd.errors import InputError
from scripts.benchmark import report
from scripts.benchmark.claims import claims
from scripts.benchmark.plan import read_plan
from scripts.benchmark.results import Results
from scripts.benchmark.tables import by_price, comparisons, corrected_table, together


def test_the_report_has_the_tables_of_what_has_run_and_names_the_rest(done, plan):
    results = done / "results"
    report.main(["--results", str(results), "--plan", str(plan), "--no_pictures"])
    text = (results / "tables.md").read_text()
    assert "## phantoms, 100% of the training images" in text and "## phantoms, 50% of" not in text
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
    assert "| phantoms, 50% | single, dual |" in text[text.index("## Not run") :]
    claims = text[text.index("## Claims") :]
    assert "**holds**: accuracy of 0.01 or better on phantoms (" in claims
    assert "phantoms 50% not run" in claims and claims.count("\n* ") == 11
    sizes = {line["row"]: int(line["parameters"]) for line in lines(done) if line["network"] == "student"}
    share = f"{sizes['dual'] / sizes['large']:.1%}"
    assert f"**does not hold**: `dual` has under 1/5 of the large model's parameters: phantoms 100% {share}." in claims


def test_the_prices_stand_between_the_marks_of_the_document(done, plan):
    document = done / "results.md"
    document.write_text("Before\n<!-- prices -->\nformer lines\n<!-- /prices -->\nAfter\n")
    priced = plan.with_name("priced.json")
    prices = {"rows": {"large": 1, "dual": 4 / 3, "single": 1}, "on": [["phantoms", 0.5], ["phantoms", 1.0]]}
    priced.write_text(json.dumps(json.loads(plan.read_text()) | {"prices": prices}))
    for _ in range(2):  # a second time changes nothing
        report.main(["--results", str(done / "results"), "--plan", str(priced), "--no_pictures"])
        text = document.read_text()
        assert text.startswith("Before\n<!-- prices") and text.endswith("/prices -->\nAfter\n") and "former" not in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row[:2] for row in rows[:2]] == [["1.0", "`single`"], ["1.3", "`dual`"]] and rows[2][1] == "`large`"
    macs = {line["row"]: float(line["macs"]) for line in lines(done) if line["network"] == "student"}
    assert rows[2][0] == f"{macs['large'] / macs['single']:.1f}"


def test_a_row_that_a_cheaper_one_beats_is_marked(done, plan):
    content = read_plan(plan) | {"prices": {"rows": {"single": 1, "dual": 1.5}, "on": [["phantoms", 1.0]]}}
    results = Results(done / "results", content)
    stored = results._stored("phantoms", 1.0)
    good = np.full((9, 3), 0.15) + 0.55 * np.eye(3)[stored["labels"]]
    bad = np.random.default_rng(1).dirichlet(np.ones(3), size=9)  # nine images are too few to tell an AUC
    stored |= {"single/0/calibrated": good, "dual/0/calibrated": bad}
    of_single, of_dual = (line.split(" | ")[2] for line in by_price(results)[2:])
    assert of_single.endswith(", 0.36 (1) |") and re.fullmatch(r"0\.\d{3}, \d\.\d\d ▾ \(1\) \|", of_dual)
    stored |= {"single/0/calibrated": bad, "dual/0/calibrated": good}  # a dearer one may be better
    results._compared.clear()
    assert not any("▾" in line for line in by_price(results))


def test_two_networks_that_err_on_different_images_know_more_together(done, plan):
    prices = {"rows": {"single": 1, "dual": 1.5}, "on": [["phantoms", 1.0]]}
    results = Results(done / "results", read_plan(plan) | {"prices": prices})
    results.lines.extend([line | {"seed": "1"} for line in results.lines if line["row"] == "single"])
    right = np.eye(3)[results.labels("phantoms", 1.0)]
    sure, wrong = 0.04 + 0.88 * right, 0.3 + 0.1 * np.roll(right, 1, axis=1)  # 0.92; 0.3 of the true class
    halves = np.arange(len(right))[:, None] % 2 == 0
    stored = results._stored("phantoms", 1.0)
    stored |= {
        "single/0/calibrated": np.where(halves, sure, wrong),
        "single/1/calibrated": np.where(halves, wrong, sure),
    }
    (line,) = together(results)[2:]  # of one seed there is nothing to average
    alone, whole = -np.log([0.92, 0.3]).mean(), -np.log(0.61)
    told = re.fullmatch(r"\| `single` \| 0\.\d{3} → 1\.000, (.*) → (.*) \(2\) \|", line)
    assert told and told.groups() == (f"{alone:.2f}", f"{whole:.2f}")


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


def test_rows_of_two_tables_are_compared_where_their_test_images_are_the_same(done, plan):
    content = read_plan(plan)
    content["claims"] |= {"across": [[["sharper", 1.0, "dual"], ["phantoms", 1.0, "single"]]]}
    results = Results(done / "results", content)
    assert comparisons(results) == []
    results.lines = [*results.lines, *(line | {"data": "sharper"} for line in results.lines)]
    results._loaded["sharper", 1.0] = dict(results._stored("phantoms", 1.0))
    *_, line = comparisons(results)
    auc = results.differences("phantoms", 1.0, "dual", "single")["macro_auc"]
    assert line.startswith("| `dual` minus `single` | sharper, 100% minus phantoms, 100% | 1 | ")
    assert f"| {auc.value:+.3f} (" in line
    results._loaded["sharper", 1.0]["images"] = np.array("others")
    with pytest.raises(InputError, match="sharper and phantoms have other test images"):
        comparisons(results)


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
