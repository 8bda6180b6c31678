# SPDX-License-Identifier: Apache-2.0
"""Where a network computes."""

from __future__ import annotations

import os

import torch
from torch import nn

from dual_skd.errors import InputError


def pick_device(wanted: str | torch.device = "auto") -> torch.device:
    """Returns the device to compute on.

    Args:
        wanted: ``auto`` takes CUDA where there is one (the one of LOCAL_RANK under torchrun), else the CPU. Any other
            word is a torch device and has to exist.

    Raises:
        InputError: the device isn't there, or the word isn't a device.
    """
    if str(wanted) == "auto":
        there = torch.cuda.is_available()
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if there else torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise InputError(f"Unknown device {wanted!r}; give auto, cpu, cuda or cuda:0.") from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise InputError(
                f"Device {str(wanted)!r} was asked for, but PyTorch sees {found or 'no'} CUDA device(s); "
                "use --device auto or cpu, or install a CUDA build of PyTorch and its driver."
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"Device {str(wanted)!r} was asked for, but there is none; use --device auto or cpu.")
    return device


def to_device(network: nn.Module, device: str | torch.device) -> nn.Module:
    """Moves a network to where it computes, its convolutions in the layout with channels last, faster on CPUs.

    The results are the same up to rounding.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            layout = torch.channels_last if isinstance(module, nn.Conv2d) else torch.channels_last_3d
            module.to(memory_format=layout)
    return network.to(device)
