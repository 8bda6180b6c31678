# SPDX-License-Identifier: Apache-2.0
"""The auxiliary as an exponential moving average (EMA) of the student (Tarvainen & Valpola 2017)."""

from __future__ import annotations

from itertools import zip_longest

import torch
from torch import Tensor, nn

from dual_skd.errors import InputError
from dual_skd.networks.inspect import unwrap


def momentum_at(step: int, final: float, warmup: bool = True) -> float:
    """Returns the momentum of update number ``step``, counted from 0.

    With ``warmup`` it is min(final, (1 + step) / (10 + step)), so that the average forgets its start: after k updates
    the auxiliary's initial weights keep a share of 1 / C(k + 9, 9), that is 10 %, 1.8 %, 0.5 %, ...
    Without it the initial weights keep ``final ** k`` and are halved every ln 2 / (1 - final) updates.
    """
    return min(final, (1 + step) / (10 + step)) if warmup else final


def check_same_architecture(auxiliary: nn.Module, student: nn.Module) -> None:
    """Checks that the EMA of ``student`` can live in ``auxiliary``.

    Raises:
        InputError: names or shapes differ; the message names the first tensor that does.
    """
    tensors = [
        [(name, tuple(tensor.shape)) for name, tensor in unwrap(network).state_dict().items()]
        for network in (auxiliary, student)
    ]
    for found, expected in zip_longest(*tensors, fillvalue=("nothing", None)):
        if found != expected:
            raise InputError(
                f"an EMA auxiliary needs the student's architecture: found {found[0]} {found[1]} in the auxiliary "
                f"where the student has {expected[0]} {expected[1]}; build both with the same options, or use update "
                "'frozen' or 'mutual'."
            )


@torch.no_grad()
def update_auxiliary(auxiliary: nn.Module, student: nn.Module, momentum: float, *, buffers: bool = True) -> None:
    """Moves the auxiliary towards the student, in place: theta_A <- m theta_A + (1 - m) theta_S.

    Floating-point tensors are averaged, integers (``num_batches_tracked``) copied. Both networks have the same
    architecture (:func:`check_same_architecture`) and device; wrappers of DDP and compile are looked through.

    Args:
        auxiliary: network to update.
        student: network to follow.
        momentum: m, the share the auxiliary keeps, in [0, 1].
        buffers: whether buffers follow too. False where the auxiliary gathers normalisation statistics of its own.
    """
    auxiliary, student = unwrap(auxiliary), unwrap(student)
    pairs: list[tuple[Tensor, Tensor]] = list(zip(auxiliary.parameters(), student.parameters(), strict=True))
    if buffers:
        pairs += zip(auxiliary.buffers(), student.buffers(), strict=True)
    for kept, followed in pairs:
        if not kept.is_floating_point():
            kept.copy_(followed)
    averaged = [pair for pair in pairs if pair[0].is_floating_point()]
    if averaged:  # one fused pass; a loop costs as much as a small network
        torch._foreach_lerp_([kept for kept, _ in averaged], [followed for _, followed in averaged], 1.0 - momentum)
