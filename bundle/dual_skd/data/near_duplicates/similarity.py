# SPDX-License-Identifier: Apache-2.0
"""Similarity of pairs of pictures: they are aligned, then compared without brightness, contrast and gamma."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch.nn import functional

SIZE_PIXELS = 96  # side of the pictures
COARSE = ((24, 6), (48, 5))  # (pixels per side, Gauss-Newton steps): rough alignment of every candidate
FINE_STEPS = 3  # at full size, for pairs that are PROMISING
PROMISING = 0.5  # similarity after the rough alignment from which the fine one is worth its time
MIN_OVERLAP = 0.5  # share of the second picture that the first must cover
MIN_COMPARABLE = 0.05  # share of the second picture that is covered and not clipped
IGNORED_STRUCTURE = 0.1  # share of the structure that may be less similar than the result
PIXELS_PER_BATCH = 2**17  # so that intermediate results stay in the processor's cache
# affine maps to start from, by the axes that candidates() mirrors: y is that of rows, x that of columns
MIRRORED = torch.tensor(
    [[[x, 0.0, 0.0], [0.0, y, 0.0]] for x, y in ((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0))]
)
CLIPPED = 0.01  # share of the grey range at either end that counts as clipped


@lru_cache(maxsize=16)
def _blurring(size: int, deviation: float) -> torch.Tensor:
    """Matrix (size, size) that blurs a line of pixels, edges repeated."""
    radius = max(1, int(3 * deviation + 0.5))
    offset = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offset / deviation) ** 2)
    place = (torch.arange(size)[:, None] + offset).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add(1, place, (kernel / kernel.sum()).expand(size, -1))


def blur(pictures: torch.Tensor, deviation: float) -> torch.Tensor:
    """Gaussian blur of (N, H, W), edges repeated; ``deviation`` in pixels."""
    height, width = pictures.shape[1:]
    return _blurring(height, deviation) @ pictures @ _blurring(width, deviation).T


def standardise(pictures: torch.Tensor, deviation: float) -> torch.Tensor:
    """Subtracts the local mean and divides by the local standard deviation, which removes gain, offset and gamma.

    Args:
        pictures: (N, H, W).
        deviation: width of the neighbourhood in pixels.
    """
    high = pictures - blur(pictures, deviation)
    local = blur(high**2, deviation).clamp_min(0).sqrt()
    whole = (high - high.mean((1, 2), keepdim=True)).norm(dim=(1, 2), keepdim=True) / (high[0].numel() - 1) ** 0.5
    # a share of the whole picture's deviation keeps the noise of empty background small
    return high / (local + 0.1 * whole).clamp_min(1e-6)


@torch.inference_mode()
def pair_similarities(
    pictures: torch.Tensor, first: torch.Tensor, second: torch.Tensor, mirrored: torch.Tensor
) -> torch.Tensor:
    """Computes the similarity of pairs of pictures, where they differ most, after alignment.

    Pictures are aligned by an affine map (Gauss-Newton on locally standardised grey values, coarse to fine; Lucas and
    Kanade, 1981). A copy then differs a little everywhere, by noise. A neighbouring slice differs much in some places,
    by anatomy. So correlations are taken per block, and the result is their tenth percentile, blocks weighted by their
    structure. Grey values that are clipped in either picture are ignored.

    Work on one picture is done once for all its pairs, so many pairs of few pictures are fast.

    Args:
        pictures: (K, 96, 96) float32.
        first: (N,) places of the ones in ``pictures``.
        second: (N,) places of the others.
        mirrored: (N,) axes along which the first is to be mirrored: 0 none, 1 rows, 2 columns, 3 both.

    Returns:
        (N,) from -1 to 1.
    """
    theta = MIRRORED[mirrored]
    for size, steps in COARSE:
        small = functional.avg_pool2d(pictures[:, None], pictures.shape[-1] // size)[:, 0]
        theta = _align(small, first, second, theta, steps)
    found = _compare(_comparable(small), first, second, theta)
    promising = torch.nonzero(found >= PROMISING).flatten()
    if len(promising):
        needed, place = torch.cat([first[promising], second[promising]]).unique(return_inverse=True)
        a, b = place.view(2, -1)
        theta = _align(pictures[needed], a, b, theta[promising], FINE_STEPS)
        comparable = _comparable(pictures[needed])
        # interpolation smooths the picture that is mapped; a copy may itself be the smoother one, so both ways count
        there, back = (_compare(comparable, *way) for way in ((a, b, theta), (b, a, _inverse(theta))))
        found[promising] = torch.maximum(there, back)
    return found


def _inverse(theta: torch.Tensor) -> torch.Tensor:
    """Inverse of affine maps (N, 2, 3); zero for singular ones."""
    square, singular = torch.linalg.inv_ex(theta[:, :, :2])
    square = torch.where((singular == 0)[:, None, None], square, torch.zeros_like(square))
    return torch.cat([square, -square @ theta[:, :, 2:]], dim=2)


@lru_cache(maxsize=4)
def _places(size: int) -> torch.Tensor:
    """x and y of the pixels, from -1 to 1, and ones: (3, size * size)."""
    line = (2 * torch.arange(size) + 1) / size - 1
    return torch.stack([line.repeat(size), line.repeat_interleave(size), torch.ones(size * size)])


@lru_cache(maxsize=4)
def _products(size: int) -> torch.Tensor:
    """Products of each two of :func:`_places`: (size * size, 9)."""
    places = _places(size)
    return (places[:, None] * places).flatten(0, 1).T.contiguous()


def _sampled(pictures: torch.Tensor, places: torch.Tensor, mode: str) -> torch.Tensor:
    """Values (N, C, size * size) of pictures (N, C, size, size) at places (N, 2, size * size)."""
    grid = places.unflatten(2, pictures.shape[-2:]).permute(0, 2, 3, 1)
    return functional.grid_sample(pictures, grid, mode=mode, align_corners=False).flatten(2)


def _align(
    pictures: torch.Tensor, first: torch.Tensor, second: torch.Tensor, theta: torch.Tensor, steps: int
) -> torch.Tensor:
    """Improves affine maps (N, 2, 3) from places in the second picture to places in the first."""
    size = pictures.shape[-1]
    even = standardise(pictures, 1 + size / 24)
    slopes = torch.stack([even, *_slopes(even)], dim=1)

    def align(a: torch.Tensor, b: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return _gauss_newton(slopes.index_select(0, a), even.index_select(0, b).flatten(1), start, steps)

    return _in_batches(align, size, first, second, theta)


def _compare(comparable: torch.Tensor, first: torch.Tensor, second: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Correlation (N,) of pairs of :func:`_comparable`, the first mapped by ``theta``."""

    def compare(a: torch.Tensor, b: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        return _correlation(comparable.index_select(0, a), comparable.index_select(0, b), maps)

    return _in_batches(compare, comparable.shape[-1], first, second, theta)


def _in_batches(function: Callable[..., torch.Tensor], size: int, *values: torch.Tensor) -> torch.Tensor:
    """Applies a function to a few pairs of pictures of ``size`` at a time."""
    number = max(PIXELS_PER_BATCH // size**2, 1)
    return torch.cat([function(*part) for part in zip(*(value.split(number) for value in values), strict=True)])


def _within(places: torch.Tensor, limit: float) -> torch.Tensor:
    """1 where both coordinates of places (N, 2, K) are at most ``limit`` from the middle."""
    return (places.abs().amax(dim=1) <= limit).float()


def _gauss_newton(slopes: torch.Tensor, fixed: torch.Tensor, theta: torch.Tensor, steps: int) -> torch.Tensor:
    """Takes Gauss-Newton steps towards the affine maps that make the first pictures most similar to the second ones.

    Args:
        slopes: (N, 3, size, size) grey values of the first and their slopes along x and y.
        fixed: (N, size * size) grey values of the second.
        theta: (N, 2, 3) initial maps.
        steps: number of steps.
    """
    size = slopes.shape[-1]
    for _ in range(steps):
        mapped = theta @ _places(size)
        inside = _within(mapped, 1)
        found = _sampled(slopes, mapped, "bilinear")
        residual = torch.sub(fixed, found[:, 0], out=found[:, 0])
        # Cauchy's weights reduce the influence of what only one of them has: a letter, a corner that a turn left black
        scale = 2 * residual.abs().mul_(inside).mean(dim=1, keepdim=True).clamp_min(1e-6)
        weight = inside.div_((residual / scale).square_().add_(1))
        weighted = found[:, 1:] * weight[:, None]
        # the Jacobian is slopes times places, so sums of its products are sums of products of either
        sums = (weighted[:, :, None] * found[:, None]).flatten(0, 2) @ _products(size)
        sums = sums.view(-1, 2, 3, 3, 3)  # pairs, slope, residual or slope, place, place
        hessian = sums[:, :, 1:].transpose(2, 3).reshape(-1, 6, 6)
        hessian.diagonal(dim1=1, dim2=2).mul_(1.01).add_(1e-6)  # damping
        step = torch.linalg.solve(hessian, sums[:, :, 0, 2].flatten(1))
        theta = theta + step.clamp(-0.08, 0.08).view(-1, 2, 3)
    return theta


def _slopes(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Central differences along columns and rows, per unit of coordinates from -1 to 1."""
    size = pictures.shape[-1]
    padded = functional.pad(pictures[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) * size / 4
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) * size / 4
    return across, down


def _comparable(pictures: torch.Tensor) -> torch.Tensor:
    """Locally standardised grey values, and 1 where they aren't clipped: (N, 2, size, size)."""
    low, high = pictures.amin((1, 2), keepdim=True), pictures.amax((1, 2), keepdim=True)
    margin = CLIPPED * (high - low)
    visible = ((pictures > low + margin) & (pictures < high - margin)).float()
    return torch.stack([blur(standardise(pictures, pictures.shape[-1] / 24), 0.7), visible], dim=1)


@lru_cache(maxsize=4)
def _blocks(size: int) -> torch.Tensor:
    """Matrix (size, 11) that averages a line over blocks of a sixth of the side, which overlap by half."""
    start, place = size // 12 * torch.arange(11), torch.arange(size)[:, None]
    return ((place >= start) & (place < start + size // 6)).float() / (size // 6)


def _correlation(first: torch.Tensor, second: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Correlation per block that all but ``IGNORED_STRUCTURE`` reach, after mapping by ``theta``.

    Args:
        first: (N, 2, size, size), see :func:`_comparable`.
        second: the same.
        theta: (N, 2, 3) affine maps from places in the second to places in the first.

    Returns:
        (N,), -1 where there is too little to compare.
    """
    size = first.shape[-1]
    mapped = theta @ _places(size)
    inside = _within(mapped, 1 - 4 / size)
    # linear interpolation would blur the first
    a = _sampled(first[:, :1], mapped, "bicubic")[:, 0]
    seen = _sampled(first[:, 1:], mapped, "bilinear")[:, 0]
    b, visible = second.flatten(2).unbind(dim=1)
    mask = inside * (seen > 0.5) * visible
    am, bm = a * mask, b * mask
    maps = torch.stack([mask, am, bm, a * am, b * bm, a * bm], dim=1).unflatten(2, (size, size))
    blocks = (_blocks(size).T @ (maps @ _blocks(size))).flatten(2)
    area = blocks[:, 0]
    mean_a, mean_b, square_a, square_b, product = (blocks[:, 1:] / area[:, None].clamp_min(1e-3)).unbind(dim=1)
    var_a = (square_a - mean_a**2).clamp_min(1e-6)
    var_b = (square_b - mean_b**2).clamp_min(1e-6)
    correlation = (product - mean_a * mean_b) / (var_a * var_b).sqrt()
    weight = (var_a * var_b).sqrt() * area * (area > 0.25)
    order = correlation.argsort(dim=1)
    reached = weight.gather(1, order).cumsum(dim=1)
    total = reached[:, -1:]
    place = (reached < IGNORED_STRUCTURE * total).sum(dim=1, keepdim=True).clamp_max(order.shape[1] - 1)
    found = correlation.gather(1, order).gather(1, place)[:, 0]
    enough = (total[:, 0] > 0) & (inside.mean(1) >= MIN_OVERLAP) & (mask.mean(1) >= MIN_COMPARABLE)
    return torch.where(enough, found, torch.full_like(found, -1.0))
