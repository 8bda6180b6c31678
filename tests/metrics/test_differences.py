# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from dual_skd.errors import InputError
from dual_skd.metrics.delong import delong_test
from dual_skd.metrics.differences import TESTED, paired_tests
from dual_skd.metrics.mcnemar import mcnemar_test
from dual_skd.metrics.weighted import WeightedMetrics

CLASSES = np.arange(3)


def two_methods(seed=0, images=90, classes=3):
    random = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    p = np.exp(random.normal(size=(2, images, classes)) + 1.2 * np.eye(classes)[labels])
    return *(p / p.sum(axis=2, keepdims=True)), labels


def test_the_metrics_are_those_of_each_method_alone():
    one, other, labels = two_methods()
    once = np.ones((1, len(labels)))
    values = [WeightedMetrics(p, labels, TESTED)(once).overall for p in (one, other)]
    for name, found in paired_tests(one, other, labels).items():
        assert (found.one, found.other) == pytest.approx([float(side[name][0]) for side in values])
        assert found.difference == pytest.approx(found.one - found.other)
        assert found.low < found.difference < found.high and not found.reason
        json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_the_accuracy_has_mcnemars_p_value_and_the_interval_of_the_paired_t_test():
    one, other, labels = two_methods(1)
    patients = (np.arange(90) // 3).tolist()
    calls = [p.argmax(axis=1) for p in (one, other)]
    for given in (None, patients):
        found = paired_tests(one, other, labels, patients=given, metrics=["accuracy"])["accuracy"]
        assert found.p == mcnemar_test(*calls, labels, patients=given).p
        apart = (calls[0] == labels).astype(float) - (calls[1] == labels)
        if given is not None:
            apart = apart.reshape(30, 3).mean(axis=1)
        expected = stats.ttest_1samp(apart, 0).confidence_interval()
        assert (found.low, found.high) == pytest.approx(expected)


def test_means_of_many_patients_have_the_p_value_and_the_interval_of_the_paired_t_test():
    one, other, labels = two_methods(2, images=900)
    found = paired_tests(one, other, labels, metrics=["nll"], patients=(np.arange(900) // 3).tolist())["nll"]
    nll = [-np.log(p[np.arange(900), labels]).reshape(300, 3).mean(axis=1) for p in (one, other)]
    expected = stats.ttest_rel(*nll)
    assert found.p == pytest.approx(expected.pvalue, rel=0.05)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()), abs=0.01 * found.high)


def test_the_balanced_accuracy_is_welchs_test_of_the_classes():
    one, other, labels = two_methods(3, images=200, classes=2)
    kept = np.flatnonzero((labels == 0) | (np.arange(200) < 30))  # 100 well, 15 ill
    one, other, labels = one[kept], other[kept], labels[kept]
    found = paired_tests(one, other, labels, metrics=["balanced_accuracy"])["balanced_accuracy"]
    apart = (one.argmax(1) == labels).astype(float) - (other.argmax(1) == labels)
    # half the mean of the well minus half that of the ill with the other sign: Welch's difference of two means
    welch = stats.ttest_ind(apart[labels == 0] / 2, -apart[labels == 1] / 2, equal_var=False)
    assert found.p == pytest.approx(welch.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(welch.confidence_interval()))


def test_two_classes_have_one_area_which_is_delongs():
    one, other, labels = two_methods(4, images=80, classes=2)
    found = paired_tests(one, other, labels, metrics=["macro_auc"])["macro_auc"]
    assert dataclasses.astuple(found)[:-1] == pytest.approx(
        dataclasses.astuple(delong_test(one[:, 1], other[:, 1], labels))[:-1]
    )


def test_equal_methods_differ_by_nothing():
    one, _, labels = two_methods(5)
    for name, found in paired_tests(one, one.copy(), labels).items():
        assert (found.difference, found.p) == (0, 1), name
        assert (found.low, found.high) == ((0, 0) if name in ("nll", "brier") else (None, None))
        assert found.reason == (
            "" if found.low is not None else "no interval: the images leave no variance to estimate"
        )


def test_what_can_not_be_estimated_has_a_reason():
    right, labels = np.eye(3)[CLASSES] * 0.7 + 0.1, CLASSES
    wrong = right[:, [1, 2, 0]]
    found = paired_tests(right, wrong, labels, class_names=["a", "b", "c"])
    assert found["balanced_accuracy"].p is found["macro_auc"].p is None
    assert found["accuracy"].p == pytest.approx(1 / 8) and "no variance" in found["accuracy"].reason
    assert (
        found["nll"].p == pytest.approx(1 / 4) and "fewer than six patients" in found["nll"].reason
    )  # of equal differences
    one, other, labels = (side[[*range(30), 2]] for side in two_methods(6, images=31))
    labels = np.where(labels == 2, np.where(np.arange(31) == 2, 2, 0), labels)
    found = paired_tests(one, other, labels, class_names=["a", "b", "c"])
    assert found["nll"].p is not None and found["f1"].p is not None
    absent = paired_tests(one, other, np.minimum(labels, 1))
    assert absent["macro_auc"].difference is None and "a class is absent" in absent["macro_auc"].reason
    alone = paired_tests(one[:30], other[:30], labels[:30], class_names=["a", "b", "c"])
    for name in ("balanced_accuracy", "macro_auc"):
        assert alone[name].difference is not None and alone[name].p is alone[name].low is None
        assert alone[name].reason == "no interval: only one patient of c"
    equal = np.tile([[0.6, 0.4], [0.7, 0.3]], (6, 1, 1)).transpose(1, 0, 2)
    assert "no variance" in paired_tests(*equal, np.zeros(6, int), metrics=["nll"])["nll"].reason


def test_equal_methods_are_told_apart_one_time_in_twenty_with_ten_images_of_each_patient():
    labels, units = np.repeat(np.arange(2), 250), np.repeat(np.arange(50), 10)
    rejected = dict.fromkeys(TESTED, 0)
    for case in range(80):
        random = np.random.default_rng(case)
        score = random.normal(size=(2, 50))[:, units] + random.normal(size=(2, 500)) + 2 * labels - 1
        p = 1 / (1 + np.exp(-np.stack([-score, score], axis=-1)))
        for name, found in paired_tests(*p, labels, patients=units.tolist()).items():
            rejected[name] += found.p < 0.05
    assert all(count <= 11 for count in rejected.values()), rejected  # 4 expected; of McNemar's test over images 20


def test_what_does_not_belong_together_is_refused():
    one, other, labels = two_methods()
    with pytest.raises(InputError, match="Unknown metrics ece; valid: accuracy"):
        paired_tests(one, other, labels, metrics=["ece"])
    with pytest.raises(InputError, match="sum to 1"):
        paired_tests(one, other / 2, labels)
    with pytest.raises(InputError, match="90 images, but 1 patients"):
        paired_tests(one, other, labels, patients=["a"])
