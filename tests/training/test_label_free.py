# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dual_skd.errors import InputError
from dual_skd.training.label_free import LabelFreeHeads
from dual_skd.training.losses import CosineViewLoss


def setting() -> tuple:
    torch.manual_seed(0)
    return LabelFreeHeads(5, 8, 6), nn.Linear(7, 5), nn.Linear(7, 5), torch.randn(4, 7), torch.randn(4, 7)


def loss_of(heads: LabelFreeHeads, *arguments) -> torch.Tensor:
    return CosineViewLoss()(**heads(*arguments))


def test_the_loss_is_byols_formula_with_both_directions():
    heads, student, auxiliary, v1, v2 = setting()
    g, q, g_a = (copy.deepcopy(part) for part in (heads.projector, heads.predictor, heads.auxiliary_projector))
    cosines = [F.cosine_similarity(q(g(student(a))), g_a(auxiliary(b)), dim=1).mean() for a, b in ((v1, v2), (v2, v1))]
    assert torch.allclose(loss_of(heads, student, auxiliary, v1, v2), 4 - 2 * sum(cosines), atol=1e-6)


def test_the_students_side_learns_and_the_auxiliarys_side_gets_no_gradient():
    heads, student, auxiliary, v1, v2 = setting()
    loss_of(heads, student, auxiliary, v1, v2).backward()
    for part, learns in (
        (student, True),
        (heads.projector, True),
        (heads.predictor, True),
        (auxiliary, False),
        (heads.auxiliary_projector, False),
    ):
        assert all((parameter.grad is not None) == learns for parameter in part.parameters())


def test_the_auxiliarys_projector_starts_equal_and_follows_by_ema():
    heads = setting()[0]
    start = heads.projector[0].weight.detach().clone()
    assert torch.equal(heads.auxiliary_projector[0].weight, start)
    with torch.no_grad():
        heads.projector[0].weight += 1
    heads.update(0.75)
    assert torch.allclose(heads.auxiliary_projector[0].weight, start + 0.25)


def test_a_batch_of_one_image_is_refused_with_the_remedy():
    heads, student, auxiliary, v1, v2 = setting()
    with pytest.raises(InputError, match="drop_last"):
        heads(student, auxiliary, v1[:1], v2[:1])
