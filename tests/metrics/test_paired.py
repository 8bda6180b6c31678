# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from dual_skd.errors import InputError
from dual_skd.metrics import classification_metrics
from dual_skd.metrics.definitions import METRICS
from dual_skd.metrics.paired import holm, paired_differences


def predictions(seed: int, images: int = 60, classes: int = 3, sharpness: float = 1.0):
    """Probabilities, and labels that have something to do with them."""
    random = np.random.default_rng(seed)
    labels = np.r_[np.arange(classes), random.integers(classes, size=images - classes)]
    logits = random.normal(size=(images, classes)) + sharpness * np.eye(classes)[labels]
    p = np.exp(2 * logits)
    return p / p.sum(axis=1, keepdims=True), labels


def test_the_difference_is_the_mean_over_seeds_of_the_metrics_differences():
    pairs = [(predictions(seed)[0], predictions(seed + 10)[0]) for seed in range(3)]
    labels = predictions(0)[1]
    one, other = (np.stack(side) for side in zip(*pairs, strict=True))
    found = paired_differences(one, other, labels, resamples=50)

    def measured(p):
        return classification_metrics(torch.from_numpy(np.log(p)), torch.from_numpy(labels))

    for name in METRICS:
        assert found[name].value == pytest.approx(np.mean([measured(a)[name] - measured(b)[name] for a, b in pairs]))


def test_the_interval_of_an_accuracy_difference_is_the_normal_one_of_its_paired_images():
    # of 400 images method one alone is right on 60 and method two alone on 20, in a closed form:
    # difference 0.1, standard error sqrt((60 + 20) / 400 - 0.1 ** 2) / sqrt(400)
    right = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    one = np.concatenate([np.repeat(right[0], 380, axis=0), np.repeat(right[1], 20, axis=0)])
    other = np.concatenate([np.repeat(right[1], 60, axis=0), np.repeat(right[0], 340, axis=0)])
    found = paired_differences(one, other, np.zeros(400, int), metrics=["accuracy"], resamples=4000)["accuracy"]
    error = np.sqrt(80 / 400 - 0.1**2) / np.sqrt(400)
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1 - 1.96 * error, abs=0.005)
    assert found.high == pytest.approx(0.1 + 1.96 * error, abs=0.005)
    assert found.p < 0.005


def test_images_of_one_patient_widen_the_interval_as_fewer_independent_observations_do():
    # 100 patients of 4 identical images each are 100 observations: twice the interval of 400
    random = np.random.default_rng(3)
    hits = np.repeat(random.random((2, 100)) < 0.7, 4, axis=1)
    one, other = (np.where(hit[:, None], [0.8, 0.2], [0.2, 0.8]) for hit in hits)
    labels = np.zeros(400, int)
    names = [f"p{image // 4}" for image in range(400)]
    alone = paired_differences(one, other, labels, metrics=["accuracy"])["accuracy"]
    whole = paired_differences(one, other, labels, metrics=["accuracy"], patients=names)["accuracy"]
    assert (whole.high - whole.low) / (alone.high - alone.low) == pytest.approx(2, rel=0.08)
    unknown = paired_differences(one, other, labels, metrics=["accuracy"], patients=[""] * 400)["accuracy"]
    assert unknown == alone


def test_equal_predictions_differ_by_nothing_with_p_of_one():
    p, labels = predictions(4)
    for difference in paired_differences(p, p.copy(), labels, resamples=200).values():
        assert difference == (0, 0, 0, 1)


def test_a_null_difference_is_rejected_about_one_time_in_twenty():
    rejected = 0
    for case in range(400):
        random = np.random.default_rng(case)
        labels = random.integers(2, size=150)
        score = random.normal(size=(2, 150)) + labels  # two equally good methods
        p = 1 / (1 + np.exp(-np.stack([-score, score], axis=-1)))
        found = paired_differences(p[0], p[1], labels, metrics=["nll"], resamples=300, seed=case)["nll"]
        rejected += found.p < 0.05
    assert 8 <= rejected <= 34  # 20 expected; 0.4 % of such checks would fall outside


def test_seeds_that_disagree_widen_the_interval_of_new_trainings():
    labels = np.tile([0, 1], 200)
    good, coin = np.eye(2)[labels] * 0.8 + 0.1, np.full((400, 2), 0.5)
    one, other = np.stack([good, coin, good, coin]), np.stack([coin, good, coin, coin])
    fixed = paired_differences(one, other, labels, metrics=["macro_auc"])["macro_auc"]
    drawn = paired_differences(one, other, labels, metrics=["macro_auc"], new_trainings=True)["macro_auc"]
    assert fixed.value == drawn.value == pytest.approx(0.125)
    assert fixed.p < 0.01 < drawn.p
    assert drawn.low < 0 < drawn.high


@pytest.mark.parametrize("seeds", [2, 5])
def test_a_null_difference_of_few_seeds_that_vary_is_rejected_one_time_in_twenty(seeds):
    # two methods of equal expectation; each training is worth something else, and that is most of what differs
    labels, rejected, cases = np.tile([0, 1], 50), 0, 300
    for case in range(cases):
        random = np.random.default_rng(case)
        worth = 1.5 + random.normal(size=(2, seeds, 1))
        score = random.normal(size=100) + worth * labels
        p = 1 / (1 + np.exp(-np.stack([-score, score], axis=-1)))
        found = paired_differences(*p, labels, metrics=["nll"], new_trainings=True, resamples=200, seed=case)["nll"]
        rejected += found.p < 0.05
    assert 3 <= rejected <= 25  # 15 expected; with seeds drawn with replacement 60 of five, 155 of two


def test_holm_gives_the_values_computed_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04, and the last may not fall below 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1, 1]
    assert holm([]) == []


def test_a_family_too_large_for_its_resamples_is_refused():
    assert holm([0.001] * 50, resamples=2000) == pytest.approx([0.05] * 50)
    with pytest.raises(InputError, match="for 51 hypotheses, found 2000; take 2040 or more, or test fewer"):
        holm([0.001] * 51, resamples=2000)
    assert holm([0.001] * 51, resamples=2040)[0] == pytest.approx(0.051)
    assert holm([], resamples=1) == []


def test_two_thousand_resamples_of_six_hundred_images_and_five_seeds_take_seconds():
    p = np.stack([predictions(seed, images=600)[0] for seed in range(5)])
    labels = predictions(0, images=600)[1]
    began = time.perf_counter()
    paired_differences(p, p[::-1], labels, metrics=("balanced_accuracy", "macro_auc", "ece", "nll"))
    assert time.perf_counter() - began < 30  # 1 to 3 s on an ordinary core


def test_a_difference_that_many_resamples_leave_undefined_has_no_interval():
    # one image of the third class: 37 % of the resamples miss it
    labels = np.r_[np.arange(29) % 2, 2]
    good = np.eye(3)[labels] * 0.7 + 0.1
    found = paired_differences(good, predictions(1, images=30)[0], labels, metrics=["macro_auc", "accuracy"])
    assert found["macro_auc"].value > 0 and np.isnan(found["macro_auc"][1:]).all()
    assert np.isfinite(found["accuracy"]).all()
    three = np.r_[labels, 2, 2]  # 5 % miss three images
    found = paired_differences(good[[*range(30), 29, 29]], predictions(1, images=32)[0], three, metrics=["macro_auc"])
    assert np.isfinite(found["macro_auc"]).all()


def test_what_does_not_belong_together_is_refused():
    p, labels = predictions(0)
    with pytest.raises(InputError, match="seeds that both methods have"):
        paired_differences(np.stack([p, p]), p, labels)
    with pytest.raises(InputError, match="Unknown metrics auc; valid: accuracy"):
        paired_differences(p, p, labels, metrics=["auc"])
    with pytest.raises(InputError, match="60 images, but 2 patients"):
        paired_differences(p, p, labels, patients=["a", "b"])
    for given, words in (
        ((p * np.nan, p, labels), "from 0 to 1, found others in 60 of 60 images"),
        ((p, p / 2, labels), "sum to 1"),
        ((p, p, labels - 1), "whole numbers from 0 to 2, found -1"),
        ((p, p, np.r_[labels[:-1], 5]), "found 5"),
        ((p, p, np.r_[labels[:-1], 0.5]), "found 0.5"),
        ((p[:0], p[:0], labels[:0]), "at least one"),
    ):
        with pytest.raises(InputError, match=words):
            paired_differences(*given)
    with pytest.raises(InputError, match="a resample or more, found 0"):
        paired_differences(p, p, labels, resamples=0)
