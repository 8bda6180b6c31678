# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dual_skd.metrics import write_predictions
from scripts.benchmark.probes.temperature import row, row_of_draws


def write(path: Path, right: int, of: int) -> None:
    """Predictions that all say 0.8 and of which some are right."""
    p = np.tile([0.8, 0.2], (of, 1))
    labels = np.array([0] * right + [1] * (of - right))
    write_predictions(path, [str(n) for n in range(of)], labels, p, ["a", "b"])


def test_a_temperature_below_one_is_shown_with_what_it_does_to_the_test_images(tmp_path):
    write(tmp_path / "predictions_validation.csv", right=16, of=17)  # log(16) / log(4) = 2: sharpened by two
    write(tmp_path / "predictions_test.csv", right=2, of=3)  # log(2) / log(4) = 1/2: softened by two
    (tmp_path / "metrics.json").write_text(json.dumps({"test": {}}))
    name, images, fitted, wanted, before, with_t, softened = row(tmp_path)
    assert (name, images, fitted, wanted) == (tmp_path.name, "17", "0.50", "2.00")
    assert before == softened == f"{-(2 * np.log(0.8) + np.log(0.2)) / 3:.3f}"
    assert with_t == f"{-(2 * np.log(16 / 17) + np.log(1 / 17)) / 3:.3f}"


def test_calibrated_predictions_are_passed_over(tmp_path):
    for part in ("validation", "test"):
        write(tmp_path / f"predictions_{part}.csv", right=2, of=3)
    (tmp_path / "metrics.json").write_text(json.dumps({"test": {"calibrated": {}}}))
    assert row(tmp_path) is None


def test_without_test_images_some_validation_images_fit_and_the_others_judge(tmp_path):
    write(tmp_path / "predictions_validation.csv", right=40, of=80)  # says 0.8 and is right in half of the cases
    assert row_of_draws(tmp_path, 41) is None
    name, images, temperature, nll, with_t, ece, with_t_ece = row_of_draws(tmp_path, 40)
    assert (name, images) == (tmp_path.name, "80")
    assert float(temperature) > 5  # log 4 / log 1 were right
    assert float(nll) > float(with_t) > 0.69
    assert float(ece) == pytest.approx(0.3, abs=0.01) and float(with_t_ece) < 0.15
