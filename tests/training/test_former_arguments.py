# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from dual_skd.errors import InputError
from dual_skd.training.label_free import LabelFreeHeads, LabelFreeTask
from dual_skd.training.schedule import Schedule
from dual_skd.training.task import DualModelTask
from dual_skd.training.trainer import DualModelTrainer

BATCH = {"image": torch.rand(4, 1, 8, 8), "label": torch.tensor([0, 1, 0, 1])}


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


def trainer(parameters, **options) -> DualModelTrainer:
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    data = [BATCH] * 3
    return DualModelTrainer(device="cpu", max_epochs=2, train_data_loader=data, optimizer=optimizer, **options)


@pytest.mark.parametrize("label_free_epochs", [0, 1])
def test_the_former_arguments_train_the_same_networks_as_a_task(label_free_epochs):
    trained = []
    schedule = Schedule(2, label_free_epochs=label_free_epochs, ramp_up=0.0)
    for former in (True, False):
        student, auxiliary, heads, loss = network(0), network(1), LabelFreeHeads(5, 8, 4), nn.CrossEntropyLoss()
        parameters = [*student.parameters(), *heads.parameters()]
        if former:
            arguments = {"network": student, "auxiliary": auxiliary, "loss_function": loss, "label_free_heads": heads}
            with pytest.warns(
                FutureWarning, match="task=DualModelTask.* in place of network, loss_function, auxiliary"
            ):
                trainer(parameters, schedule=schedule, **arguments).run()
        else:
            task = DualModelTask(student, loss, auxiliary, schedule=schedule)
            trainer(parameters, task=LabelFreeTask(task, heads) if label_free_epochs else task).run()
        trained.append([*student.state_dict().values(), *auxiliary.state_dict().values()])
    assert all(torch.equal(one, other) for one, other in zip(*trained, strict=True))


def test_without_an_auxiliary_and_a_schedule_they_are_those_of_monai():
    student = network(0)
    with pytest.warns(FutureWarning):
        made = trainer(student.parameters(), network=student, loss_function=nn.CrossEntropyLoss())
    assert made.task.update == "none" and made.network is student


def test_a_task_and_former_arguments_do_not_go_together_and_one_is_needed():
    student = network(0)
    task = DualModelTask(student, nn.CrossEntropyLoss())
    with pytest.raises(InputError, match="distillation, update belong there; give them to DualModelTask, in a config"):
        trainer(student.parameters(), task=task, distillation=nn.MSELoss(), update="none")
    with pytest.raises(InputError, match="the trainer needs a task"):
        trainer(student.parameters(), network=student)
