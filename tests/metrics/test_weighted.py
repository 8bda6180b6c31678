# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from dual_skd.errors import InputError
from dual_skd.metrics import classification_metrics
from dual_skd.metrics.definitions import CLASS_METRICS, METRICS, OVERALL_METRICS
from dual_skd.metrics.reliability_diagram import reliability
from dual_skd.metrics.weighted import WeightedMetrics

ALL = tuple(dict.fromkeys(OVERALL_METRICS + CLASS_METRICS))


def predictions(seed: int, images: int = 60, classes: int = 3, digits: int = 12):
    """Probabilities, with ties when few digits are kept, and labels that have something to do with them."""
    random = np.random.default_rng(seed)
    labels = np.r_[np.arange(classes), random.integers(classes, size=images - classes)]
    p = np.exp(2 * random.normal(size=(images, classes)) + 2 * np.eye(classes)[labels])
    p = p / p.sum(axis=1, keepdims=True)
    if classes == 2:
        p[:, 1] = np.round(p[:, 1], digits)
        p[:, 0] = 1 - p[:, 1]
    return np.round(p, digits), labels


def test_a_weight_is_a_number_of_copies_of_the_image():
    p, labels = predictions(1)
    counts = np.random.default_rng(2).integers(0, 4, size=len(p))
    counts[:3] = 1  # every class is there
    ours = WeightedMetrics(p, labels)(counts[None].astype(float)).overall
    chosen = np.repeat(np.arange(len(p)), counts)
    wanted = classification_metrics(torch.from_numpy(np.log(p[chosen])), torch.from_numpy(labels[chosen]))
    assert {name: values.item() for name, values in ours.items()} == pytest.approx(wanted, abs=1e-12)


def test_classes_that_were_not_drawn_leave_auc_undefined_and_balanced_accuracy_to_the_others():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    values = WeightedMetrics(p, np.array([0, 0, 1]))(np.array([[1.0, 1.0, 0.0], [2.0, 0.0, 1.0]])).overall
    assert np.isnan(values["macro_auc"][0]) and values["macro_auc"][1] == 1
    assert values["balanced_accuracy"].tolist() == [0.5, 1.0]
    assert values["f1"] == pytest.approx([(2 / 3 + 0) / 2, 1.0])


def test_equal_scores_count_half_in_the_area_under_the_curve():
    # class 1 scores 0.7, 0.5 against 0.5, 0.5, 0.1: of 6 pairs 4 are won, 2 tied; with the first image twice 7 of 9
    score = np.array([0.7, 0.5, 0.5, 0.5, 0.1])
    p = np.stack([1 - score, score], axis=1)
    weights = np.array([[1.0, 1, 1, 1, 1], [2.0, 1, 1, 1, 1]])
    areas = WeightedMetrics(p, np.array([1, 1, 0, 0, 0]), ["macro_auc"])(weights).overall["macro_auc"]
    assert areas == pytest.approx([(4 + 1) / 6, (7 + 1) / 9])


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("digits", [1, 12])
def test_the_metrics_of_each_class_are_scikit_learns_and_a_weight_is_a_sample_weight(classes, digits):
    p, labels = predictions(3, classes=classes, digits=digits)
    weights = np.random.default_rng(4).integers(0, 4, size=(3, len(p))).astype(float)
    weights[:, :classes] = 1  # every class is there
    ours = WeightedMetrics(p, labels, ALL)(weights)
    assert set(ours.per_class) == set(CLASS_METRICS) and set(ours.overall) == set(OVERALL_METRICS)
    predicted = p.argmax(axis=1)
    for row, weight in enumerate(weights):
        for k in range(classes):
            there, called, side = labels == k, predicted == k, {"sample_weight": weight}
            sensitivity = reference.recall_score(there, called, **side)
            specificity = reference.recall_score(~there, ~called, **side)
            wanted = {
                "sensitivity": sensitivity,
                "specificity": specificity,
                "ppv": reference.precision_score(there, called, **side),
                "npv": reference.precision_score(~there, ~called, **side),
                "f1": reference.f1_score(there, called, **side),
                "harmonic_mean": 2 / (1 / sensitivity + 1 / specificity),
                "auc": reference.roc_auc_score(there, p[:, k], **side),
                "average_precision": reference.average_precision_score(there, p[:, k], **side),
            }
            assert {name: values[row, k] for name, values in ours.per_class.items()} == pytest.approx(wanted)
    for name, of_classes in (("macro_auc", "auc"), ("average_precision", "average_precision"), ("f1", "f1")):
        assert ours.overall[name] == pytest.approx(ours.per_class[of_classes].mean(axis=1))


def test_two_classes_that_are_not_mirror_images_after_rounding_are_ranked_each_by_itself():
    # 1e-20 and 1e-21 differ, 1 minus either doesn't
    second = np.array([1e-20, 1e-21, 0.5, 0.7])
    p, labels = np.stack([1 - second, second], axis=1), np.array([1, 0, 1, 0])
    areas = WeightedMetrics(p, labels, ["auc"])(np.ones((1, 4))).per_class["auc"][0]
    assert areas.tolist() == [(0.5 + 0 + 1 + 0) / 4, (1 + 0 + 1 + 0) / 4]


def test_several_labels_per_image_are_measured_from_probabilities_as_from_logits():
    random = np.random.default_rng(5)
    logits, labels = random.normal(size=(50, 3)), random.integers(2, size=(50, 3))
    p = 1 / (1 + np.exp(-logits))
    ours = WeightedMetrics(p, labels, ALL, multi_label=True)(np.ones((1, 50)))
    wanted = classification_metrics(torch.from_numpy(logits), torch.from_numpy(labels), multi_label=True)
    assert {name: ours.overall[name].item() for name in METRICS} == pytest.approx(wanted)
    for k in range(3):
        found = {name: values[0, k] for name, values in ours.per_class.items()}
        assert found["ppv"] == pytest.approx(reference.precision_score(labels[:, k], p[:, k] > 0.5))
        assert found["average_precision"] == pytest.approx(reference.average_precision_score(labels[:, k], p[:, k]))
    counts = random.integers(1, 4, size=50)
    again = WeightedMetrics(p, labels, METRICS, multi_label=True)(counts[None].astype(float)).overall
    chosen = np.repeat(np.arange(50), counts)
    wanted = classification_metrics(torch.tensor(logits[chosen]), torch.tensor(labels[chosen]), multi_label=True)
    assert {name: values.item() for name, values in again.items()} == pytest.approx(wanted)


def test_equal_mass_calibration_error_adds_up_the_gaps_of_the_reliability_diagram():
    p, labels = predictions(6, images=200)
    confidence, hits = p.max(axis=1), (p.argmax(axis=1) == labels).astype(float)
    bins = reliability(confidence, hits, equal_mass=True)
    wanted = sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / 200
    found = WeightedMetrics(p, labels, ["ece_equal_mass"])(np.ones((1, 200))).overall["ece_equal_mass"]
    assert found.item() == pytest.approx(wanted)


def test_a_given_prediction_replaces_the_most_probable_class_but_not_the_confidence():
    p, labels = predictions(7, classes=2)
    usual = WeightedMetrics(p, labels, ALL)(np.ones((1, 60))).overall
    found = WeightedMetrics(p, labels, ALL, predicted=np.ones(60, int))(np.ones((1, 60)))
    assert found.overall["accuracy"].item() == pytest.approx(labels.mean())
    assert found.per_class["sensitivity"][0].tolist() == [0, 1] and np.isnan(found.per_class["ppv"][0, 0])
    assert {name: found.overall[name] for name in ("ece", "nll", "macro_auc")} == {
        name: usual[name] for name in ("ece", "nll", "macro_auc")
    }


def test_what_is_undefined_is_nan_for_a_class_without_images_or_without_counter_examples():
    p = np.array([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0]])
    found = WeightedMetrics(p, np.array([0, 0]), ALL)(np.ones((1, 2)))
    undefined = {name: np.isnan(values[0]).tolist() for name, values in found.per_class.items()}
    assert undefined["sensitivity"] == [False, True, True] and undefined["specificity"] == [True, False, False]
    assert undefined["auc"] == undefined["average_precision"] == undefined["harmonic_mean"] == [True, True, True]
    assert undefined["ppv"] == [False, True, True] and undefined["npv"] == [True, False, False]
    assert undefined["f1"] == [False, True, True]
    assert np.isnan(found.overall["macro_auc"]) and found.overall["accuracy"] == found.overall["f1"] == 1
    rows = np.array([[1.0, 0, 0], [0, 0, 1.0]])  # the third class is not there, but predicted
    assert WeightedMetrics(rows, np.array([0, 0]), ALL)(np.ones((1, 2))).overall["f1"] == pytest.approx((2 / 3 + 0) / 2)
    nothing = WeightedMetrics(np.zeros((2, 3)), np.zeros((2, 3), int), ["f1"], multi_label=True)(np.ones((1, 2)))
    assert np.isnan(nothing.overall["f1"])


def test_an_unknown_metric_is_named_with_the_valid_ones():
    p, labels = predictions(0)
    with pytest.raises(InputError, match="Unknown metrics recall; valid: accuracy.*harmonic_mean"):
        WeightedMetrics(p, labels, ["accuracy", "recall"])
