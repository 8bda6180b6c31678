# SPDX-License-Identifier: Apache-2.0
"""The images that a network may take, where only the network is known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain

from torch import Tensor, nn

SIDES = {2: (64, 96, 128, 160, 192, 224, 256, 32, 16), 3: (32, 48, 64, 96, 16)}  # tried where no size is stated
STATED = ("img_size", "image_size", "input_size")


def likely_inputs(network: nn.Module, image_size: Sequence[int] | None = None) -> Iterator[tuple[int, ...]]:
    """Shapes (C, H, W[, D]) of inputs, the likeliest first; (C,) for a network of linear layers.

    Args:
        network: the network.
        image_size: (H, W[, D]) of the user's images; tried after what the network itself states.
    """
    weights = [value for value in network.parameters() if value.dim() in (4, 5)]
    if not weights:
        yield from ((value.shape[1],) for value in list(network.parameters())[:1] if value.dim() == 2)
    for dims in [max(value.dim() for value in weights) - 2] if weights else (2, 3):
        # the first layer need not be the first that is used
        kernels = [value.shape[1] for value in weights if value.dim() == dims + 2 and math.prod(value.shape[2:]) > 1]
        given = _per_axis(image_size, dims)
        sizes = dict.fromkeys(chain(_stated(network, dims), given, ((side,) * dims for side in SIDES[dims])))
        for channels in dict.fromkeys(chain(kernels[:1], (3, 1))):
            yield from ((channels, *size) for size in sizes)


def _stated(network: nn.Module, dims: int) -> Iterator[tuple[int, ...]]:
    """Sizes that the network's modules, or its description by timm, state."""
    for module in network.modules():
        for name in STATED:
            yield from _per_axis(getattr(module, name, None), dims)
        patches, grid = (list(_per_axis(getattr(module, name, None), dims)) for name in ("patch_size", "grid_size"))
        number = getattr(module, "n_patches", None)  # MONAI's, in place of the grid
        if not grid and isinstance(number, int):
            grid = [(round(number ** (1 / dims)),) * dims]
        if patches and grid:
            yield tuple(patch * count for patch, count in zip(patches[0], grid[0], strict=True))
    size = (getattr(network, "pretrained_cfg", None) or {}).get("input_size") or ()
    yield from _per_axis(size[1:], dims)


def _per_axis(size: object, dims: int) -> Iterator[tuple[int, ...]]:
    if isinstance(size, int):
        yield (size,) * dims
    elif isinstance(size, Sequence) and not isinstance(size, str) and len(size) == dims:
        yield tuple(size)


def tensors_in(output: object) -> Iterator[Tensor]:
    """The tensors of a network's answer, in order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        yield from chain.from_iterable(map(tensors_in, output.values()))
    elif isinstance(output, list | tuple):
        yield from chain.from_iterable(map(tensors_in, output))
