# SPDX-License-Identifier: Apache-2.0
"""Images without labels: what each network learns there, and that nothing else changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dual_skd.errors import InputError
from dual_skd.training.losses import SelfDistillationLoss, TeachingLoss
from dual_skd.training.schedule import Schedule, ScheduleValues
from dual_skd.training.task import Batch, DualModelTask, UnlabelledBatch
from dual_skd.training.trainer import DualModelTrainer

GENERATOR = torch.Generator().manual_seed(0)
IMAGE, OTHERS, STRONG = (torch.rand(4, 1, 6, 6, generator=GENERATOR) for _ in range(3))
LABEL = torch.tensor([0, 1, 2, 1])
NOW = ScheduleValues("skd", skd_weight=0.5, momentum=0.75, unlabelled_weight=2.0)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 3))


def batch(learned: torch.Tensor = OTHERS) -> Batch:
    unlabelled = UnlabelledBatch(OTHERS, lambda n: n(OTHERS), learned, lambda n: n(learned))
    return Batch(IMAGE, lambda n: n(IMAGE), lambda: IMAGE, unlabelled)


def task_of(update: str, **options) -> DualModelTask:
    student, auxiliary = network(0), None if update == "none" else network(1)
    optimizer = torch.optim.SGD(auxiliary.parameters(), lr=0.1) if update == "mutual" else None
    return DualModelTask(
        student, cross_entropy, auxiliary, update=update, schedule=Schedule(2, ramp_up=0.0, unlabelled_weight=2.0),
        auxiliary_optimizer=optimizer, **options,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ the loss


def test_the_hard_loss_is_the_cross_entropy_with_the_teachers_class():
    learner = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])  # probabilities 1/4, 3/4 and 1/2, 1/2
    teacher = torch.tensor([[5.0, 0.0], [0.0, 1.0]])  # classes 0 and 1
    assert float(TeachingLoss()(learner, teacher)) == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_images_that_the_teacher_doubts_count_nothing_in_the_mean_over_all():
    learner, teacher = torch.zeros(2, 2), torch.tensor([[math.log(9), 0.0], [math.log(4), 0.0]])  # 0.9 and 0.8
    assert float(TeachingLoss(confidence=0.85)(learner, teacher)) == pytest.approx(math.log(2) / 2)
    assert float(TeachingLoss(confidence=0.95)(learner, teacher)) == 0


def test_the_soft_loss_is_that_of_distillation_image_by_image():
    learner, teacher = torch.randn(5, 3, generator=GENERATOR), 3 * torch.randn(5, 3, generator=GENERATOR)
    for multi_label in (False, True):
        soft = TeachingLoss("soft", distillation=SelfDistillationLoss(4.0, multi_label))(learner, teacher)
        assert float(soft) == pytest.approx(float(SelfDistillationLoss(4.0, multi_label)(learner, teacher)), rel=1e-5)
    sure = teacher.softmax(1).amax(1) >= 0.7
    assert 0 < sure.sum() < 5
    expected = SelfDistillationLoss(4.0)(learner[sure], teacher[sure]) * sure.sum() / 5
    found = TeachingLoss("soft", distillation=SelfDistillationLoss(4.0), confidence=0.7)(learner, teacher)
    assert float(found) == pytest.approx(expected.item(), rel=1e-5)


def test_with_several_labels_every_class_has_its_own_answer_and_confidence():
    learner, teacher = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[math.log(9), -math.log(3)]])  # 0.9 and 0.25
    both = math.log(2) + math.log(4)  # yes at 1/2, no at 3/4
    several = SelfDistillationLoss(multi_label=True)
    assert float(TeachingLoss(distillation=several)(learner, teacher)) == pytest.approx(both)
    sure = TeachingLoss(distillation=several, confidence=0.8)
    assert float(sure(learner, teacher)) == pytest.approx(math.log(2))


@pytest.mark.parametrize("form", ["hard", "soft"])
def test_the_gradient_reaches_the_learner_alone_and_is_finite(form):
    learner, teacher = torch.tensor([[1e4, -1e4]], requires_grad=True), torch.tensor([[-1e4, 1e4]], requires_grad=True)
    TeachingLoss(form)(learner, teacher).backward()
    assert teacher.grad is None and learner.grad.isfinite().all() and learner.grad.abs().sum() > 0
    doubted = torch.tensor([[math.inf, 0.0]], requires_grad=True)
    loss = TeachingLoss(form, confidence=0.9)(doubted, torch.zeros(1, 2))
    assert loss.detach() == 0


def test_arguments_out_of_range_are_refused():
    for options, words in (({"form": "mild"}, "hard, soft"), ({"confidence": 1.0}, r"lie in \[0, 1\)")):
        with pytest.raises(InputError, match=words):
            TeachingLoss(**options)
    with pytest.raises(InputError, match="same classes"):
        TeachingLoss()(torch.zeros(1, 2), torch.zeros(1, 3))


# ------------------------------------------------------------------------------------------------------------ the task


@pytest.mark.parametrize("learned", [OTHERS, STRONG], ids=["one view", "two views"])
def test_two_learning_networks_teach_each_other(learned):
    task = task_of("mutual")
    student, auxiliary = network(0), network(1)
    of = task.predict(batch(learned), NOW)
    parts = task.loss(of, LABEL, NOW)
    z_S, z_A, distillation = student(IMAGE), auxiliary(IMAGE), SelfDistillationLoss()
    classes = [n(OTHERS).argmax(1) for n in (student, auxiliary)]
    taught = cross_entropy(student(learned), classes[1])
    expected = cross_entropy(z_S, LABEL) + cross_entropy(z_A, LABEL)
    expected = expected + 0.5 * (distillation(z_S, z_A) + distillation(z_A, z_S))
    expected = expected + 2.0 * (taught + cross_entropy(auxiliary(learned), classes[0]))
    assert parts["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert float(parts["loss_unlabelled"]) == pytest.approx(taught.item(), rel=1e-6)
    assert parts["unlabelled_weight"] == 2.0 and not parts["loss_unlabelled"].requires_grad
    parts["loss"].backward()
    expected.backward()
    for one, other in ((student, task.student), (auxiliary, task.auxiliary)):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, atol=1e-6)


@pytest.mark.parametrize("update", ["ema", "frozen"])
def test_a_teacher_that_does_not_learn_teaches_the_student(update):
    task = task_of(update, teaching=TeachingLoss("soft"))
    parts = task.loss(task.predict(batch(STRONG), NOW), LABEL, NOW)
    expected = SelfDistillationLoss(2.0)(network(0)(STRONG), network(1)(OTHERS))
    assert float(parts["loss_unlabelled"]) == pytest.approx(expected.item(), rel=1e-6)
    parts["loss"].backward()
    assert all(p.grad is None for p in task.auxiliary.parameters())


@pytest.mark.parametrize("learned", [OTHERS, STRONG], ids=["one view", "two views"])
def test_a_single_network_learns_its_own_class(learned):
    task = task_of("none")
    now = task.at(0, 5)
    assert (now.skd_weight, now.unlabelled_weight) == (0.0, 2.0)
    parts = task.loss(task.predict(batch(learned), now), LABEL, now)
    student = network(0)
    expected = cross_entropy(student(learned), student(OTHERS).argmax(1))
    assert float(parts["loss_unlabelled"]) == pytest.approx(expected.item(), rel=1e-6)
    assert parts["loss"].item() == pytest.approx((cross_entropy(student(IMAGE), LABEL) + 2 * expected).item(), rel=1e-6)


def test_without_weight_the_images_are_not_looked_at():
    asked = []
    images = UnlabelledBatch(OTHERS, asked.append, OTHERS, asked.append)
    for update in ("mutual", "ema", "none"):
        output = task_of(update).predict(
            Batch(IMAGE, lambda n: n(IMAGE), lambda: IMAGE, images), NOW._replace(unlabelled_weight=0.0)
        )
        assert not asked and not [name for name in output if name.startswith("unlabelled")]


def test_the_weight_rises_and_falls_with_that_of_the_distillation():
    schedule = Schedule(10, fine_tune_epochs=2, ramp_up=0.5, skd_weight=3.0, unlabelled_weight=0.5)
    for iteration in (0, 10, 40, 79, 80, 90, 99):
        now = schedule.at(iteration, 10)
        assert now.unlabelled_weight == pytest.approx(now.skd_weight / 6)
    assert Schedule(10).at(50, 10).unlabelled_weight == 0
    with pytest.raises(InputError, match="unlabelled_weight must be 0 or more"):
        Schedule(10, unlabelled_weight=-1.0)


# --------------------------------------------------------------------------------------------------------- the trainer


def trainer_of(task: DualModelTask, data, **options) -> DualModelTrainer:
    optimizer = torch.optim.SGD(task.student.parameters(), lr=0.1)
    return DualModelTrainer(
        device="cpu", max_epochs=2, train_data_loader=data, optimizer=optimizer, task=task, decollate=False, **options
    )


def with_others(others=OTHERS) -> dict:
    return {"image": IMAGE, "label": LABEL, "unlabelled": others.reshape(2, 2, 1, 6, 6)}


def test_the_trainer_trains_as_a_loop_by_hand():
    task = task_of("mutual")
    trainer_of(task, [with_others()] * 3).run()
    student, auxiliary = network(0), network(1)
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.1) for n in (student, auxiliary)]
    distillation = SelfDistillationLoss()
    for _ in range(6):
        z_S, z_A, u_S, u_A = student(IMAGE), auxiliary(IMAGE), student(OTHERS), auxiliary(OTHERS)
        loss = cross_entropy(z_S, LABEL) + cross_entropy(z_A, LABEL) + distillation(z_S, z_A) + distillation(z_A, z_S)
        loss = loss + 2 * (cross_entropy(u_S, u_A.argmax(1)) + cross_entropy(u_A, u_S.argmax(1)))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in ((student, task.student), (auxiliary, task.auxiliary)):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def test_the_learner_may_see_another_view():
    seen = []

    def prepare(shift):
        def view(data, *args, **kwargs):
            seen.append((shift, len(data["image"]), "label" in data))
            return data["image"] + shift, data.get("label")

        return view

    task = task_of("mutual")
    trainer = trainer_of(task, [with_others()], prepare_batch=prepare(0.0), prepare_learned=prepare(1.0))
    trainer.run()
    assert seen[:3] == [(0.0, 4, True), (0.0, 4, False), (1.0, 4, False)]
    assert task.predict(batch(OTHERS + 1.0), NOW).keys() == task.predict(batch(), NOW).keys()
    assert trainer.state.output["loss_unlabelled"].isfinite()


def test_bad_numbers_in_an_image_without_label_stop_the_run_and_name_its_file():
    bad = OTHERS.clone()
    bad[2, 0, 1, 1] = math.nan

    class Data(list):
        labelled = None

    class Images(list):
        data = [{"image": f"u{k}.png"} for k in range(4)]  # noqa: RUF012

    class Loader(list):
        dataset = Data()

    Loader.dataset.unlabelled = Images({"image": image} for image in bad)
    task = task_of("mutual")
    with pytest.raises(InputError, match=r"The input holds NaN .*\(files: u2\.png\)"):
        trainer_of(task, Loader([with_others(bad)])).run()
    assert all(torch.equal(a, b) for a, b in zip(task.student.parameters(), network(0).parameters(), strict=True))


def test_bad_numbers_are_skipped_and_counted():
    bad = torch.full_like(OTHERS, math.inf)
    task = task_of("mutual")
    trainer = trainer_of(task, [with_others(), with_others(bad)], on_bad_number="skip")
    trainer.run()
    assert trainer.skipped == 2 and all(p.isfinite().all() for p in task.student.parameters())
