# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tiny_benchmark import LARGE, SMALL, lines

from dual_skd.metrics import read_predictions, write_predictions
from dual_skd.networks.build import build_network
from scripts.benchmark.cells import predictions_of


def test_a_finished_cell_has_a_line_per_network_with_the_numbers_of_its_run(done):
    found = {(line["row"], line["network"]): line for line in lines(done)}
    networks = {"single": ["student"], "large": ["student"]}
    networks |= {row: ["student", "auxiliary", "mean"] for row in ("dual", "distill")}
    assert list(found) == [(row, who) for row in ("single", "dual", "large", "distill") for who in networks[row]]
    metrics = json.loads((done / "work" / "phantoms_1.0_dual_0" / "metrics.json").read_text())
    for who in networks["dual"]:
        line = found["dual", who]
        assert float(line["nll"]) == pytest.approx(metrics["test"][who]["nll"], abs=1e-6)
        assert float(line["val_ece"]) == pytest.approx(metrics["best"][who]["ece"], abs=1e-6)
    small, large = (sum(p.numel() for p in build_network("resnet18", num_classes=3, **size).parameters())
                    for size in (SMALL, LARGE))  # fmt: skip
    assert int(found["single", "student"]["parameters"]) == small
    assert int(found["large", "student"]["parameters"]) == large
    assert int(found["dual", "mean"]["parameters"]) == 2 * small
    assert int(found["distill", "mean"]["parameters"]) == small + large
    assert {line["images"] for line in found.values()} == {"9"}


def test_a_finished_cell_has_a_line_per_corruption_where_the_plan_asks_for_them(done):
    found = {(line["row"], line["network"], line["corruption"], line["strength"]): line
             for line in lines(done, "robustness")}  # fmt: skip
    networks = [("single", "student"), ("large", "student"), ("dual", "student"), ("dual", "auxiliary"),
                ("distill", "student"), ("distill", "auxiliary")]  # fmt: skip
    kinds = [("none", "0"), ("noise", "1"), ("noise", "5"), ("jpeg", "1"), ("jpeg", "5")]
    assert set(found) == {(*network, *kind) for network in networks for kind in kinds}
    metrics = json.loads((done / "work" / "phantoms_1.0_dual_0" / "metrics.json").read_text())["robustness"]
    for who in ("student", "auxiliary"):
        measured = metrics["corrupted"]["noise"]["5"][who]
        assert float(found["dual", who, "noise", "5"]["nll"]) == pytest.approx(measured["nll"], abs=1e-6)
    clean = {(line["row"], line["network"]): line for line in lines(done)}
    for network in networks:
        assert found[(*network, "none", "0")]["accuracy"] == clean[network]["accuracy"]
        assert found[(*network, "none", "0")]["nll"] == pytest.approx(clean[network]["nll"], abs=1e-6)


def test_calibrated_probabilities_are_those_with_the_temperature_of_the_validation_images(done, plan, tmp_path):
    run = shutil.copytree(done / "work" / "phantoms_1.0_dual_0", tmp_path / "run")
    table = read_predictions(run / "predictions_validation.csv")
    sure = np.eye(3)[(table.labels + (np.arange(len(table.labels)) % 3 == 0)) % 3].clip(1e-6)  # and wrong in a third
    write_predictions(run / "predictions_validation.csv", table.images, table.labels, sure, table.class_names)
    found = predictions_of(run)
    assert found.temperature == pytest.approx(np.log(1e6) / np.log(4), rel=1e-3)  # 2/3, 1/6 and 1/6 are right
    powers = found.networks["student"] ** (1 / found.temperature)
    assert found.networks["calibrated"] == pytest.approx(powers / powers.sum(1, keepdims=True))
    (run / "predictions_validation.csv").unlink()
    assert "calibrated" not in predictions_of(run).networks
