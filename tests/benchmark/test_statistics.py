# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from dual_skd.metrics.estimates import Estimate
from scripts.benchmark import statistics
from scripts.benchmark.statistics import Coverage, coverage, timing


def test_coverage_counts_the_intervals_that_hold_the_truth_and_leaves_out_missing_ones():
    counted = Coverage({"auc": 0.8})
    for low, high in ((0.7, 0.9), (0.81, 0.9), (0.75, 0.85)):
        counted.add({"auc": Estimate(0.85, low, high)})
    counted.add({"auc": Estimate(0.5, reason="no interval")})
    assert list(counted.rows("set", "how")) == ["| set | auc | how | 0.800 | 66.7 % | 0.130 | 3 |"]


def test_the_tables_are_complete(monkeypatch):
    monkeypatch.setattr(statistics, "TRUTH_IMAGES", 3000)
    monkeypatch.setattr(statistics, "TIMED_SIZES", ((2, 50), (3, 60)))
    times, rows = list(timing()), list(coverage(statistics.PARTS, 2, 20))  # those of thresholds are tables of their own
    assert len(times) == 2 + 4 and "| 2 | 50 | 25 |" in times[3]
    assert {row.count("|") for row in rows} == {8} and len(rows) == 2 + 12 + 14 + 14 + 4 + 9 + 20 + 32
    truths = {row.split("|")[4].strip() for row in rows if "| macro_auc | bootstrap, " in row}
    assert len(truths) == 1 and 0.8 < float(truths.pop()) < 0.9


def test_the_scores_of_two_classes_are_calibrated_and_lie_apart_as_they_say():
    p, labels, patients = statistics.two_classes(np.random.default_rng(0), 50_000, ill=0.3, slope=1, patients=20_000)
    assert labels.mean() == pytest.approx(0.3, abs=0.01)
    assert p[:, 1].mean() == pytest.approx(0.3, abs=0.01)
    high = p[:, 1] > 0.6
    assert labels[high].mean() == pytest.approx(p[high, 1].mean(), abs=0.02)
    assert len(set(patients)) <= 20_000
