# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from dual_skd.errors import InputError
from dual_skd.metrics import area_under_roc, calibration_error, classification_metrics, mean_logits


def random_case(seed: int, classes: int, images: int = 60):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    labels[:classes] = torch.arange(classes)
    return 2 * torch.randn(images, classes, generator=generator, dtype=torch.float64), labels


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_metrics_agree_with_scikit_learn_and_torchmetrics(classes, seed):
    logits, labels = random_case(seed, classes)
    p, y, predicted = logits.softmax(1).numpy(), labels.numpy(), logits.argmax(1).numpy()
    ours = classification_metrics(logits, labels)
    one_hot = np.eye(classes)[y]
    auc = np.mean([reference.roc_auc_score(one_hot[:, k], p[:, k]) for k in range(classes)])
    ece = multiclass_calibration_error(logits.softmax(1), labels, classes, n_bins=15).item()
    assert ours.pop("ece") == pytest.approx(ece, abs=1e-6)  # torchmetrics computes in float32
    assert ours == pytest.approx(
        {
            "accuracy": reference.accuracy_score(y, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(y, predicted),
            "macro_auc": auc,
            "f1": reference.f1_score(y, predicted, average="macro"),
            "nll": reference.log_loss(y, p),
            "brier": reference.brier_score_loss(y, p[:, 1]) if classes == 2 else ((p - one_hot) ** 2).sum(1).mean(),
        },
        abs=1e-12,
    )


def test_multi_label_metrics_agree_with_scikit_learn_and_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(2, (50, 3), generator=generator).double()
    p, y, predicted = logits.sigmoid().numpy(), labels.numpy(), (logits > 0).double().numpy()
    ours = classification_metrics(logits, labels, multi_label=True)
    columns = range(3)
    wanted = {
        "accuracy": (y == predicted).mean(),
        "balanced_accuracy": np.mean([reference.balanced_accuracy_score(y[:, k], predicted[:, k]) for k in columns]),
        "macro_auc": reference.roc_auc_score(y, p, average="macro"),
        "f1": reference.f1_score(y, predicted, average="macro"),
        "nll": np.mean([reference.log_loss(y[:, k], p[:, k]) for k in columns]),
        "brier": np.mean([reference.brier_score_loss(y[:, k], p[:, k]) for k in columns]),
    }
    # torchmetrics' binary form asks how well p(yes) is calibrated, ours how well the confidence in the prediction is.
    confidence = torch.maximum(logits.sigmoid(), 1 - logits.sigmoid()).flatten()
    hits = torch.as_tensor(y == predicted).flatten()
    ece = binary_calibration_error(confidence, hits.int(), n_bins=15).item()
    assert ours.pop("ece") == pytest.approx(ece, abs=1e-6)  # torchmetrics computes in float32
    assert ours == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_area_under_roc_counts_ties_as_half(pairs):
    scores = torch.tensor([float(score) for score, _ in pairs])
    positive = torch.tensor([float(label) for _, label in pairs])
    if positive.unique().numel() < 2:
        assert area_under_roc(scores, positive) is None
    else:
        assert area_under_roc(scores, positive) == pytest.approx(reference.roc_auc_score(positive, scores))


def test_auc_of_a_class_without_images_is_none_and_the_rest_is_there():
    found = classification_metrics(torch.tensor([[2.0, 0, 0], [0, 2.0, 0]]), torch.tensor([0, 1]))
    assert found["macro_auc"] is None
    assert found["accuracy"] == found["balanced_accuracy"] == 1
    assert found["f1"] == 1  # of the two that are there or predicted


def test_a_class_that_is_predicted_but_not_there_has_an_f1_of_nothing():
    found = classification_metrics(torch.tensor([[2.0, 0, 0, 0], [0, 0, 2.0, 0]]), torch.tensor([0, 1]))
    assert found["f1"] == pytest.approx((1 + 0 + 0) / 3)  # the fourth class is neither
    none = classification_metrics(-torch.ones(2, 3), torch.zeros(2, 3), multi_label=True)
    assert none["f1"] is None and none["accuracy"] == 1


def test_calibration_error_by_hand():
    # Bin of 0.65: confidence 0.65, half right, gap 0.15. Bin of 0.95: all right, gap 0.05. Equal weights.
    confidence = torch.tensor([0.65, 0.65, 0.95, 0.95], dtype=torch.float64)
    assert calibration_error(confidence, torch.tensor([1.0, 0, 1, 1])) == pytest.approx(0.10)


def test_certain_and_right_has_no_loss():
    found = classification_metrics(torch.tensor([[500.0, -500], [-500, 500.0]]), torch.tensor([0, 1]))
    assert found["ece"] == found["nll"] == found["brier"] == 0
    assert found["macro_auc"] == 1


@pytest.mark.parametrize("multi_label", [False, True])
def test_mean_logits_give_the_mean_probability(multi_label):
    one, other = torch.randn(2, 20, 4, dtype=torch.float64) * 5
    squash = torch.sigmoid if multi_label else lambda z: z.softmax(1)
    mean = mean_logits(one, other, multi_label=multi_label)
    torch.testing.assert_close(squash(mean), (squash(one) + squash(other)) / 2)
    assert mean_logits(1000 * one, 1000 * other, multi_label=multi_label).isfinite().all()


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), "whole numbers from 0 to 2, found 3; check class_names"),
        (torch.tensor([[float("nan"), 0]]), torch.tensor([0]), "1 of 1 predictions are not finite"),
        (torch.zeros(2, 3), torch.zeros(3), r"found \(2, 3\) and labels \(3,\)"),
        (torch.zeros(0, 3), torch.zeros(0), "at least one image"),
    ],
)
def test_what_cannot_be_measured_is_said_plainly(logits, labels, words):
    with pytest.raises(InputError, match=words):
        classification_metrics(logits, labels)
