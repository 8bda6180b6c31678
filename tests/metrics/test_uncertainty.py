# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import beta, entropy

from dual_skd.errors import InputError
from dual_skd.metrics import uncertainty
from dual_skd.metrics.uncertainty import (
    Conformal,
    decisions,
    decompose_entropy,
    disagreement,
    fit_conformal,
    prediction_sets,
    predictive_entropy,
    risk_coverage,
    set_coverage,
)


def predictions(n: int, classes: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), n)


def drawn(n: int, seed: int, sharper: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident probabilities and labels of another, flatter distribution: coverage may not rest on calibration."""
    generator = np.random.default_rng(seed)
    true = generator.dirichlet(np.full(4, 0.7), n)
    labels = (generator.random((n, 1)) > true.cumsum(axis=1)).sum(axis=1).clip(max=3)
    p = true**sharper
    return p / p.sum(axis=1, keepdims=True), labels


def test_entropy_is_a_share_of_that_of_equal_probabilities():
    p = predictions(20)
    assert predictive_entropy(p) == pytest.approx(entropy(p, axis=1) / math.log(4))
    assert predictive_entropy([[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]]) == pytest.approx([0, 1, math.log(2, 3)])
    assert predictive_entropy([[1.0]]).tolist() == [0]


def test_entropy_of_several_labels_is_the_mean_of_their_bits():
    found = predictive_entropy([[0.5, 1.0], [0.25, 0.75]], multi_label=True)
    assert found == pytest.approx([0.5, entropy([0.25, 0.75], base=2)])


def test_total_entropy_is_that_within_and_that_between_the_networks():
    one, other, third = (predictions(30, seed=seed) for seed in range(3))
    found = decompose_entropy([one, other, third])
    assert found.total == pytest.approx(entropy((one + other + third) / 3, axis=1))
    assert found.total == pytest.approx(found.expected + found.disagreement)
    assert (found.disagreement >= 0).all() and (found.disagreement <= math.log(3)).all()
    assert decompose_entropy([one, one]).disagreement == pytest.approx(np.zeros(30), abs=1e-12)


def test_disagreement_is_the_jensen_shannon_divergence_in_bits():
    one, other = predictions(30), predictions(30, seed=1)
    wanted = [jensenshannon(a, b, base=2) ** 2 for a, b in zip(one, other, strict=True)]
    assert disagreement(one, other) == pytest.approx(wanted)
    assert disagreement(one, other) == pytest.approx(disagreement(other, one))
    assert disagreement([[1, 0], [0.5, 0.5]], [[0, 1], [0.5, 0.5]]) == pytest.approx([1, 0])
    found = disagreement([[1.0, 0.3]], [[0.0, 0.3]], multi_label=True)
    assert found == pytest.approx([0.5])


@pytest.mark.parametrize("arguments", [{"method": "lac"}, {"method": "aps"}, {"method": "aps", "randomised": False}])
@pytest.mark.parametrize("alpha", [0.1, 0.25])
def test_sets_of_new_images_cover_the_stated_share_on_average(arguments, alpha):
    n, found, sizes = 39, [], []
    for seed in range(200):
        p, labels = drawn(n + 200, seed)
        rule = fit_conformal(p[:n], labels[:n], alpha=alpha, seed=seed, **arguments)
        sets = prediction_sets(p[n:], rule, seed=seed + 1000)
        counted = set_coverage(sets, labels[n:])
        found.append(counted["coverage"])
        sizes.append(counted["mean_size"])
    # Between 1 - alpha and 1 - alpha + 1/(n + 1) over calibration sets (Lei et al. 2018), and here n + 1 = 40 makes the
    # lower limit exact; the mean of 200 has a standard error below 0.005. Sets that are never empty add a little.
    mean = np.mean(found)
    assert 1 - alpha - 0.012 < mean < 1 - alpha + 1 / 40 + 0.03
    assert 1.2 < np.mean(sizes) < 3.5  # of 4 classes


def test_the_threshold_is_the_finite_sample_quantile():
    p = np.array([[x, 1 - x] for x in np.linspace(0.05, 0.95, 19)])
    rule = fit_conformal(p, np.zeros(19, int), alpha=0.1)
    assert rule.threshold == pytest.approx(1 - 0.1)  # scores 0.05 ... 0.95, the 18th of 19: ceil(20 * 0.9) = 18
    assert rule == Conformal("lac", 0.1, 19, rule.threshold, True)
    sets = prediction_sets([[0.95, 0.05], [0.5, 0.5], [0.0, 1.0]], rule)
    assert sets.tolist() == [[True, False], [True, True], [False, True]]


def test_without_chance_the_probabilities_of_likelier_classes_add_up():
    p = np.array([[0.5, 0.3, 0.2]] * 9)
    rule = fit_conformal(p, np.array([0] * 5 + [1] * 4), alpha=0.2, method="aps", randomised=False)
    assert rule.threshold == pytest.approx(0.8)
    sets = prediction_sets([[0.5, 0.3, 0.2], [0.05, 0.9, 0.05], [0.3, 0.4, 0.3]], rule)
    assert sets.tolist() == [[True, True, False], [False, True, False], [True, True, False]]


def test_chance_is_repeated_by_its_seed():
    p, labels = drawn(100, 0)
    rule = fit_conformal(p, labels, method="aps")
    assert rule == fit_conformal(p, labels, method="aps")
    assert (prediction_sets(p, rule) == prediction_sets(p, rule)).all()
    assert (prediction_sets(p, rule, seed=2) != prediction_sets(p, rule)).any()


def test_too_few_calibration_images_give_full_sets_and_are_said():
    for n in (0, 8):
        p = predictions(n, 3)
        rule = fit_conformal(p, np.zeros(n, int), alpha=0.1)
        assert rule.threshold == math.inf and prediction_sets(predictions(5, 3), rule).all()
        assert f"{n} validation images are too few" in rule.reason and "(9 are needed)" in rule.reason
    enough = fit_conformal(predictions(9, 3), np.zeros(9, int), alpha=0.1)
    assert enough.threshold < math.inf and enough.reason == ""


@pytest.mark.parametrize(("images", "alpha"), [(9, 0.1), (38, 0.1), (100, 0.1), (400, 0.2)])
def test_the_coverage_of_one_calibration_is_distributed_as_beta(images, alpha):
    rank = math.ceil((images + 1) * (1 - alpha) - 1e-9)
    rule = Conformal("lac", alpha, images, 0.5)
    assert rule.least_coverage() == pytest.approx(beta.ppf(0.05, rank, images + 1 - rank), abs=1e-9)
    assert rule.least_coverage(confidence=0.5) == pytest.approx(beta.ppf(0.5, rank, images + 1 - rank), abs=1e-9)
    # the true coverage of a threshold among uniform scores is the threshold: of many calibrations 5 % have less
    true = np.sort(np.random.default_rng(0).random((4000, images)), axis=1)[:, rank - 1]
    assert (true < rule.least_coverage()).mean() == pytest.approx(0.05, abs=0.012)


def test_calibration_images_of_patients_count_for_fewer():
    rule = Conformal("lac", 0.1, 36, 0.5)
    assert rule.least_coverage(9) == pytest.approx(0.05 ** (1 / 9))  # the largest of nine
    assert rule.least_coverage(5) == pytest.approx(0.05 ** (1 / 5))  # the tenth would be asked for
    assert rule.least_coverage(0) == 0
    assert Conformal("lac", 0.1, 8, math.inf).least_coverage() == 1  # every set is full


def test_a_set_is_never_empty():
    rule = fit_conformal(np.array([[0.99, 0.01]] * 50), np.zeros(50, int))
    assert prediction_sets([[0.6, 0.4], [0.4, 0.6]], rule).tolist() == [[True, False], [False, True]]


def test_sets_are_counted_by_coverage_size_and_class():
    found = set_coverage([[1, 0, 0], [1, 1, 0], [0, 1, 0]], [0, 1, 0])
    assert found == {
        "coverage": pytest.approx(2 / 3), "mean_size": pytest.approx(4 / 3), "single": pytest.approx(2 / 3),
        "coverage_per_class": [0.5, 1.0, None],
    }  # fmt: skip


def test_what_cannot_be_used_for_sets_is_refused():
    p = predictions(20, 2)
    for arguments, words in (
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"method": "raps"}, "Unknown conformal method 'raps'"),
    ):
        with pytest.raises(InputError, match=words):
            fit_conformal(p, np.zeros(20, int), **arguments)
    with pytest.raises(InputError, match="from 0 to 1, found 2"):
        fit_conformal(p, np.full(20, 2))
    with pytest.raises(InputError, match=r"found \(20, 2\) and labels \(19,\)"):
        fit_conformal(p, np.zeros(19, int))
    for labels, words in (([0, 7], "from 0 to 1, found 7"), ([0, -1], "found -1"), ([0], r"found \(2, 2\) and labels")):
        with pytest.raises(InputError, match=words):
            set_coverage(np.eye(2), labels)
    with pytest.raises(InputError, match="at least one image"):
        set_coverage(np.zeros((0, 2)), [])
    with pytest.raises(InputError, match="sum to 1"):
        fit_conformal(p * 0.9, np.zeros(20, int))
    with pytest.raises(InputError, match="from 0 to 1"):
        predictive_entropy([[-1.0, 2.0]])
    with pytest.raises(InputError, match="same images and classes"):
        disagreement(predictions(3), predictions(4))


def test_what_is_decided_is_the_likeliest_class_or_yes_or_no_to_every_label():
    p = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    confidence, right = decisions(p, np.array([0, 1]), False)
    assert confidence.tolist() == [[0.7], [0.4]] and right.tolist() == [[True], [False]]
    confidence, right = decisions(p, np.array([[1, 0, 1], [0, 0, 0]]), True)
    assert confidence == pytest.approx(np.array([[0.7, 0.8, 0.9], [0.7, 0.7, 0.6]]))
    assert right.tolist() == [[True, True, False], [True, True, True]]


def test_risk_is_the_error_of_the_surest_images():
    curve = risk_coverage([0.4, 0.1, 0.3, 0.2], [1, 0, 1, 0])
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.risk == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert curve.aurc == pytest.approx((1 / 3 + 1 / 2) / 4) and curve.excess == pytest.approx(0)
    worst = risk_coverage([0.1, 0.4, 0.2, 0.3], [1, 0, 1, 0])
    assert worst.risk == pytest.approx([1, 1, 2 / 3, 1 / 2]) and worst.excess == pytest.approx(worst.aurc - curve.aurc)


def test_images_that_are_equally_sure_count_in_random_order():
    generator = np.random.default_rng(0)
    unsure, wrong = np.array([0.1, 0.5, 0.5, 0.5, 0.9]), np.array([0.0, 1.0, 0.0, 0.0, 1.0])
    orders = [np.lexsort((generator.random(5), unsure)) for _ in range(20000)]
    wanted = np.mean([np.cumsum(wrong[order]) / np.arange(1, 6) for order in orders], axis=0)
    assert risk_coverage(unsure, wrong).risk == pytest.approx(wanted, abs=0.01)
    flipped = risk_coverage(unsure[::-1], wrong[::-1])
    assert flipped.aurc == pytest.approx(risk_coverage(unsure, wrong).aurc)
    assert risk_coverage(np.zeros(10), [1, 0] * 5).risk == pytest.approx(np.full(10, 0.5))  # no order at all


def test_a_curve_of_nothing_or_of_no_numbers_is_refused():
    for given in (([], []), ([1.0], [1, 0]), ([float("nan")], [1])):
        with pytest.raises(InputError):
            risk_coverage(*given)


def test_the_examples_are_true():
    assert doctest.testmod(uncertainty).failed == 0
