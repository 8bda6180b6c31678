# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from dual_skd.errors import InputError
from dual_skd.metrics.operating_point import (
    FEWEST,
    OperatingPoint,
    choose_operating_point,
    one_against_rest,
    too_few,
)

# sorted: 0.1- 0.2+ 0.3- 0.4- 0.6+ 0.7- 0.8+ 0.9+
SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9])
TRUTH = np.array([0, 1, 0, 0, 1, 0, 1, 1])


def binary(scores):
    return np.stack([1 - scores, scores], axis=1)


def test_without_a_wish_it_is_youdens_threshold_the_more_sensitive_one_of_equals():
    # above 0.4: sensitivity 3/4 and specificity 3/4; above 0.7: 2/4 and 4/4; both sum to 1.5
    point = choose_operating_point(binary(SCORES), TRUTH)
    assert (point.threshold, point.sensitivity, point.specificity) == (0.5, 0.75, 0.75)
    assert point.rule == "largest sensitivity + specificity" and point.images == 8


@pytest.mark.parametrize(
    ("wish", "threshold", "sensitivity", "specificity"),
    [
        ({"sensitivity": 0.75}, 0.5, 0.75, 0.75),
        ({"sensitivity": 0.76}, 0.15, 1.0, 0.25),
        ({"sensitivity": 1}, 0.15, 1.0, 0.25),
        ({"specificity": 0.75}, 0.5, 0.75, 0.75),
        ({"specificity": 0.8}, 0.75, 0.5, 1.0),
        ({"specificity": 1}, 0.75, 0.5, 1.0),
    ],
)
def test_a_wished_sensitivity_or_specificity_is_reached_at_the_least_cost(wish, threshold, sensitivity, specificity):
    point = choose_operating_point(binary(SCORES), TRUTH, **wish)
    assert point.threshold == pytest.approx(threshold)
    assert (point.sensitivity, point.specificity) == (sensitivity, specificity)
    called = point.predict(SCORES)
    assert called[TRUTH == 1].mean() == sensitivity and 1 - called[TRUTH == 0].mean() == specificity


def test_the_curve_behind_it_is_scikit_learns():
    random = np.random.default_rng(0)
    truth = random.integers(2, size=200)
    scores = np.round(1 / (1 + np.exp(-random.normal(size=200) - truth)), 2)
    false, true, _ = roc_curve(truth, scores)
    point = choose_operating_point(binary(scores), truth)
    assert point.sensitivity + point.specificity - 1 == pytest.approx((true - false).max())
    for wish in (0.3, 0.9, 0.95):
        point = choose_operating_point(binary(scores), truth, sensitivity=wish)
        assert point.specificity == pytest.approx(1 - false[true >= wish].min())


def test_ties_at_the_ends_still_allow_every_sensitivity_and_specificity():
    scores, truth = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 1, 0, 1])
    assert choose_operating_point(binary(scores), truth, sensitivity=1).predict(scores).all()
    none = choose_operating_point(binary(scores), truth, specificity=1)
    assert not none.predict(scores).any() and np.isfinite(none.threshold)
    constant = np.full(4, 0.5)
    point = choose_operating_point(binary(constant), truth)
    assert (point.sensitivity, point.specificity) == (1, 0)


def test_neighbouring_floats_are_told_apart():
    scores = np.array([0.5, np.nextafter(0.5, 1)])
    point = choose_operating_point(binary(scores), np.array([0, 1]))
    assert (point.sensitivity, point.specificity) == (1, 1) and point.predict(scores).tolist() == [False, True]


def test_one_class_of_many_is_named_and_set_against_the_rest():
    p = np.array([[0.2, 0.7, 0.1], [0.6, 0.2, 0.2], [0.3, 0.3, 0.4]])
    point = choose_operating_point(p, np.array([1, 0, 2]), positive="tumour", class_names=["none", "tumour", "other"])
    assert point.positive == 1 and point.threshold == pytest.approx(0.5)
    two, labels = one_against_rest(p, np.array([1, 0, 2]), 1)
    assert two[:, 1].tolist() == [0.7, 0.2, 0.3] and labels.tolist() == [1, 0, 0]
    assert two.sum(axis=1) == pytest.approx(1)


def test_what_cannot_be_chosen_is_said_plainly():
    with pytest.raises(InputError, match="No class is named 'x'; class_names: a, b"):
        choose_operating_point(binary(SCORES), TRUTH, positive="x", class_names=["a", "b"])
    with pytest.raises(InputError, match="There is no class 2: the predictions have 2"):
        choose_operating_point(binary(SCORES), TRUTH, positive=2)
    with pytest.raises(InputError, match="0 of the 8 validation images are of class 1"):
        choose_operating_point(binary(SCORES), 0 * TRUTH)
    with pytest.raises(InputError, match="8 of the 8 validation images are of class yes"):
        choose_operating_point(binary(SCORES), 0 * TRUTH + 1, class_names=["no", "yes"])
    with pytest.raises(InputError, match="not both"):
        choose_operating_point(binary(SCORES), TRUTH, sensitivity=0.9, specificity=0.9)
    with pytest.raises(InputError, match="above 0 and up to 1"):
        choose_operating_point(binary(SCORES), TRUTH, sensitivity=90)
    with pytest.raises(InputError, match="found {'sensitivity': '0.9'}"):
        choose_operating_point(binary(SCORES), TRUTH, sensitivity="0.9")
    with pytest.raises(InputError, match="check the data set and multi_label"):
        choose_operating_point(binary(SCORES), np.eye(2)[TRUTH])
    assert OperatingPoint(0.5, 1, "", 1, 1, 1, 1).predict([0.5]).tolist() == [True]


def test_a_point_says_on_how_many_images_of_the_class_it_rests():
    point = choose_operating_point(binary(SCORES), TRUTH)
    assert (point.images, point.positives) == (len(TRUTH), int(TRUTH.sum()))


def fifty(patients: int = 0):
    """50 images of the class whose probabilities rise from 0.01 to 0.5, and 50 of the rest below 0.4."""
    scores = np.r_[np.arange(1, 51) / 100, np.arange(50) / 125]
    truth = np.arange(100) < 50
    # the images of the lowest probabilities are of the same patients, or not
    units = np.r_[np.arange(50) // (50 // patients if patients else 1), 100 + np.arange(50)]
    return scores, truth.astype(int), [f"p{one}" for one in units]


def test_with_confidence_as_many_may_be_missed_as_the_binomial_allows():
    scores, truth, _ = fifty()
    point = choose_operating_point(binary(scores), truth, sensitivity=0.9, confidence=0.95)
    # of Bin(50, 0.1) 0.5 % are 0 and 3.4 % are 0 or 1, but 11.2 % are 2 or less: one may be missed
    assert point.sensitivity == 0.98 and point.confidence == 0.95
    assert scores[truth == 1][0] < point.threshold <= scores[truth == 1][1]
    assert point.rule == "sensitivity of at least 0.9 with 95% confidence"
    plain = choose_operating_point(binary(scores), truth, sensitivity=0.9)
    assert plain.sensitivity == 0.9 and plain.confidence is None
    assert plain.rule == "sensitivity of at least 0.9 on the validation images"
    # 43 % are 4 or less, 62 % are 5 or less
    assert choose_operating_point(binary(scores), truth, sensitivity=0.9, confidence=0.5).sensitivity == 0.92
    turned = choose_operating_point(binary(1 - scores), 1 - truth, specificity=0.9, confidence=0.95)
    assert turned.specificity == 0.98 and turned.rule == "specificity of at least 0.9 with 95% confidence"


def test_images_of_one_patient_that_are_missed_together_count_for_less():
    scores, truth, patients = fifty(25)  # two images of each, of neighbouring probabilities
    point = choose_operating_point(binary(scores), truth, sensitivity=0.8, confidence=0.95, patients=patients)
    # the plain rule misses 10 of 50, those of 5 of 25 patients: a design effect of 2 * (25 / 24) / (50 / 49)
    worth = int(50 / (2 * 25 / 24 * 49 / 50))
    assert worth == 24
    # of Bin(24, 0.2) 3.3 % are 0 or 1, 11.5 % are 2 or less: a 24th of 50 images may be missed, 2
    assert point.sensitivity == 0.96
    assert choose_operating_point(binary(scores), truth, sensitivity=0.8, confidence=0.95).sensitivity == 0.9


def test_where_confidence_cannot_be_had_the_number_that_is_needed_is_said():
    scores, truth, patients = fifty(25)  # the plain rule misses 5: both of two patients, one of a third
    asked = {"sensitivity": 0.9, "confidence": 0.95}
    with pytest.raises(InputError, match="The 50 validation images count as 27 independent ones.* 29 are needed"):
        choose_operating_point(binary(scores), truth, patients=patients, **asked)
    assert too_few(truth == 1, scores=scores, patients=patients, **asked) == (
        "50 validation images of it, which count as 27 independent ones, and 50 of the rest are too few for a "
        "sensitivity of 0.9 with 95% confidence (29 and 5 needed)"
    )
    assert too_few(np.arange(50) < 28, **asked).endswith("with 95% confidence (29 and 5 needed)")
    assert not too_few(np.arange(50) < 29, **asked) and not too_few(truth == 1, scores=scores, **asked)
    assert too_few(truth == 1, sensitivity=1, confidence=0.95).endswith("(no number is enough)")
    with pytest.raises(InputError, match="infinitely many are needed"):
        choose_operating_point(binary(scores), truth, sensitivity=1, confidence=0.95)
    assert too_few(np.arange(50) < 0, scores=np.ones(50), patients=["p"] * 50, **asked).startswith("0 validation")
    for wrong in ({"confidence": 0.95}, {"sensitivity": 0.9, "confidence": 1}, {"sensitivity": 0.9, "confidence": 0.1}):
        with pytest.raises(InputError, match="Expected a confidence of at least 0.5 and below 1"):
            choose_operating_point(binary(scores), truth, **wrong)


def test_thresholds_with_confidence_seldom_miss_the_sensitivity_in_truth_and_plain_ones_every_second_time():
    below = {None: 0, 0.95: 0}
    for case in range(300):
        scores = np.random.default_rng(case).random(100)  # the true sensitivity of a threshold is 1 - it
        truth = np.arange(100) < 80
        for confidence in below:
            point = choose_operating_point(binary(scores), truth.astype(int), sensitivity=0.9, confidence=confidence)
            below[confidence] += 1 - point.threshold < 0.9
    assert 120 < below[None] < 180 and below[0.95] <= 22  # 15 are expected at most, and up to 22 in 97 % of the times


@pytest.mark.parametrize("sensitivity", [0.5, 0.8, 0.9, 0.95])
def test_a_sensitivity_needs_as_many_images_as_its_share_of_misses_can_be_told_on(sensitivity):
    fewest = next(n for n in range(1, 1000) if not too_few(np.arange(n + 20) < n, sensitivity=sensitivity))
    assert fewest == max({0.5: 1, 0.8: 4, 0.9: 9, 0.95: 19}[sensitivity], FEWEST)
    # the sensitivity on new images of the lowest threshold that n images give, on average over draws: n / (n + 1)
    lowest = np.random.default_rng(0).random((4000, fewest)).min(axis=1)
    assert (1 - lowest).mean() > sensitivity - 0.003


def test_too_few_images_of_a_class_or_of_the_rest_are_told():
    three = np.arange(100) < 3
    assert too_few(three, sensitivity=0.9) == (
        "3 validation images of it and 97 of the rest are too few for a sensitivity of 0.9 (9 and 5 needed)"
    )
    assert too_few(three).startswith("3 validation images") and too_few(~three).startswith("97 validation images")
    assert not too_few(np.arange(100) < 5) and too_few(np.arange(100) < 100) and too_few(np.arange(100) < 0)
    assert too_few(np.arange(100) < 50, sensitivity=1)  # nothing makes sure of that
