# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from dual_skd.training.losses import SelfDistillationLoss
from dual_skd.training.schedule import Schedule, ScheduleValues
from dual_skd.training.task import Batch, DualModelTask
from dual_skd.training.trainer import DualModelTrainer

IMAGE, LABEL = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1])
NOW = ScheduleValues("skd", skd_weight=0.5, momentum=0.75)
BATCH = Batch(IMAGE, infer=lambda network: network(IMAGE), another_view=lambda: IMAGE)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 3))


def make(cls=DualModelTask, **options) -> DualModelTask:
    return cls(network(0), cross_entropy, network(1), schedule=Schedule(2, ramp_up=0.0), **options)


def test_the_task_is_usable_in_a_loop_of_ones_own():
    task = make(distillation=SelfDistillationLoss(3.0))
    start = task.auxiliary[1].weight.clone()
    optimizer = torch.optim.SGD(task.student.parameters(), lr=0.1)
    output = task.predict(BATCH, NOW)
    parts = task.loss(output, LABEL, NOW)
    z_student, z_auxiliary = network(0)(IMAGE), network(1)(IMAGE)
    loss_skd = SelfDistillationLoss(3.0)(z_student, z_auxiliary)
    assert torch.equal(parts["loss"], cross_entropy(z_student, LABEL) + 0.5 * loss_skd)
    assert torch.equal(parts["loss_skd"], loss_skd) and not parts["loss_skd"].requires_grad
    assert (parts["skd_weight"], parts["momentum"]) == (0.5, 0.75)
    parts["loss"].backward()
    optimizer.step()
    task.after_step(NOW)
    expected = 0.75 * start + 0.25 * task.student[1].weight
    assert torch.allclose(task.auxiliary[1].weight, expected)


class FeatureTask(DualModelTask):
    def predict(self, batch, now):
        with torch.no_grad():
            wanted = self.auxiliary[:3](batch.image)
        features = self.student[:3](batch.image)
        return {"pred": self.student[3:](features), "features": features, "wanted": wanted}

    def distill(self, output):
        return mse_loss(output["features"], output["wanted"])


@pytest.mark.parametrize("update", ["ema", "frozen"])
def test_another_method_is_a_subclass(update):
    task = make(FeatureTask, update=update)
    student, auxiliary = network(0), network(1)
    trainer = DualModelTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=[{"image": IMAGE, "label": LABEL}] * 2,
        optimizer=torch.optim.SGD(task.student.parameters(), lr=0.1),
        task=task,
        decollate=False,
    )
    trainer.run()
    output = trainer.state.output
    assert output["loss_skd"].item() == mse_loss(output["features"], output["wanted"]).item() > 0
    assert output["features"].shape == (4, 5)

    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)  # the same by hand
    for step in range(4):
        momentum = Schedule(2).at(step, 2).momentum
        loss = cross_entropy(student(IMAGE), LABEL) + mse_loss(student[:3](IMAGE), auxiliary[:3](IMAGE).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if update == "ema":
            for kept, followed in zip(auxiliary.parameters(), student.parameters(), strict=True):
                kept.data.lerp_(followed.data, 1 - momentum)
    for one, other in ((student, task.student), (auxiliary, task.auxiliary)):
        for expected, found in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.allclose(expected, found, atol=1e-6)
