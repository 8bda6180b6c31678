# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from dual_skd.errors import InputError
from dual_skd.metrics.recalibration import (
    SMALLEST,
    Recalibration,
    fit_logistic,
    fit_recalibration,
    log_probabilities,
    patients_for_the_fit,
    too_few_patients,
)


def drawn(images=600, classes=3, *, slope=0.5, bias=(0.0, 1.0, -1.0), seed=0):
    """Probabilities, and labels that are drawn after a slope and a bias: those to be found."""
    random = np.random.default_rng(seed)
    log_p = log_softmax(2 * random.normal(size=(images, classes)), axis=1)
    true = softmax(slope * log_p + np.array(bias[:classes]), axis=1)
    return np.exp(log_p), (random.random(images)[:, None] > true.cumsum(axis=1)).sum(axis=1)


def nll(p, labels):
    return -np.log(p[np.arange(len(labels)), labels]).mean()


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("slope", [True, False])
def test_the_fit_is_the_minimum_that_a_general_optimiser_finds(classes, slope):
    p, labels = drawn(classes=classes)

    def loss(at):
        z = (at[-1] if slope else 1.0) * np.log(p) + np.append(0, at[: classes - 1])
        return -log_softmax(z, axis=1)[np.arange(len(p)), labels].mean()

    start = np.append(np.zeros(classes - 1), np.ones(int(slope)))
    expected = minimize(loss, start, method="BFGS", options={"gtol": 1e-9}).x
    found = fit_recalibration(p, labels, slope=slope)
    np.testing.assert_allclose(found.intercepts[1:], expected[: classes - 1], atol=1e-5)
    assert found.intercepts[0] == 0 and found.slopes == (found.slopes[0],) * classes
    assert found.slopes[0] == (pytest.approx(expected[-1], abs=1e-5) if slope else 1)
    assert nll(found(p), labels) < nll(p, labels)


def test_what_labels_were_drawn_with_is_found_and_the_mean_risk_is_then_the_share_of_each_class():
    p, labels = drawn(20000)
    found = fit_recalibration(p, labels)
    np.testing.assert_allclose(found.intercepts, [0, 1, -1], atol=0.1)
    assert found.slopes[0] == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(found(p).mean(axis=0), np.bincount(labels) / len(labels), atol=1e-9)


def test_of_two_classes_it_is_the_logistic_recalibration_of_the_risk():
    p, labels = drawn(classes=2)
    found = fit_recalibration(p, labels)
    logit = np.log(p[:, 1] / p[:, 0])
    np.testing.assert_allclose(found(p)[:, 1], 1 / (1 + np.exp(-(found.slopes[0] * logit + found.intercepts[1]))))
    # and each of several labels has the same numbers by itself
    labels_of = np.stack([labels, 1 - labels], axis=1)
    each = fit_recalibration(p[:, ::-1], labels_of, multi_label=True)
    assert each.slopes == pytest.approx((found.slopes[0],) * 2)
    assert each.intercepts == pytest.approx((found.intercepts[1], -found.intercepts[1]))
    np.testing.assert_allclose(each(p[:, ::-1], multi_label=True), found(p)[:, ::-1], rtol=1e-6)


def test_the_covariance_holds_images_of_a_patient_together():
    p, labels = drawn(300)
    one = fit_logistic(np.log(p), labels, np.arange(300), slope=True)
    log_p, twice = np.log(np.repeat(p, 2, axis=0)), np.repeat(labels, 2)
    by_patient = fit_logistic(log_p, twice, np.repeat(np.arange(300), 2), slope=True)
    by_image = fit_logistic(log_p, twice, np.arange(600), slope=True)
    np.testing.assert_allclose(by_patient.covariance / one.covariance, (599 / 597) * (297 / 299), rtol=1e-9)
    assert (np.diag(by_image.covariance) < 0.6 * np.diag(one.covariance)).all()


def test_a_probability_of_0_counts_as_a_small_one():
    assert np.exp(log_probabilities(np.array([0.0, 0.5, 1e-9]))) == pytest.approx([1e-9, 0.5, 1e-9])
    assert np.exp(log_probabilities(np.array([0.0, 1.0]))) == pytest.approx([5e-7, 1.0])
    p, labels = drawn()
    p[0] = [0, 0, 1]
    assert np.isfinite(fit_recalibration(p, labels)(p)).all()


def test_it_is_refused_in_words_where_the_images_can_not_tell():
    p, labels = drawn(60, classes=2)
    few = np.where(np.arange(60) < 7, 1, 0)
    with pytest.raises(
        InputError, match="No recalibration: of those to fit on 7 patients with ill, at least 10 are needed; give more"
    ):
        fit_recalibration(p, few, class_names=["well", "ill"])
    with pytest.raises(InputError, match="3 patients with 0, at least 10"):
        fit_recalibration(p, labels, [str(place % 3) for place in range(60)])
    apart = np.stack([1 - np.linspace(0.1, 0.9, 60), np.linspace(0.1, 0.9, 60)], axis=1)
    with pytest.raises(InputError, match="tell these images apart without an error, or are the same .* intercept"):
        fit_recalibration(apart, (np.arange(60) >= 30).astype(int), slope=True)
    assert fit_recalibration(apart, (np.arange(60) >= 30).astype(int), slope=False).intercepts[1] == pytest.approx(0)
    with pytest.raises(InputError, match="or are the same for all of them"):
        fit_recalibration(np.full((60, 2), 0.5), labels)
    with pytest.raises(InputError, match="slope of 0, 1 would be -.*check the labels and class_map"):
        fit_recalibration(p[:, ::-1], labels)


def test_a_label_with_too_few_patients_stays_as_it_is_and_one_without_any_other_is_refused():
    p, labels = drawn(200, classes=2)
    both = np.stack([labels, np.arange(200) < 4, np.full(200, 1)], axis=1).astype(int)
    risks = np.stack([p[:, 1], p[:, 0], p[:, 1]], axis=1)
    found = fit_recalibration(risks, both, class_names=["a", "b", "c"], multi_label=True)
    assert found.intercepts[1:] == (0, 0) and found.slopes[1:] == (1, 1) and found.slopes[0] != 1
    assert found.notes == ("4 patients with b, at least 10 are needed", "0 patients without c, at least 10 are needed")
    np.testing.assert_allclose(found(risks, multi_label=True)[:, 1:], risks[:, 1:], atol=1e-9)
    with pytest.raises(InputError, match="No recalibration: of those to fit on 4 patients with b"):
        fit_recalibration(risks[:, 1:], both[:, 1:], class_names=["b", "c"], multi_label=True)
    flat = np.stack([p[:, 1], np.full(200, 0.3)], axis=1)
    found = fit_recalibration(flat, np.stack([labels, labels], axis=1), class_names=["a", "b"], multi_label=True)
    assert found.slopes[1] == 1 and found.notes[0].startswith("No slope can be fitted for b")


def test_probabilities_of_0_and_1_that_are_right_end_without_a_maximum():
    labels, units = np.arange(30) % 3, np.arange(30)
    assert fit_logistic(np.log(np.eye(3)[labels] * (1 - 2e-300) + 1e-300), labels, units, slope=True) is None
    sure = log_probabilities(np.eye(3)[labels])
    assert fit_logistic(sure, labels, units, slope=True) is None
    assert fit_logistic(sure, labels, units, slope=False) is not None
    rather_sure = np.log(softmax(np.eye(3)[labels], axis=1))  # here the likelihood grows with every step
    assert fit_logistic(rather_sure, labels, units, slope=True) is None
    assert fit_logistic(1000 * (np.eye(3)[labels] - 1), labels, units, slope=False) is None  # 0 in double precision


def test_whole_patients_are_drawn_a_share_of_those_of_each_class():
    units = np.repeat(np.arange(120), 3)
    ill = np.repeat(np.arange(120) < 30, 3)
    truth = np.stack([~ill, ill], axis=1)
    truth[::6, 0] = True  # images of ill patients may show what the others have, too
    chosen = patients_for_the_fit(truth, units, 1 / 3, seed=3)
    by_patient = chosen.reshape(120, 3)
    assert (by_patient.all(axis=1) == by_patient.any(axis=1)).all()
    assert by_patient[:30, 0].sum() == 10 and by_patient[30:, 0].sum() == 30
    assert (patients_for_the_fit(truth, units, 1 / 3, seed=3) == chosen).all()
    assert (patients_for_the_fit(truth, units, 1 / 3, seed=4) != chosen).any()
    none = patients_for_the_fit(np.zeros((40, 2), dtype=bool), np.arange(40), 0.25, seed=0)
    assert none.sum() == 10


def test_patients_on_both_sides_count_on_both():
    truth = np.array([[1, 0], [0, 1]] * 10, dtype=bool)
    assert too_few_patients(truth, np.repeat(np.arange(10), 2), ["a", "b"]) == []
    assert too_few_patients(truth, np.repeat(np.arange(5), 4), ["a", "b"])[0].startswith("5 patients with a")


def test_the_numbers_are_plain():
    fitted = Recalibration((0.0, 1.0), (2.0, 2.0))
    np.testing.assert_allclose(fitted(np.array([[0.5, 0.5]])), softmax([[0.0, 1.0]], axis=1))


def test_hard_answers_have_the_slope_of_their_table_of_two_rows():
    # 469 called well, 11 of them ill; 31 called ill, 1 of them really: two cells, so the slope has a closed form.
    # Newton's method from a slope of 1 went to 2.4e13 here.
    called = np.repeat([0.0, 1.0], [469, 31])
    ill = np.r_[np.zeros(458), np.ones(11), np.zeros(30), np.ones(1)].astype(int)
    found = fit_recalibration(np.stack([1 - called, called], axis=1), ill)
    assert found.slopes[1] == pytest.approx((np.log(1 / 30) - np.log(11 / 458)) / (2 * -np.log(SMALLEST)), rel=1e-6)
    assert found(np.array([[0.0, 1.0]]))[0, 1] == pytest.approx(1 / 31)
