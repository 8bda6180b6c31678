# SPDX-License-Identifier: Apache-2.0
"""Looks into a network: the module inside wrappers, its classifier and features, its size and cost."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from dual_skd.errors import InputError


def unwrap(network: nn.Module) -> nn.Module:
    """Returns the module inside ``torch.compile``, DataParallel and DistributedDataParallel, however nested."""
    while True:
        if isinstance(network, DataParallel | DistributedDataParallel):
            network = network.module
        elif isinstance(inside := getattr(network, "_orig_mod", None), nn.Module):
            network = inside
        else:
            return network


def classifier_of(network: nn.Module) -> tuple[str, nn.Linear]:
    """Returns the name and the layer that gives the logits.

    Raises:
        InputError: the network doesn't end in one linear layer.
    """
    network = unwrap(network)
    if callable(classifier := getattr(network, "get_classifier", None)):
        found = classifier()
        named = [(name, module) for name, module in network.named_modules() if module is found]
    else:
        named = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1:]
    if not named or not isinstance(named[0][1], nn.Linear):
        raise InputError(
            f"{type(network).__name__} doesn't end in one linear layer, so its features can't be separated from its "
            "logits; use another network, for instance tf_efficientnet_lite2."
        )
    return named[0]


def penultimate(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Runs the network once and returns what enters its classifier too.

    Args:
        network: a classifier of :func:`build_network`, wrapped or not.
        x: images (N, C, H, W[, D]).

    Returns:
        logits (N, K) and features (N, F), both with gradient.
    """
    caught: list[Tensor] = []
    _, classifier = classifier_of(network)
    handle = classifier.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    try:
        logits = network(x)
    finally:
        handle.remove()
    return logits, caught[-1]


def count_parameters(network: nn.Module) -> int:
    """Number of parameters; buffers, such as normalisation statistics, aren't counted."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-accumulate operations of matrix products and convolutions for one image.

    Args:
        network: works on the meta device as well, then nothing is computed.
        input_shape: (C, H, W[, D]), without the batch.
    """
    parameter = next(network.parameters())
    training, learning = network.training, [each for each in network.parameters() if each.requires_grad]
    network.eval()
    for each in learning:
        each.requires_grad_(False)  # else PyTorch's counter asks for gradients of those that enter a layer as its input
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, *input_shape, device=parameter.device, dtype=parameter.dtype))
    finally:
        network.train(training)
        for each in learning:
            each.requires_grad_(True)
    return counter.get_total_flops() // 2  # PyTorch counts a multiplication and an addition as two
