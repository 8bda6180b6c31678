# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dual_skd.errors import InputError
from dual_skd.training.losses import LogitAdjustedLoss, SelfDistillationLoss, classification_loss, view_loss


def logits(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


def test_distillation_equals_a_value_computed_by_hand():
    # T = 2: teacher softmax(ln 3, 0) = (3/4, 1/4), learner (1/2, 1/2); 4 * (3/4 ln 3/2 + 1/4 ln 1/2)
    teacher, learner = torch.tensor([[2 * math.log(3.0), 0.0]]), torch.zeros(1, 2)
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert SelfDistillationLoss(2.0)(learner, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_distillation_is_a_mean_over_images():
    learner, teacher = logits(5, 4), logits(5, 4, seed=1)
    loss = SelfDistillationLoss()
    each = [loss(learner[i : i + 1], teacher[i : i + 1]).item() for i in range(5)]
    assert loss(learner, teacher).item() == pytest.approx(sum(each) / 5, rel=1e-5)


def test_multi_label_distillation_sums_bernoulli_divergences_computed_by_hand():
    # teacher yes-probabilities 3/4 and 1/2 at T = 1, learner 1/2 and 1/2: only the first class diverges
    teacher, learner = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert SelfDistillationLoss(1.0, multi_label=True)(learner, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_multi_label_distillation_agrees_with_torch_distributions():
    learner, teacher = logits(6, 3), logits(6, 3, seed=1)
    p, q = (torch.distributions.Bernoulli(logits=z / 3) for z in (teacher, learner))
    expected = 9 * torch.distributions.kl_divergence(p, q).sum(1).mean()
    assert torch.allclose(SelfDistillationLoss(3.0, multi_label=True)(learner, teacher), expected, atol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_equal_logits_cost_nothing_and_extreme_ones_stay_finite(multi_label):
    loss, z = SelfDistillationLoss(multi_label=multi_label), logits(4, 3)
    assert loss(z, z).item() == pytest.approx(0, abs=1e-7)
    assert torch.isfinite(loss(torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])))


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_gradient_reaches_the_learner_and_not_the_teacher(multi_label):
    learner, teacher = logits(4, 3).requires_grad_(), logits(4, 3, seed=1).requires_grad_()
    SelfDistillationLoss(multi_label=multi_label)(learner, teacher).backward()
    assert teacher.grad is None and learner.grad.abs().sum() > 0


def test_the_gradient_of_soft_targets_hardly_depends_on_the_temperature():
    def gradient(temperature: float) -> torch.Tensor:
        learner = (logits(4, 3) / 100).requires_grad_()
        SelfDistillationLoss(temperature)(learner, logits(4, 3, seed=1) / 100).backward()
        return learner.grad

    assert torch.allclose(gradient(1.0), gradient(20.0), atol=5e-5)


def test_distillation_computes_in_float32_on_half_precision_logits():
    z = logits(4, 3).bfloat16()
    assert SelfDistillationLoss()(z, z.roll(1, 0)).dtype == torch.float32


def test_distillation_refuses_impossible_input():
    with pytest.raises(InputError, match="temperature"):
        SelfDistillationLoss(0.0)
    with pytest.raises(InputError, match=r"\(2, 3\) and \(2, 4\)"):
        SelfDistillationLoss()(torch.zeros(2, 3), torch.zeros(2, 4))


@pytest.mark.parametrize(("target", "expected"), [([1.0, 0.0], 0.0), ([0.0, 1.0], 4.0), ([-1.0, 0.0], 8.0)])
def test_cosine_view_loss_by_hand(target, expected):
    prediction, target = torch.tensor([[3.0, 0.0]]), torch.tensor([target])
    assert view_loss(prediction, target, prediction, target).item() == pytest.approx(expected, abs=1e-6)


def test_view_loss_is_symmetric_and_stops_gradients_at_the_targets():
    q1, t2, q2, t1 = (logits(4, 8, seed=s).requires_grad_() for s in range(4))
    loss = view_loss(q1, t2, q2, t1)
    assert torch.allclose(loss, view_loss(q2, t1, q1, t2))
    loss.backward()
    assert t1.grad is None and t2.grad is None and q1.grad is not None and q2.grad is not None


def test_cross_entropy_is_torchs():
    z, y = logits(6, 3), torch.tensor([0, 1, 2, 1, 0, 0])
    expected = F.cross_entropy(z, y, weight=torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1)
    assert torch.equal(classification_loss("cross_entropy", [1, 2, 3], 0.1)(z, y), expected)


@pytest.mark.parametrize("class_weights", [None, [1.0, 2.0, 3.0]])
def test_focal_loss_equals_its_formula_and_cross_entropy_at_gamma_0(class_weights):
    z, y = logits(6, 3), torch.tensor([0, 1, 2, 1, 0, 0])
    loss = classification_loss("focal", class_weights)
    p = z.softmax(1)[range(6), y]
    w = torch.tensor(class_weights or [1.0, 1.0, 1.0])[y]
    assert torch.allclose(loss(z, y), (w * -((1 - p) ** 2) * p.log()).sum() / w.sum(), atol=1e-6)
    loss.focal.gamma = 0.0
    weight = None if class_weights is None else torch.tensor(class_weights)
    assert torch.allclose(loss(z, y), F.cross_entropy(z, y, weight=weight), atol=1e-6)
    assert torch.equal(loss(z, y[:, None]), loss(z, y))


def test_bce_sums_over_classes_and_smooths_towards_one_half():
    z, y = logits(4, 3), torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    expected = F.binary_cross_entropy_with_logits(z, y.float(), reduction="none").sum(1).mean()
    assert torch.allclose(classification_loss("bce")(z, y), expected)
    smooth = F.binary_cross_entropy_with_logits(z, y * 0.8 + 0.1, reduction="none").sum(1).mean()
    assert torch.allclose(classification_loss("bce", label_smoothing=0.2)(z, y), smooth)


def test_bce_weights_the_positive_term_of_a_class():
    # logit 0: each term is ln 2, the first class counts 3 times
    loss = classification_loss("bce", [3.0, 1.0])(torch.zeros(1, 2), torch.ones(1, 2))
    assert loss.item() == pytest.approx(4 * math.log(2.0))


def test_logit_adjustment_lets_the_frequencies_of_the_classes_explain_a_constant_answer():
    # 3 of 4 images are of class 0: equal logits are then the best constant answer, and have no gradient
    labels, weights = torch.tensor([0, 0, 0, 1]), torch.tensor([4 / 6, 4 / 2])
    z = torch.zeros(4, 2, requires_grad=True)
    loss = LogitAdjustedLoss(classification_loss(), weights)(z, labels)
    loss.backward()
    assert loss.item() == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert torch.allclose(z.grad.sum(0), torch.zeros(2), atol=1e-7)
    half = LogitAdjustedLoss(classification_loss(), weights, 0.5)
    prior = torch.tensor([0.75, 0.25])
    assert half(z, labels).item() == pytest.approx(F.cross_entropy(z + 0.5 * prior.log(), labels).item())


def test_logit_adjustment_of_several_labels_is_the_logit_of_each_frequency():
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    weights = torch.tensor([1 / 3, 3.0])  # absent / present
    adjusted = LogitAdjustedLoss(classification_loss("bce"), weights)
    expected = F.binary_cross_entropy_with_logits(torch.logit(labels.mean(0)).expand(4, 2), labels) * 2
    assert adjusted(torch.zeros(4, 2), labels).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "bce"])
def test_frequencies_are_corrected_for_once(name):
    with pytest.raises(InputError, match="class_weights and logit_adjustment both"):
        LogitAdjustedLoss(classification_loss(name, [1.0, 2.0]), [1.0, 2.0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "hinge"}, "cross_entropy, focal, bce"),
        ({"name": "focal", "label_smoothing": 0.1}, "no label smoothing"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"class_weights": [1.0, -1.0]}, "class_weights"),
        ({"multi_label": True}, "'cross_entropy' doesn't fit images of several labels each; use bce"),
        ({"name": "focal", "multi_label": True}, "'focal' doesn't fit"),
        ({"name": "bce", "multi_label": False}, "'bce' doesn't fit images of one label each; use cross_entropy or"),
    ],
)
def test_unknown_losses_and_options_are_told_in_one_sentence(options, words):
    with pytest.raises(InputError, match=words):
        classification_loss(**options)
