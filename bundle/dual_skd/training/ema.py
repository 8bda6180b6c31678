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

    With ``warmup`` it is min(final, (1 + step) / (10 + step)), the usual way to let an average forget its start: after
    k such updates the auxiliary's initial weights keep a share of 1 / C(k + 9, 9), that is 10 %, 1.8 %, 0.5 %, ...
    Without it the initial weights keep ``final ** k`` and are halved every ln 2 / (1 - final) updates.
    """
    return min(final, (1 + step) / (10 + step)) if warmup else final


def check_same_architecture(auxiliary: nn.Module, student: nn.Module) -> None:
    """Checks that the EMA of ``student`` can live in ``auxiliary``.

    Raises:
        InputError: names or shapes differ; the message names the first tensor that does.
    """
    own, other = unwrap(auxiliary).state_dict(), unwrap(student).state_dict()
    for (name, mine), (other_name, theirs) in zip_longest(own.items(), other.items(), fillvalue=("nothing", None)):
        shapes = [None if tensor is None else tuple(tensor.shape) for tensor in (mine, theirs)]
        if name != other_name or shapes[0] != shapes[1]:
            raise InputError(
                f"an EMA auxiliary needs the student's architecture: found {name} {shapes[0]} in the auxiliary where "
                f"the student has {other_name} {shapes[1]}; build both alike, or use update 'frozen' or 'mutual'."
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
    averaged: tuple[list[Tensor], list[Tensor]] = ([], [])
    for mine, theirs in pairs:
        if mine.is_floating_point():
            averaged[0].append(mine)
            averaged[1].append(theirs)
        else:
            mine.copy_(theirs)
    if averaged[0]:
        torch._foreach_lerp_(*averaged, 1.0 - momentum)  # one fused pass; a loop costs as much as a small network
