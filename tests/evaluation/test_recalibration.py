# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.metrics import brier_score_loss

from dual_skd.evaluation.analysis.predictions import Predictions, Settings
from dual_skd.evaluation.analysis.recalibration import in_words, recalibration_of, risks_of

SETTINGS = Settings(0.95, 20, 0)
NONE = {"form": "none", "share": 0.33, "reason": ""}


def predictions(classes=2, patients=120, *, multi_label=False, shift=-1.0):
    """Two images per patient of a network whose risks are too extreme, and too high for all classes but the first."""
    random = np.random.default_rng(0)
    log_p = log_softmax(2 * random.normal(size=(2 * patients, classes)), axis=1)
    if multi_label:
        p = 1 / (1 + np.exp(-log_p - 1))
        labels = (random.random(p.shape) < 1 / (1 + np.exp(-0.5 * (log_p + 1) - shift))).astype(int)
    else:
        p = np.exp(log_p)
        true = softmax(0.5 * log_p + shift * (np.arange(classes) > 0), axis=1)
        labels = (random.random(len(p))[:, None] > true.cumsum(axis=1)).sum(axis=1)
    names = ["well", "ill", "very ill"][:classes]
    return Predictions(p, labels, [f"p{k // 2}" for k in range(2 * patients)], names, multi_label, SETTINGS)


def recalibrated(given, form="slope", share=1 / 3, *, chose_the_model=False):
    return recalibration_of(given, form, share, chose_the_model=chose_the_model)


@pytest.mark.parametrize("form", ["intercept", "slope"])
@pytest.mark.parametrize("classes", [2, 3])
def test_both_columns_are_of_the_same_other_patients_and_recalibration_mends_the_risks(form, classes):
    found = recalibrated(predictions(classes, patients=360), form)
    assert found.reason == "" and found.seed == 0 and found.form == form
    assert (found.fitted_patients, found.patients) == (120, 240) and (found.fitted_images, found.images) == (240, 480)
    before, after = found.before, found.after
    assert after.metrics["nll"].value < before.metrics["nll"].value
    assert [one.events for one in before.classes] == [one.events for one in after.classes]
    assert sum(one.events for one in after.classes) == 480
    for one, other in zip(before.classes, after.classes, strict=True):
        for name, right in (("observed_expected", 1), ("intercept", 0), *([("slope", 1)] if form == "slope" else [])):
            assert abs(getattr(other, name).value - right) < abs(getattr(one, name).value - right)
    assert found.intercepts["well"] == 0 and found.intercepts["ill"] < -0.3
    assert set(found.slopes.values()) == {1} if form == "intercept" else 0.3 < found.slopes["ill"] < 0.75


def test_the_brier_score_beside_it_is_scikit_learns():
    given = predictions()
    (risks,) = [one for one in risks_of(given) if one.class_name == "ill"]
    assert risks.events == (given.labels == 1).sum()
    found = given.intervals(metrics=("brier",)).overall["brier"]
    assert found.value == pytest.approx(brier_score_loss(given.labels, given.probabilities[:, 1]))


def test_several_labels_are_recalibrated_one_by_one_and_a_rare_one_is_left():
    given = predictions(3, multi_label=True)
    given.labels[:, 2] = 0
    given.labels[:4, 2] = 1
    found = recalibrated(given)
    assert found.slopes["very ill"] == 1 and found.slopes["well"] < 0.8 and found.slopes["well"] != found.slopes["ill"]
    assert len(found.notes) == 1 and found.notes[0].endswith("with very ill, at least 10 are needed")
    assert found.after.metrics["nll"].value < found.before.metrics["nll"].value


@pytest.mark.parametrize(
    ("given", "options", "reason"),
    [
        (predictions(), {"chose_the_model": True}, "these images chose the model and its temperature"),
        (predictions(patients=2), {"share": 0.1}, "a share of 0.1 of 2 patients leaves no image to fit on"),
        (predictions(), {"share": 0.95}, "of those left to measure on 6 patients with well, at least 10 are needed"),
        (predictions(), {"share": 0.05}, "of those to fit on 5 patients with well, at least 10 are needed"),
    ],
)  # fmt: skip
def test_it_is_refused_in_words_and_the_log_says_so(given, options, reason, caplog):
    with caplog.at_level(logging.WARNING, logger="dual_skd"):
        found = recalibrated(given, **options)
    assert reason in found.reason and not found.reason.endswith(".") and found.after is None
    assert reason in caplog.text


def test_a_line_for_the_terminal():
    assert in_words({}) == in_words(NONE) == ""
    assert in_words(NONE | {"form": "slope", "reason": "No recalibration: why"}) == "No recalibration: why"
    numbers = [{"metrics": {"nll": {"value": value}}} for value in (0.5, 0.25)]
    found = NONE | {"form": "intercept", "fitted_patients": 1, "images": 9, "patients": 5}
    assert in_words(found | {"before": numbers[0], "after": numbers[1]}) == (
        "intercept of 1 patient: NLL 0.500 as it is, 0.250 recalibrated, on 5 others"
    )
