# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from dual_skd.metrics.definitions import (
    LOWER_IS_BETTER,
    METRICS,
    OVERALL_METRICS,
    TABLE,
    Metric,
    sensitivity,
    specificity,
)
from dual_skd.metrics.intervals import metric_intervals


def test_a_new_metric_is_a_function_and_a_line_of_the_table(monkeypatch):
    monkeypatch.setitem(TABLE, "youden", Metric(per_class=lambda images: sensitivity(images) + specificity(images) - 1))
    labels = np.array([0, 0, 0, 0, 1, 1] * 20)
    p = np.eye(2)[np.array([0, 0, 0, 1, 1, 0] * 20)]
    found = metric_intervals(p, labels, resamples=200, metrics=["youden"]).per_class[1]["youden"]
    assert found.value == pytest.approx(3 / 4 + 1 / 2 - 1)
    assert found.low < found.value < found.high


def test_every_metric_is_measured_in_one_way_and_every_key_metric_is_in_the_table():
    assert set(METRICS) <= set(OVERALL_METRICS)
    assert all(bool(metric.columns) != bool(metric.overall or metric.per_class) for metric in TABLE.values())
    assert LOWER_IS_BETTER == ("ece", "nll", "brier", "ece_equal_mass")


def test_numbers_from_arrays_need_no_pytorch():
    modules = """curves delong differences intervals likelihood_ratio mcnemar net_benefit operating_point paired
        predictions probabilities sample_size subgroups uncertainty"""
    code = f"import sys; from dual_skd.metrics import {', '.join(modules.split())}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
