# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dual_skd.errors import InputError
from dual_skd.training.label_free import LabelFreeHeads, LabelFreeTask
from dual_skd.training.schedule import Schedule
from dual_skd.training.task import Batch, DualModelTask

SCHEDULE = Schedule(1, label_free_epochs=1, momentum=0.75, momentum_warmup=False)


def make(images: int = 4) -> tuple[LabelFreeTask, list[torch.Tensor]]:
    """The task, and two views of the images."""
    torch.manual_seed(0)
    student, auxiliary = (nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)) for _ in range(2))
    task = DualModelTask(student, F.cross_entropy, auxiliary, schedule=SCHEDULE)
    return LabelFreeTask(task, LabelFreeHeads(5, 8, 6)), [torch.randn(images, 7) for _ in range(2)]


def loss_of(task: LabelFreeTask, view_1: torch.Tensor, view_2: torch.Tensor) -> torch.Tensor:
    now = task.at(0, 1)
    batch = Batch(view_1, infer=lambda network: network(view_1), another_view=lambda: view_2)
    return task.loss(task.predict(batch, now), torch.zeros(len(view_1)), now)["loss"]


def test_the_loss_is_byols_formula_with_both_directions():
    task, views = make()
    f_s, f_a, g, q, g_a = copy.deepcopy(
        (task.student[0], task.auxiliary[0], task.heads.projector, task.heads.predictor, task.heads.auxiliary_projector)
    )
    cosines = [F.cosine_similarity(q(g(f_s(a))), g_a(f_a(b)), dim=1).mean() for a, b in (views, views[::-1])]
    assert torch.allclose(loss_of(task, *views), 4 - 2 * sum(cosines), atol=1e-6)


def test_the_students_side_learns_and_the_auxiliarys_side_gets_no_gradient():
    task, views = make()
    loss_of(task, *views).backward()
    for part, learns in (
        (task.student[0], True),
        (task.student[1], False),  # the classifier
        (task.heads.projector, True),
        (task.heads.predictor, True),
        (task.auxiliary, False),
        (task.heads.auxiliary_projector, False),
    ):
        assert all((parameter.grad is not None) == learns for parameter in part.parameters())


def test_the_auxiliarys_projector_starts_equal_and_follows_by_ema():
    task, _ = make()
    start = task.heads.projector[0].weight.detach().clone()
    assert torch.equal(task.heads.auxiliary_projector[0].weight, start)
    with torch.no_grad():
        task.heads.projector[0].weight += 1
    task.after_step(task.at(0, 1))
    assert torch.allclose(task.heads.auxiliary_projector[0].weight, start + 0.25)


def test_a_batch_of_one_image_is_refused_with_the_remedy():
    task, views = make(images=1)
    with pytest.raises(InputError, match="drop_last"):
        loss_of(task, *views)
