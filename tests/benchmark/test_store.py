# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil

import numpy as np
import pytest
from tiny_benchmark import lines

from dual_skd.errors import InputError
from scripts.benchmark.plan import read_plan
from scripts.benchmark.results import Results
from scripts.benchmark.store import (
    TABLES,
    Predictions,
    add_predictions,
    for_equal_classes,
    predictions_path,
    probabilities,
    read_rows,
    write_rows,
)
from scripts.benchmark.tables import corrected_table


def test_the_stored_probabilities_give_the_metrics_of_the_table(done):
    stored = dict(np.load(predictions_path(done / "results", "phantoms", 1.0)))
    for line in lines(done):
        p = probabilities(stored, line["row"], line["seed"], line["network"])
        assert p.shape == (9, 3) and p.sum(1) == pytest.approx(1, abs=1e-6)
        assert -np.log(p[np.arange(9), stored["labels"]]).mean() == pytest.approx(float(line["nll"]), abs=2e-3)
    assert stored["single/0/student"].dtype == np.float16
    assert not any("demo" in str(value) for value in stored.values() if value.ndim == 0)  # no names of images


def test_former_columns_of_the_brier_score_are_left_out_and_lines_of_another_form_are_named(tmp_path):
    row = dict.fromkeys(TABLES["tuned"], "1")
    write_rows(tmp_path, [row], "tuned")
    path = tmp_path / "tuned.csv"
    own = path.read_text()
    former = "".join(f"{line},{end}\n" for line, end in zip(own.splitlines(), ("brier", "0.4"), strict=True))
    path.write_text(former)
    assert read_rows(tmp_path, "tuned") == [row]
    path.write_text(own + own.splitlines()[1] + ",0.4\n")
    with pytest.raises(InputError, match="line 3, has more or fewer fields than columns"):
        read_rows(tmp_path, "tuned")
    path.write_text(own + "1,1\n")
    with pytest.raises(InputError, match="line 3"):
        read_rows(tmp_path, "tuned")


def test_the_brier_score_is_that_of_the_kept_probabilities(done, plan):
    results = Results(done / "results", read_plan(plan))
    for seed in results.of("phantoms", 1.0, "dual"):
        p, truth = results.predictions("phantoms", 1.0, "dual", seed), np.eye(3)[results.labels("phantoms", 1.0)]
        found = results.values("phantoms", 1.0, "dual", "brier")
        assert ((p - truth) ** 2).sum(axis=1).mean() == pytest.approx(found[seed], abs=1e-9)


def test_what_the_training_images_said_of_frequencies_is_taken_back(done, plan):
    stored = {"row/0/counts": np.array([30, 10])}
    found = for_equal_classes(stored, "row", 0, np.array([[0.75, 0.25], [0.6, 0.4]]))
    assert found == pytest.approx(np.array([[0.5, 0.5], [1 / 3, 2 / 3]]))  # 0.6 / 30 : 0.4 / 10 is 1 : 2
    assert for_equal_classes(stored, "other", 0, np.ones((1, 2)) / 2) is None

    path = predictions_path(done / "results", "phantoms", 1.0)
    assert np.load(path)["dual/0/counts"].tolist() == [8, 8, 8]  # of 24 training images
    results = Results(done / "results", read_plan(plan))
    alike = results.predictions("phantoms", 1.0, "dual", 0)
    assert results.predictions("phantoms", 1.0, "dual", 0, "equal classes") == pytest.approx(alike)
    results._loaded["phantoms", 1.0]["dual/0/counts"] = np.array([1, 10**9, 10**9])  # whatever it is, it is rare

    def equal() -> list[str]:
        return [line for line in corrected_table(results, "equal classes") if " | dual | " in line]

    (line,) = equal()
    assert line.split(" | ")[4] == "0.333"  # all images are of the first class then
    results.plan["rows"]["dual"]["logit_adjustment"] = 1.0
    assert equal() == []


def test_predictions_for_other_test_images_are_refused(done, tmp_path):
    stored = shutil.copy(predictions_path(done / "results", "phantoms", 1.0), tmp_path / "kept.npz")
    found = Predictions([f"{n}.png" for n in range(9)], np.load(stored)["labels"], -np.ones(9),
                                      {"student": np.full((9, 3), 1 / 3)}, np.ones(3))  # fmt: skip
    with pytest.raises(InputError, match="9 other test images than the 9 that single with seed 1"):
        add_predictions(stored, "single", 1, found)
