# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from dual_skd.metrics.uncertainty import Conformal
from dual_skd.serving.prediction import Prediction, PredictionRules

NAMES = ["normal", "nodule"]


def test_label_entropy_disagreement_and_set_are_those_of_the_probabilities():
    rules = PredictionRules(NAMES, sets=Conformal("lac", 0.1, 50, 0.8), auxiliary=True)
    (found,) = rules.predictions(["a.png"], np.array([[0.75, 0.25]]), np.array([[0.25, 0.75]]))
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert found.label == "normal" and found.probabilities == {"normal": 0.75, "nodule": 0.25}
    assert found.uncertainty == pytest.approx(entropy)
    assert found.disagreement == pytest.approx(1 - entropy)  # the mean prediction is one half each, 1 bit
    assert found.prediction_set == ("normal", "nodule")  # scores 0.25 and 0.75, both up to 0.8
    with pytest.raises(FrozenInstanceError):
        found.label = "nodule"


def test_several_labels_are_all_above_one_half():
    both, none = PredictionRules(NAMES, multi_label=True).predictions(
        ["a", "b"], np.array([[0.75, 0.625], [0.25, 0.5]])
    )
    assert both.label == "normal|nodule" and none.label == ""
    assert both.disagreement is None and both.prediction_set is None


def test_an_unusable_image_has_a_problem_and_no_numbers():
    good, bad = PredictionRules(NAMES).predictions(["a", "b"], np.full((2, 2), 0.5), problems=["", "b is cut off."])
    assert good.problem == "" and good.uncertainty == pytest.approx(1)
    assert bad == Prediction("b", problem="b is cut off.")
