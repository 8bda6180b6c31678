# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from dual_skd.metrics.paired import holm
from scripts.benchmark.claims import claims
from scripts.benchmark.plan import read_plan
from scripts.benchmark.results import COMPARED_METRICS, Results
from scripts.benchmark.store import COLUMNS


@pytest.mark.parametrize(
    ("single", "dual", "large", "state"),
    [(0.7, 0.76, 0.8, "holds"), (0.7, 0.74, 0.8, "does not hold"), (0.8, 0.85, 0.7, "void"), (0.7, 0.8, None, "open")],
)
def test_a_gap_to_the_large_model_is_halved_or_there_is_none_to_halve(plan, single, dual, large, state):
    content = read_plan(plan)
    content["claims"]["scarce"] = [["phantoms", 1.0], ["phantoms", 0.5]]
    results = Results(plan.parent, content)
    line = dict.fromkeys(COLUMNS, "") | {"data": "phantoms", "network": "student", "seed": 0}
    results.lines = [
        line | {"row": row, "fraction": fraction, "balanced_accuracy": value}
        for fraction in (1.0, 0.5)
        for row, value in (("single", single), ("dual", dual), ("large", large))
        if value is not None
    ]
    (found,) = [text for text in claims(results) if "halves the gap" in text]
    assert found.startswith(f"* **{state}**")
    assert large is None or f"{100 * (large - single):+.1f} and {100 * (large - dual):+.1f} points" in found


def test_the_gain_with_few_images_is_compared_with_that_with_many(plan):
    content = read_plan(plan)
    content["claims"]["shares"] = [["phantoms", 0.5, 1.0]]
    results = Results(plan.parent, content)
    line = dict.fromkeys(COLUMNS, "") | {"data": "phantoms", "network": "student", "seed": 0}
    results.lines = [
        line | {"row": row, "fraction": fraction, "macro_auc": auc}
        for row, fraction, auc in (("single", 0.5, 0.6), ("dual", 0.5, 0.7), ("single", 1.0, 0.8), ("dual", 1.0, 0.83))
    ]

    def claim() -> str:
        (found,) = [text for text in claims(results) if "with few images than with many" in text]
        return found

    assert claim().startswith("* **holds**") and "phantoms 50% +7.0 points more" in claim()
    results.lines[-1]["macro_auc"] = 0.95
    assert claim().startswith("* **does not hold**") and "phantoms 50% -5.0 points more" in claim()
    other = [one | {"seed": 1} for one in results.lines]
    other[-1]["macro_auc"] = 0.8
    results.lines += other  # more in the mean of both seeds, and less in one of them
    assert claim().startswith("* **does not hold**") and "+2.5 points more (-5.0 to +10.0)" in claim()
    del results.lines[4:]
    del results.lines[-1]
    assert claim().startswith("* **open**") and "phantoms 50% not run" in claim()


def test_accuracy_is_that_of_the_light_row_and_size_that_validation_chooses(plan):
    content = read_plan(plan)
    content["claims"]["accuracy"] = [[["phantoms", 0.5], ["phantoms", 1.0]], 0.75]
    results = Results(plan.parent, content)
    line = dict.fromkeys(COLUMNS, "") | {"data": "phantoms", "network": "student", "seed": 0}
    results.lines = [
        line | {"row": row, "fraction": fraction, "val_accuracy": validation, "accuracy": accuracy}
        for row, fraction, validation, accuracy in (
            ("single", 0.5, 0.7, 0.9), ("dual", 1.0, 0.8, 0.7), ("single", 1.0, 0.6, 0.8), ("large", 1.0, 0.95, 0.85)
        )
    ]  # fmt: skip
    (found,) = [text for text in claims(results) if "accuracy of 0.75 or better" in text]
    assert found.startswith("* **does not hold**") and "`dual`): phantoms 100% 0.700" in found


def test_a_variant_of_the_method_has_claims_against_its_own_control(done, plan):
    content = read_plan(plan)
    results = Results(done / "results", content)
    content["claims"]["scarce"] = [["phantoms", 1.0]]
    before = claims(results)
    content["claims"]["variants"] = [{"method": "dual", "control": "large", "on": [["phantoms", 1.0]]}]
    found = claims(results)
    *added, together = found[len(before) :]
    assert found[: len(before)] == before and len(added) == 6
    assert all("`dual`" in text and "`large`" in text and "phantoms 100%" in text for text in added)
    first, second = (results.differences("phantoms", 1.0, "dual", control) for control in ("large", "single"))
    corrected = holm([one[name].p for one in (first, second) for name in COMPARED_METRICS])
    assert (
        f"too ({len(corrected)}): phantoms 100% balanced accuracy {corrected[0]:.3f}, AUC {corrected[1]:.3f}"
        in together
    )
    ece = results.shared_means("phantoms", 1.0, ("dual", "large"), "ece")
    assert f"{ece[0] / ece[1]:.2f} times" in found[len(before) + 1]
