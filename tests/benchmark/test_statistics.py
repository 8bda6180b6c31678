# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from dual_skd.metrics.estimates import Estimate
from scripts.benchmark import comparisons, coverage, statistics
from scripts.benchmark.coverage import METRICS, Coverage, Setting, truth_of, truth_of_two, two_classes


def test_coverage_counts_the_intervals_that_hold_the_truth_and_leaves_out_missing_ones():
    counted = Coverage({"auc": 0.8, "nll": 1.0})
    for low, high in ((0.7, 0.9), (0.81, 0.9), (0.75, 0.85)):
        counted.add({"auc": Estimate(0.85, low, high), "nll": Estimate(1.0, 0.9, 1.1)})
    counted.add({"auc": Estimate(0.5, reason="no interval"), "nll": Estimate(1.0, 0.9, 1.1)})
    assert counted.share("auc") == "66.7 (75)" and counted.share("nll") == "100.0"


def test_the_tables_are_complete(monkeypatch, capsys):
    monkeypatch.setattr(coverage, "TRUTH_IMAGES", 8000)
    monkeypatch.setattr(statistics, "TIMED_SIZES", ((2, 50), (3, 60)))
    parts = {name: part for name, part in statistics.PARTS.items() if name != "thresholds"}  # tested beside it
    monkeypatch.setattr(statistics, "PARTS", parts)
    statistics.main(["--simulations", "2", "--resamples", "20"])
    times, held, seeds, called = capsys.readouterr().out.strip().split("\n\n")
    assert len(called.splitlines()) == 2 + len(comparisons.SETTINGS)
    assert len(times.splitlines()) == 2 + 4 and "| 2 | 50 | 25 |" in times
    assert {row.count("|") for row in held.splitlines()} == {len(METRICS) + 2}
    assert len(held.splitlines()) == 2 + 12 + 4 + 2 and len(seeds.splitlines()) == 2 + 32


@pytest.mark.parametrize("setting", [Setting(100, 50), Setting(40, 5), Setting(100, 5, 4)])
def test_what_is_true_in_closed_form_is_true_of_a_large_sample(setting):
    large = two_classes(np.random.default_rng(0), Setting(4000 * setting.patients, 4000 * setting.ill))
    found, true = truth_of(large, METRICS), truth_of_two(setting)
    near = {name: pytest.approx(value, abs=0.012) for name, value in found.items()}
    assert true == near


def test_images_of_a_patient_share_their_label_and_half_of_the_variance_of_their_scores():
    found = two_classes(np.random.default_rng(1), Setting(20_000, 10_000, 2))
    assert (found.labels[::2] == found.labels[1::2]).all() and found.patients.tolist()[:4] == [0, 0, 1, 1]
    logits = np.log(found.probabilities[:, 1] / found.probabilities[:, 0])[found.labels == 1]
    assert np.corrcoef(logits[::2], logits[1::2])[0, 1] == pytest.approx(0.5, abs=0.03)
