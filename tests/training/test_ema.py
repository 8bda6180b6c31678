# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from dual_skd.errors import InputError
from dual_skd.networks.inspect import unwrap
from dual_skd.training.ema import check_same_architecture, momentum_at, update_auxiliary


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_momentum_rises_to_its_final_value():
    assert [momentum_at(step, 0.99) for step in (0, 1, 8)] == [0.1, 2 / 11, 0.5]
    assert momentum_at(890, 0.99) == 0.99 and momentum_at(10**6, 0.99) == 0.99
    assert momentum_at(0, 0.99, warmup=False) == 0.99


@pytest.mark.parametrize("updates", [1, 2, 3, 5])
def test_the_share_of_the_initial_weights_left_by_the_warm_up_is_as_documented(updates):
    kept = math.prod(momentum_at(step, 0.99) for step in range(updates))
    assert kept == pytest.approx(1 / math.comb(updates + 9, 9))


def test_one_update_moves_every_float_tensor_and_copies_integers():
    student, auxiliary = net(0), net(1)
    student(torch.randn(8, 3))
    before = copy.deepcopy(auxiliary).state_dict()
    update_auxiliary(auxiliary, student, 0.75)
    for name, value in auxiliary.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, 0.75 * before[name] + 0.25 * student.state_dict()[name])
    assert int(auxiliary[1].num_batches_tracked) == 1


@pytest.mark.parametrize("steps", [1, 10, 50])
def test_updates_towards_a_resting_student_equal_the_closed_form(steps):
    student, auxiliary = net(0), net(1)
    start = auxiliary[0].weight.detach().clone()
    for _ in range(steps):
        update_auxiliary(auxiliary, student, 0.9)
    expected = 0.9**steps * start + (1 - 0.9**steps) * student[0].weight
    assert torch.allclose(auxiliary[0].weight, expected, atol=1e-6)


def test_momentum_1_keeps_and_momentum_0_copies_exactly():
    student, auxiliary = net(0), net(1)
    start = auxiliary[0].weight.detach().clone()
    update_auxiliary(auxiliary, student, 1.0)
    assert torch.equal(auxiliary[0].weight, start)
    update_auxiliary(auxiliary, student, 0.0)
    assert torch.equal(auxiliary[0].weight, student[0].weight)


def test_buffers_can_be_left_alone():
    student, auxiliary = net(0), net(1)
    student(torch.randn(8, 3))
    update_auxiliary(auxiliary, student, 0.5, buffers=False)
    assert torch.equal(auxiliary[1].running_mean, torch.zeros(4))
    assert int(auxiliary[1].num_batches_tracked) == 0


def test_the_student_is_left_alone_and_no_graph_is_built():
    student, auxiliary = net(0), net(1)
    before = copy.deepcopy(student).state_dict()
    update_auxiliary(auxiliary, student, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert auxiliary[0].weight.is_leaf and auxiliary[0].weight.grad_fn is None


def test_wrappers_are_looked_through():
    student, auxiliary = net(0), net(1)
    wrapped = nn.DataParallel(torch.compile(student, backend="eager"))
    assert unwrap(wrapped) is student
    update_auxiliary(torch.compile(auxiliary, backend="eager"), wrapped, 0.0)
    assert torch.equal(auxiliary[0].weight, student[0].weight)


def test_networks_that_differ_are_told_with_layer_and_shapes():
    check_same_architecture(net(0), net(1))
    with pytest.raises(InputError, match=r"0.weight \(5, 3\).*0.weight \(4, 3\).*frozen"):
        check_same_architecture(nn.Sequential(nn.Linear(3, 5)), net())
    with pytest.raises(InputError, match=r"nothing .*1.weight \(4,\)"):
        check_same_architecture(nn.Sequential(nn.Linear(3, 4)), net())
