# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from scripts.benchmark import statistics, thresholds
from scripts.benchmark.thresholds import Validation, logarithm_interval


def test_what_is_true_of_a_threshold_is_seen_in_a_large_sample():
    size = Validation(200_000, ill=0.2)
    p, labels, patients = size.draw(np.random.default_rng(0))
    assert patients is None and labels.mean() == pytest.approx(0.2, abs=0.005)
    assert p[:, 1].mean() == pytest.approx(0.2, abs=0.005)  # calibrated
    for threshold in (0.05, 0.2, 0.7):
        called = p[:, 1] >= threshold
        seen = called[labels == 1].mean(), (~called)[labels == 0].mean()
        assert seen == pytest.approx(size.shares_above(threshold), abs=0.006)
    assert size.shares_above(0) == (1, 0) and size.shares_above(1) == (0, 1)


def test_images_of_a_patient_are_alike_and_of_one_kind():
    _, labels, patients = Validation(400, 100).draw(np.random.default_rng(1))
    kinds = {}
    for patient, label in zip(patients, labels.tolist(), strict=True):
        kinds.setdefault(patient, set()).add(label)
    assert 80 < len(kinds) <= 100 and all(len(kind) == 1 for kind in kinds.values())


def test_the_logarithm_interval_is_that_of_the_paper():
    called, truth = np.repeat([1, 0, 1, 0], [90, 10, 20, 80]) > 0, np.repeat([1, 0], 100) > 0
    half = 1.959964 * math.sqrt(1 / 90 - 1 / 100 + 1 / 20 - 1 / 100)
    assert logarithm_interval(called, truth) == pytest.approx((4.5 * math.exp(-half), 4.5 * math.exp(half)), rel=1e-6)
    assert all(np.isfinite(logarithm_interval(truth, truth)))


def test_the_tables_are_complete(capsys, monkeypatch):
    monkeypatch.setattr(thresholds, "THRESHOLD_CASES", ((Validation(20), 0.9), (Validation(60), 0.8)))
    monkeypatch.setattr(thresholds, "SET_CASES", (Validation(38), Validation(36, 9)))
    monkeypatch.setattr(thresholds, "RATIO_CASES", (Validation(40),))
    statistics.main(["--only", "thresholds", "--simulations", "10"])
    of_thresholds, of_sets, of_ratios = (part.splitlines() for part in capsys.readouterr().out.strip().split("\n\n"))
    assert (len(of_thresholds), len(of_sets), len(of_ratios)) == (2 + 4, 2 + 2, 2 + 4)
    for table in (of_thresholds, of_sets, of_ratios):
        assert len({row.count("|") for row in table}) == 1
    assert of_thresholds[3] == "| 20 images, 50% ill | 0.9 | 95% confidence | 100.0% | – | – | – |"
    assert of_sets[3].startswith("| 36 images of 9 patients, 50% ill | ")
