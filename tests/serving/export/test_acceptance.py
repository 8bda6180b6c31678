# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from dual_skd.serving.export.acceptance import compare_logits

LOGITS = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
LABELS = torch.tensor([0, 0, 1, 1])


def test_equal_logits_pass_in_every_precision():
    found = compare_logits(LOGITS, LOGITS.clone(), LABELS)
    assert (found.images, found.max_difference, found.auc_drop, found.changed) == (4, 0.0, 0.0, 0.0)
    assert found.refusal(reduced=False) == found.refusal(reduced=True) == ""


def test_differences_are_of_calibrated_probabilities():
    other = LOGITS + torch.tensor([1.0, 0.0])
    hot, cold = (compare_logits(LOGITS, other, LABELS, temperature=t).max_difference for t in (1.0, 4.0))
    sigmoid = torch.sigmoid(torch.tensor([0.0, 1.0], dtype=torch.float64))  # of the margins -1 and 1 the largest step
    assert hot == pytest.approx((sigmoid[1] - sigmoid[0]).item())
    assert cold == pytest.approx((torch.sigmoid(torch.tensor(0.0)) - torch.sigmoid(torch.tensor(-0.25))).item())


def test_full_precision_is_refused_from_one_probability_in_a_hundred_thousand_on():
    nudged = LOGITS.clone()
    nudged[1, 0] += 1e-4  # p (1 - p) = 0.1966 times as much in the probability
    found = compare_logits(LOGITS, nudged, LABELS)
    assert found.max_difference == pytest.approx(1.966e-5, rel=1e-3)
    assert found.refusal(reduced=False) == "a probability differs by 2e-05, more than 1e-05"
    assert found.refusal(reduced=True) == ""


def test_reduced_precision_is_refused_with_both_numbers():
    swapped = LOGITS.clone()
    swapped[1], swapped[2] = LOGITS[2], LOGITS[1]  # one of four pairs stands the wrong way round, two decisions change
    found = compare_logits(LOGITS, swapped, LABELS)
    assert found.auc == 0.75 and found.auc_reference == 1.0 and found.changed == 0.5
    assert found.refusal(reduced=True) == (
        "AUC falls from 1.0000 to 0.7500, by more than 0.002; 2 of 4 decisions change (50.00%), more than 0.5%"
    )


def test_one_changed_decision_of_two_hundred_is_the_limit():
    logits = torch.tensor([[0.1, 0.0]]).repeat(200, 1)
    labels = torch.zeros(200, dtype=torch.long)
    other = logits.clone()
    other[0, 1] = 0.2
    assert compare_logits(logits, other, labels).refusal(reduced=True) == ""  # AUC isn't defined with one class
    other[1, 1] = 0.2
    assert compare_logits(logits, other, labels).refusal(reduced=True).startswith("2 of 200 decisions change (1.00%)")


def test_with_several_labels_each_has_a_threshold_of_its_own():
    logits = torch.tensor([[1.0, -1.0, 0.5], [-1.0, 1.0, 0.5]])
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    other = logits.clone()
    other[0, 2] = -0.1
    found = compare_logits(logits, other, labels, multi_label=True)
    assert found.changed == 0.5
    assert found.max_difference == pytest.approx(torch.sigmoid(torch.tensor(0.5)) - torch.sigmoid(torch.tensor(-0.1)))


@pytest.mark.parametrize("wrong", [LOGITS * float("nan"), LOGITS[:, :1], LOGITS[:3]])
@pytest.mark.parametrize("reduced", [False, True])
def test_no_numbers_or_other_shapes_are_refused(wrong, reduced):
    assert compare_logits(LOGITS, wrong, LABELS).refusal(reduced=reduced)
