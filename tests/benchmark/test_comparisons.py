# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from scripts.benchmark import comparisons
from scripts.benchmark.comparisons import Setting, errors_of_the_first_kind, two_equal_methods


def test_the_methods_are_equally_good_calibrated_and_correlated_within_patients():
    pair, labels, units = two_equal_methods(np.random.default_rng(0), Setting((2000, 6000), 4))
    assert pair.shape == (2, 32_000, 2) and np.bincount(labels).tolist() == [8000, 24_000] and units.max() == 7999
    assert len({(label, unit) for label, unit in zip(labels, units, strict=True)}) == 8000
    right = pair.argmax(axis=2) == labels
    assert right[0].mean() == pytest.approx(right[1].mean(), abs=0.01)
    for p in pair:
        sure = p[:, 1] > 0.9
        assert labels[sure].mean() == pytest.approx(p[sure, 1].mean(), abs=0.01)
    apart = (right[0].astype(float) - right[1]).reshape(-1, 4)
    within = np.corrcoef(apart.T)[np.triu_indices(4, 1)]
    assert 0.2 < within.mean() < 0.5


def test_the_table_counts_tests_below_the_level(monkeypatch):
    monkeypatch.setattr(comparisons, "SETTINGS", (Setting((8, 8)), Setting((4, 4, 4), 2)))
    head, line, *rows = errors_of_the_first_kind(3)
    assert head.startswith("| test set | accuracy (McNemar) |") and line.count("---") == head.count("|") - 1
    assert [row.split(" | ")[0] for row in rows] == ["| 8 + 8 patients", "| 4 + 4 + 4 patients, 2 images of each"]
    assert " – " in rows[0] and " – " not in rows[1]  # two classes have one area
    shares = {cell for row in rows for cell in row.strip("| ").split(" | ")[1:]}
    assert shares <= {"–", "0.0", "33.3", "66.7", "100.0"}
