# SPDX-License-Identifier: Apache-2.0
"""Adapting what can't be index-selected: input channels, kernels (2D to 3D, patch size) and position embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dual_skd.selection.parts import NotSelected, Step, by


def channel_steps(old: int, new: int) -> tuple[Step, ...]:
    """The step from one number of input channels to another."""
    if old == new:
        return ()
    how = "summed" if new == 1 else "summed and shared"
    return ((f"input channels {old} -> {new}, {how}", partial(match_input_channels, channels=new)),)


def kernel_steps(old: tuple[int, ...], new: tuple[int, ...], *, patch: bool = False) -> tuple[Step, ...]:
    """The step from one kernel to another; ``patch`` as in :func:`resize_kernel`.

    Raises:
        NotSelected: there is no way from one to the other.
    """
    if old == new:
        return ()
    is_patch = patch and len(old) == 2 and len(new) in (2, 3)
    if not is_patch and resize_kernel(torch.empty(1, 1, *old, device="meta"), new) is None:
        raise NotSelected(f"other kernel: {by(new)} here, {by(old)} in the large network")
    step: Any = partial(resize_kernel, size=new, patch=patch)  # None was ruled out above
    return ((f"kernel {by(old)} -> {by(new)}", step),)


def window_steps(old: int, new: int) -> tuple[Step, ...]:
    """The step from one table of relative positions to that of another window, by their numbers of rows.

    Raises:
        NotSelected: a window isn't square.
    """
    windows = bias_windows(old, new)
    if windows is None:
        raise NotSelected(f"other window: {new} relative positions here, {old} in the large network")
    (old_window, new_window), special = windows
    text = f"relative positions of windows {by((old_window,) * 2)} -> {by((new_window,) * 2)}"
    return ((text, partial(resize_bias_table, window=new_window, special=special)),)


def match_input_channels(weight: Tensor, channels: int) -> Tensor:
    """Adapts a first-layer kernel to another number of input channels.

    The kernels are summed over their old channels and shared equally by the new ones, so a grey image gives the same
    response as it gave when repeated to RGB: RGB -> 1 is the sum, RGB -> n is the sum / n, n times. Not exact for
    layers that standardise their weights (NFNet, the hybrid ViTs with a ResNet stem): each output channel keeps its
    pattern, but the layer then sets the kernel's scale itself.

    Args:
        weight: kernel (O, C, ...).
        channels: new number of input channels.

    Returns:
        Kernel (O, channels, ...).
    """
    if weight.shape[1] == channels:
        return weight
    summed = weight.sum(1, keepdim=True) / channels
    return summed.expand(-1, channels, *weight.shape[2:]).contiguous()


def inflate_kernel(weight: Tensor, depth: int) -> Tensor:
    """Makes a 2D kernel volumetric: repeated along the depth and divided by it (Carreira and Zisserman, 2017).

    The response to a volume that is constant along its depth stays that of the 2D kernel. Depth is the last axis, as in
    MONAI's (N, C, H, W, D).

    Args:
        weight: kernel (O, I, kh, kw).
        depth: size of the new kernel dimension.

    Returns:
        Kernel (O, I, kh, kw, depth).
    """
    return (weight / depth).unsqueeze(-1).expand(*weight.shape, depth).contiguous()


def resize_patch_kernel(weight: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes a patch-embedding kernel so that a resized patch keeps its token.

    Bicubic resizing of the patch is a linear map B; the kernel is multiplied by the pseudo-inverse of B transposed
    (Beyer et al., FlexiViT, 2023), in float32.

    Args:
        weight: kernel (O, I, kh, kw).
        size: new (kh, kw).

    Returns:
        Kernel (O, I, *size), dtype of ``weight``.
    """
    old = tuple(weight.shape[2:])
    size = tuple(size)
    if old == size:
        return weight
    basis = torch.eye(math.prod(old)).reshape(-1, 1, *old)
    resize = F.interpolate(basis, size=size, mode="bicubic", antialias=True, align_corners=False).flatten(1)
    pseudo_inverse = torch.linalg.pinv(resize.double()).float().to(weight.device)  # (new pixels, old pixels)
    flat = weight.float().flatten(2) @ pseudo_inverse.T
    return flat.reshape(*weight.shape[:2], *size).to(weight.dtype)


def resize_kernel(weight: Tensor, size: Sequence[int], *, patch: bool = False) -> Tensor | None:
    """Adapts kernel dimensions, or returns None where no exact or established way exists.

    Handled: equal kernels; a linear layer as a 1x1 convolution and back; 2D to 3D; patch kernels of another size
    (``patch``). A 3x3 and a 7x7 convolution are different layers: None.

    Args:
        weight: weight (O, I, *kernel).
        size: new kernel, any number of dimensions.
        patch: the kernel cuts the image into patches (its stride equals its size).
    """
    old, size = tuple(weight.shape[2:]), tuple(size)
    if old == size:
        return weight
    if math.prod(old) == math.prod(size) == 1:
        return weight.reshape(*weight.shape[:2], *size)
    inflates = len(old) == 2 and len(size) == 3
    plane = size[:2] if inflates else size
    if old != plane:
        if not (patch and len(old) == len(plane) == 2):
            return None
        weight = resize_patch_kernel(weight, plane)
    return inflate_kernel(weight, size[2]) if inflates else weight


def resize_positions(
    positions: Tensor, *, old_grid: Sequence[int], new_grid: Sequence[int], old_prefix: int, new_prefix: int
) -> Tensor:
    """Resamples a position embedding to another grid of tokens.

    2D grids are interpolated bicubically, with antialiasing; a 2D grid for a 3D network is then repeated along the
    depth (an embedding is added, so nothing is divided); 3D grids are interpolated trilinearly. The first
    ``old_prefix`` tokens (class, registers) are kept as they are, cut or filled with zeros to ``new_prefix``.

    Args:
        positions: embedding (1, prefix + product of the grid, C), last grid axis fastest.
        old_grid: (h, w) or (h, w, d).
        new_grid: (h, w) or (h, w, d).
        old_prefix: leading tokens that belong to no position.
        new_prefix: the same in the result.

    Returns:
        Embedding (1, new_prefix + product of ``new_grid``, C), dtype of ``positions``.
    """
    old_grid, new_grid, channels = tuple(old_grid), tuple(new_grid), positions.shape[-1]
    prefix, grid = positions[:, :old_prefix], positions[:, old_prefix:]
    if new_prefix <= old_prefix:
        prefix = prefix[:, :new_prefix]
    else:
        prefix = torch.cat([prefix, prefix.new_zeros(1, new_prefix - old_prefix, channels)], dim=1)
    if old_grid != new_grid:
        image = grid.float().reshape(1, *old_grid, channels).movedim(-1, 1)
        plane = new_grid[:2] if len(old_grid) == 2 else new_grid
        if old_grid != plane:
            bicubic = {"mode": "bicubic", "antialias": True} if len(plane) == 2 else {"mode": "trilinear"}
            image = F.interpolate(image, size=plane, align_corners=False, **bicubic)
        if len(old_grid) < len(new_grid):
            image = image.unsqueeze(-1).expand(*image.shape, new_grid[2])
        grid = image.movedim(1, -1).reshape(1, -1, channels).to(positions.dtype)
    return torch.cat([prefix, grid], dim=1)


def bias_windows(old: int, new: int) -> tuple[tuple[int, int], int] | None:
    """The windows of two tables of relative positions, by their numbers of rows, and the special rows of both.

    A window of w x w tokens has (2 w - 1)^2 relative positions; BEiT has three further rows, for its class token.

    Returns:
        ((old w, new w), special rows), or None where a window isn't square.
    """
    for special in (0, 3):
        grids = guess_grid(old, 2, [special]), guess_grid(new, 2, [special])
        sides = [grid[0][0] for grid in grids if grid is not None]
        if len(sides) == 2 and all(side % 2 for side in sides):
            return ((sides[0] + 1) // 2, (sides[1] + 1) // 2), special
    return None


def resize_bias_table(table: Tensor, *, window: int, special: int) -> Tensor:
    """Resamples a table of relative positions to another square window, bicubically.

    Args:
        table: (rows, heads), the ``special`` rows last.
        window: new window, in tokens.
        special: rows that belong to no relative position; kept as they are.

    Returns:
        Table ((2 ``window`` - 1)^2 + ``special``, heads).
    """
    old = math.isqrt(len(table) - special)
    new = 2 * window - 1
    leading = table.roll(special, 0).unsqueeze(0)
    resized = resize_positions(
        leading, old_grid=(old, old), new_grid=(new, new), old_prefix=special, new_prefix=special
    )
    return resized.squeeze(0).roll(-special, 0)


def guess_grid(tokens: int, spatial_dims: int, prefixes: Sequence[int]) -> tuple[tuple[int, ...], int] | None:
    """The square or cubic grid, and the number of leading tokens, that a position embedding of ``tokens`` has.

    Args:
        tokens: length of the embedding.
        spatial_dims: 2 or 3.
        prefixes: possible numbers of leading tokens, the likeliest first.
    """
    for prefix in prefixes:
        side = round(max(tokens - prefix, 0) ** (1 / spatial_dims))
        if side > 0 and side**spatial_dims == tokens - prefix:
            return (side,) * spatial_dims, prefix
    return None
