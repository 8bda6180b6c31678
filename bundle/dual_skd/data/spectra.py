# SPDX-License-Identifier: Apache-2.0
"""Power spectra of images, and images with the spectrum of another one."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

RINGS = 9  # of frequencies, from 0 to half a cycle per pixel
MAX_GAIN = 4.0  # of an amplitude: otherwise the noise of an image without detail would be amplified


def power_spectra(images: Tensor) -> Tensor:
    """Mean power at each of ``RINGS`` spatial frequencies, over all directions and channels.

    The image's mean is left out. Images fade out towards the border (Hann window), as opposite edges don't match.

    Args:
        images: (N, C, H, W[, D]), float32 or float64.

    Returns:
        (N, RINGS), of the images' type.
    """
    size = tuple(images.shape[2:])
    axes = list(range(2, images.ndim))
    images = images - images.mean(dim=axes, keepdim=True)
    for axis in axes:
        window = torch.hann_window(images.shape[axis] + 2, periodic=False)[1:-1].to(images)
        images = images * window.reshape(-1, *[1] * (images.ndim - 1 - axis))
    power = torch.fft.rfftn(images, dim=axes).abs().square().mean(dim=1).flatten(1)
    rings = _rings(size).to(power)
    return power @ rings / rings.sum(dim=0).clamp(min=1e-6)  # below 16 pixels some rings are empty


def mix_spectra(images: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
    """Moves the power spectrum of images towards that of their partners; phases and means stay.

    The amplitude at the frequency f is multiplied by (P_partner(f) / P_image(f))^(share / 2), where P is the mean power
    over all directions. So the picture stays, but its ratio of coarse to fine structure becomes that of another one.
    Xu et al. 2021 (FACT) mix each direction separately, which shows the partner's edges as ghosts.

    Args:
        images: (N, C, H, W[, D]), floating point.
        partners: indices (N,) into the images.
        shares: (N,), 0 leaves an image as it is, 1 gives it the spectrum of its partner.

    Returns:
        A tensor of the images' shape and type.
    """
    size, axes = tuple(images.shape[2:]), list(range(2, images.ndim))
    exact = images if images.dtype == torch.float64 else images.float()
    power = power_spectra(exact)
    level = (power + 1e-12).log()
    gain = (level[partners] - level) * shares.to(level).reshape(-1, 1) / 2
    gain = gain.clamp(-math.log(MAX_GAIN), math.log(MAX_GAIN)) @ _rings(size).to(level).T
    gain[:, 0] = 0  # the mean
    waves = torch.fft.rfftn(exact, dim=axes)
    waves = waves * gain.exp().reshape(len(images), 1, *waves.shape[2:])
    return torch.fft.irfftn(waves, s=size, dim=axes).to(images.dtype)


@lru_cache(maxsize=4)
def _rings(size: tuple[int, ...]) -> Tensor:
    """Weight of each frequency of ``rfftn`` in each ring: (frequencies, RINGS), rows add up to 1."""
    along = [torch.fft.fftfreq(extent) for extent in size[:-1]] + [torch.fft.rfftfreq(size[-1])]
    squares = torch.stack(torch.meshgrid(*along, indexing="ij")).square().sum(dim=0)
    place = (squares.sqrt().flatten() * 2).clamp(max=1) * (RINGS - 1)
    return (1 - (place.reshape(-1, 1) - torch.arange(RINGS)).abs()).clamp(min=0)
