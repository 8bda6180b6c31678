# SPDX-License-Identifier: Apache-2.0
"""Corruptions of images in fixed strengths, to measure the robustness of trained models.

In the manner of Hendrycks and Dietterich (Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations, 2019), each corruption has five strengths. Kinds and strengths are our own, for grey medical images.

:func:`corrupt` takes images in [0, 1], the range of the intensity window, at the size of the network's input;
:func:`corrupt_input` takes the network's input itself. So "contrast" is contrast that the scaling of intensities
doesn't correct, and lengths are shares of the picture.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.networks.layers import GaussianFilter
from PIL import Image
from torch import Tensor
from torch.nn import functional

from dual_skd.data.augment import sampling_grid
from dual_skd.errors import InputError

STRENGTHS = (1, 2, 3, 4, 5)


def corrupt(images: Tensor, name: str, strength: int, *, first: int = 0, seed: int = 0) -> Tensor:
    """Corrupts images in one way.

    Random choices (the noise, the side of a rotation, darker or brighter) depend on the seed and the number of the
    image alone. So every model gets the same images, whatever the batch size, and a higher strength scales the same
    noise.

    Args:
        images: (N, C, H, W) or (N, C, H, W, D), values in [0, 1]; the last axis of volumes is that of the slices.
        name: one of :data:`CORRUPTIONS`.
        strength: 1 to 5.
        first: number of the first image in its data set; the others follow.
        seed: another one gives other noise.

    Returns:
        Images of the same shape, type and device, values in [0, 1].

    Raises:
        InputError: unknown name or strength, wrong number of axes, or values outside [0, 1].

    Example:
        >>> image = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
        >>> (10 * corrupt(image, "contrast", 2)).round().tolist()  # mean 0.5, deviation times 0.6
        [[[[2.0, 8.0]]]]
    """
    if name not in CORRUPTIONS:
        raise InputError(f"Unknown corruption {name!r}; known: {', '.join(CORRUPTIONS)}.")
    if strength not in STRENGTHS:
        raise InputError(f"The strength of a corruption is 1, 2, 3, 4 or 5, found {strength!r}.")
    if images.ndim not in (4, 5):
        raise InputError(f"Expected images (N, C, H, W) or (N, C, H, W, D), found shape {tuple(images.shape)}.")
    if images.numel() and (images.min() < -1e-4 or images.max() > 1 + 1e-4):
        raise InputError(
            f"Corruptions are of images in [0, 1], found {float(images.min()):.3g} to {float(images.max()):.3g}; scale "
            "them, or use corrupt_input for a network's input."
        )
    seeds = [zlib.crc32(f"{name}/{seed}/{number}".encode()) for number in range(first, first + len(images))]
    generators = [torch.Generator().manual_seed(one) for one in seeds]
    function, values = CORRUPTIONS[name]
    changed = function(images.clamp(0, 1), values[strength - 1], generators)
    return changed.clamp(0, 1).to(images.dtype)


def corrupt_input(
    images: Tensor,
    name: str,
    strength: int,
    *,
    window: str | Sequence[float] = "percentile",
    first: int = 0,
    seed: int = 0,
) -> Tensor:
    """Corrupts a network's input, see :func:`dual_skd.data.image_transforms`.

    Args:
        images: (N, C, H, W) or (N, C, H, W, D).
        name, strength, first, seed: see :func:`corrupt`.
        window: how the intensities were scaled, see :func:`dual_skd.data.choose_window`. All windows give [-1, 1] but
            "zscore", with which the range is that of each image.

    Raises:
        InputError: as :func:`corrupt`; values outside [-1, 1] don't belong to this window.
    """
    if window == "zscore":
        axes = tuple(range(1, images.ndim))
        low = images.amin(axes, keepdim=True)
        span = (images.amax(axes, keepdim=True) - low).clamp_min(1e-6)
    else:
        low, span = images.new_tensor(-1.0), images.new_tensor(2.0)
    return corrupt((images - low) / span, name, strength, first=first, seed=seed) * span + low


def _sides(generators: Sequence[torch.Generator]) -> Tensor:
    """-1 or 1 per image."""
    return torch.tensor([1.0 if torch.rand(1, generator=one) < 0.5 else -1.0 for one in generators])


def _noise(images: Tensor, deviation: float, generators: Sequence[torch.Generator]) -> Tensor:
    if not generators:
        return images
    noise = torch.stack([torch.randn(images.shape[1:], generator=one) for one in generators])
    return images + deviation * noise.to(images)


def _blur(images: Tensor, share: float, generators: Sequence[torch.Generator]) -> Tensor:
    sigma = [share * size for size in images.shape[2:]]
    margin = [math.ceil(4 * one) for one in sigma]
    # the filter pads with black, and a dark frame would be a cue of its own, so the border is repeated
    around = [side for one in reversed(margin) for side in (one, one)]
    blurred = GaussianFilter(images.ndim - 2, sigma).to(images)(functional.pad(images, around, mode="replicate"))
    inside = (..., *(slice(one, one + size) for one, size in zip(margin, images.shape[2:], strict=True)))
    return blurred[inside]


def _contrast(images: Tensor, factor: float, generators: Sequence[torch.Generator]) -> Tensor:
    mean = images.mean(dim=tuple(range(1, images.ndim)), keepdim=True)
    return mean + factor * (images - mean)


def _gamma(images: Tensor, exponent: float, generators: Sequence[torch.Generator]) -> Tensor:
    exponents = torch.tensor(exponent) ** _sides(generators)
    return images ** exponents.to(images).reshape(-1, *[1] * (images.ndim - 1))


def _jpeg(images: Tensor, quality: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Stores every channel, and every slice of a volume, as a grey JPEG file of eight bits."""
    slices = images if images.ndim == 4 else images.movedim(4, 1).flatten(0, 1)
    pictures = (slices.float().flatten(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    decoded = np.stack([_through_jpeg(picture, int(quality)) for picture in pictures]) if len(pictures) else pictures
    changed = torch.from_numpy(decoded).reshape(slices.shape).to(images) / 255
    return changed if images.ndim == 4 else changed.unflatten(0, (len(images), images.shape[4])).movedim(1, 4)


def _through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _resolution(images: Tensor, factor: float, generators: Sequence[torch.Generator]) -> Tensor:
    size = images.shape[2:]
    fewer = functional.interpolate(images, [max(round(side / factor), 1) for side in size], mode="area")
    return functional.interpolate(fewer, size, mode="bilinear" if images.ndim == 4 else "trilinear")


def _rotation(images: Tensor, degrees: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Rotates about the centre, in the plane of the first two axes; the border is repeated outside the picture."""
    dims = images.ndim - 2
    angle = math.radians(degrees) * _sides(generators)
    matrix = torch.eye(dims, dims + 1).repeat(len(images), 1, 1)
    # grid coordinates run from the last axis to the first, in units of half an axis: W and H are the last two
    one, two, stretch = dims - 2, dims - 1, images.shape[2] / images.shape[3]
    matrix[:, one, one] = matrix[:, two, two] = angle.cos()
    matrix[:, one, two], matrix[:, two, one] = -angle.sin() * stretch, angle.sin() / stretch
    grid = sampling_grid(matrix.to(images), tuple(images.shape[2:]))
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


# name -> the function, and its argument for the strengths 1 to 5
CORRUPTIONS: dict[str, tuple[Callable[[Tensor, float, Sequence[torch.Generator]], Tensor], tuple[float, ...]]] = {
    "noise": (_noise, (0.03, 0.06, 0.10, 0.15, 0.22)),  # standard deviation, as a share of the intensity range
    "blur": (_blur, (0.005, 0.01, 0.015, 0.02, 0.03)),  # standard deviation of the Gaussian, as a share of each axis
    "contrast": (_contrast, (0.8, 0.6, 0.4, 0.3, 0.2)),  # factor of the deviation from the image's mean
    "gamma": (_gamma, (1.25, 1.5, 2.0, 2.5, 3.0)),  # exponent, or its inverse: darker or brighter
    "jpeg": (_jpeg, (40, 25, 15, 10, 5)),  # quality
    "resolution": (_resolution, (1.5, 2, 3, 4, 6)),  # factor by which every axis has fewer pixels
    "rotation": (_rotation, (5, 10, 15, 20, 30)),  # degrees, to either side
}
