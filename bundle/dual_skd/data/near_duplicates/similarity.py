# SPDX-License-Identifier: Apache-2.0
"""Compares pairs of pictures finely: aligned first, then without brightness, contrast and gamma."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
from torch.nn import functional

SIZE = 96  # pixels per side of what is compared
COARSE = ((24, 6), (48, 5))  # (pixels per side, Gauss-Newton steps): rough alignment of every candidate
FINE = 3  # steps at full size, for what is still alike then
PROMISING = 0.5  # likeness after the rough alignment from which the fine one is worth its time
OVERLAP = 0.5  # share of the second picture that the first must cover
SEEN = 0.05  # share of the second picture that must be comparable: covered and not clipped
AT_ONCE = 2**17  # pixels per step: what is computed of them stays in the processor's cache
# affine maps to start from, by the axes that candidates() mirrors: y is that of rows, x that of columns
MIRRORED = torch.tensor(
    [[[x, 0.0, 0.0], [0.0, y, 0.0]] for x, y in ((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0))]
)
CLIPPED = 0.01  # share of the grey range at either end that counts as clipped


@lru_cache(maxsize=16)
def _blurring(size: int, deviation: float) -> torch.Tensor:
    """(size, size) that blurs a line of pixels, edges repeated, from the left."""
    radius = max(1, int(3 * deviation + 0.5))
    offset = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offset / deviation) ** 2)
    place = (torch.arange(size)[:, None] + offset).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add(1, place, (kernel / kernel.sum()).expand(size, -1))


def blur(pictures: torch.Tensor, deviation: float) -> torch.Tensor:
    """Gaussian blur of (N, H, W), edges repeated; ``deviation`` in pixels."""
    height, width = pictures.shape[1:]
    return _blurring(height, deviation) @ pictures @ _blurring(width, deviation).T


def standardise(pictures: torch.Tensor, deviation: float, floor: float = 0.1) -> torch.Tensor:
    """Subtracts the local mean and divides by the local standard deviation: gain, offset and gamma disappear.

    Args:
        pictures: (N, H, W).
        deviation: width of the neighbourhood in pixels.
        floor: share of the picture's own standard deviation that is added to the local one, so that noise in empty
            background stays small.
    """
    high = pictures - blur(pictures, deviation)
    local = blur(high**2, deviation).clamp_min(0).sqrt()
    whole = (high - high.mean((1, 2), keepdim=True)).norm(dim=(1, 2), keepdim=True) / (high[0].numel() - 1) ** 0.5
    return high / (local + floor * whole).clamp_min(1e-6)


@torch.inference_mode()
def likeness(pictures: torch.Tensor, first: torch.Tensor, second: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """How alike pairs of pictures are where they are least alike, after the one was laid over the other.

    Pictures are aligned by an affine map (Gauss-Newton on locally standardised grey values, coarse to fine; Lucas and
    Kanade, 1981). A copy then differs by noise, all over and little. A neighbouring slice differs by anatomy, in some
    places much. So correlations are taken block by block, and the tenth percentile of them (blocks weighted by their
    structure) is the result. Grey values that are clipped in either picture are left out.

    What depends on one picture is computed once for all its pairs, so many pairs of few pictures are fast.

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
        shrunk = _shrunk(pictures, size)
        theta = _align(shrunk, first, second, theta, steps)
    found = _agreement(_comparable(shrunk), first, second, theta)
    go_on = torch.nonzero(found >= PROMISING).flatten()
    if len(go_on):
        wanted, place = torch.cat([first[go_on], second[go_on]]).unique(return_inverse=True)
        a, b = place.view(2, -1)
        theta = _align(pictures[wanted], a, b, theta[go_on], FINE)
        comparable = _comparable(pictures[wanted])
        # interpolation smooths the one that is mapped; a copy may itself be the smoother one, so both ways are tried
        there, back = (_agreement(comparable, *way) for way in ((a, b, theta), (b, a, _inverse(theta))))
        found[go_on] = torch.maximum(there, back)
    return found


def _inverse(theta: torch.Tensor) -> torch.Tensor:
    """The affine maps (N, 2, 3) that undo these; one that can't be undone becomes zero."""
    square, singular = torch.linalg.inv_ex(theta[:, :, :2])
    square = torch.where((singular == 0)[:, None, None], square, torch.zeros_like(square))
    return torch.cat([square, -square @ theta[:, :, 2:]], dim=2)


def _shrunk(pictures: torch.Tensor, size: int) -> torch.Tensor:
    return functional.avg_pool2d(pictures[:, None], pictures.shape[-1] // size)[:, 0]


@lru_cache(maxsize=4)
def _places(size: int) -> torch.Tensor:
    """(3, size * size): x and y of the pixels, from -1 to 1, and ones."""
    line = (2 * torch.arange(size) + 1) / size - 1
    return torch.stack([line.repeat(size), line.repeat_interleave(size), torch.ones(size * size)])


@lru_cache(maxsize=4)
def _products(size: int) -> torch.Tensor:
    """(size * size, 9): products of each two of :func:`_places`."""
    places = _places(size)
    return (places[:, None] * places).flatten(0, 1).T.contiguous()


def _sampled(pictures: torch.Tensor, places: torch.Tensor, mode: str) -> torch.Tensor:
    """(N, C, size * size) of pictures (N, C, size, size) at places (N, 2, size * size)."""
    grid = places.unflatten(2, pictures.shape[-2:]).permute(0, 2, 3, 1)
    return functional.grid_sample(pictures, grid, mode=mode, align_corners=False).flatten(2)


def _align(
    pictures: torch.Tensor, first: torch.Tensor, second: torch.Tensor, theta: torch.Tensor, steps: int
) -> torch.Tensor:
    """Improves affine maps (N, 2, 3) from places in the second picture to places in the first."""
    size = pictures.shape[-1]
    even = standardise(pictures, 1 + size / 24)
    slopes = torch.stack([even, *_slopes(even)], dim=1)
    return torch.cat(
        [
            _stepped(slopes.index_select(0, a), even.index_select(0, b).flatten(1), start, steps)
            for a, b, start in _in_steps(size, first, second, theta)
        ]
    )


def _in_steps(size: int, *values: torch.Tensor) -> Iterable[tuple[torch.Tensor, ...]]:
    """What belongs to pairs of pictures of ``size``, a few pairs at a time."""
    number = max(AT_ONCE // size**2, 1)
    return zip(*(value.split(number) for value in values), strict=True)


def _within(places: torch.Tensor, most: float) -> torch.Tensor:
    """1 where both coordinates of places (N, 2, K) are at most ``most`` from the middle."""
    x, y = places.abs().unbind(dim=1)
    return (torch.maximum(x, y) <= most).float()


def _stepped(slopes: torch.Tensor, fixed: torch.Tensor, theta: torch.Tensor, steps: int) -> torch.Tensor:
    """Gauss-Newton steps towards the affine maps by which the first pictures resemble the second ones most.

    Args:
        slopes: (N, 3, size, size) grey values of the first and their slopes along x and y.
        fixed: (N, size * size) grey values of the second.
        theta: (N, 2, 3) to start from.
        steps: how many.
    """
    size = slopes.shape[-1]
    for _ in range(steps):
        mapped = theta @ _places(size)
        inside = _within(mapped, 1)
        found = _sampled(slopes, mapped, "bilinear")
        residual = torch.sub(fixed, found[:, 0], out=found[:, 0])
        # Cauchy's weights: what is only in one of them (a letter, a corner that a turn left black) has little say
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


def _visible(pictures: torch.Tensor) -> torch.Tensor:
    """1 where grey values are neither at the lowest nor at the highest end of the picture's range."""
    low, high = pictures.amin((1, 2), keepdim=True), pictures.amax((1, 2), keepdim=True)
    margin = CLIPPED * (high - low)
    return ((pictures > low + margin) & (pictures < high - margin)).float()


def _comparable(pictures: torch.Tensor) -> torch.Tensor:
    """What correlations are taken of: (N, 2, size, size), locally standardised grey values, and where they count."""
    return torch.stack([blur(standardise(pictures, pictures.shape[-1] / 24), 0.7), _visible(pictures)], dim=1)


def _agreement(
    comparable: torch.Tensor, first: torch.Tensor, second: torch.Tensor, theta: torch.Tensor
) -> torch.Tensor:
    """Correlation of pairs, places in ``comparable``, after the first were mapped by theta: (N,) from -1 to 1."""
    return torch.cat(
        [
            _correlation(comparable.index_select(0, a), comparable.index_select(0, b), some)
            for a, b, some in _in_steps(comparable.shape[-1], first, second, theta)
        ]
    )


@lru_cache(maxsize=4)
def _blocks(size: int) -> torch.Tensor:
    """(size, 11) that takes, from the right, the mean over blocks of a sixth of the side which overlap by half."""
    start, place = size // 12 * torch.arange(11), torch.arange(size)[:, None]
    return ((place >= start) & (place < start + size // 6)).float() / (size // 6)


def _correlation(first: torch.Tensor, second: torch.Tensor, theta: torch.Tensor, share: float = 0.1) -> torch.Tensor:
    """Correlation that all but a ``share`` of the structure reaches, block by block, after mapping by ``theta``.

    Args:
        first: (N, 2, size, size), see :func:`_comparable`.
        second: the same.
        theta: (N, 2, 3) affine maps from places in the second to places in the first.
        share: of the structure that may be less alike.

    Returns:
        (N,), -1 where there is too little to compare.
    """
    size = first.shape[-1]
    mapped = theta @ _places(size)
    inside = _within(mapped, 1 - 4 / size)
    # linear interpolation would make the first blurred beside the second
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
    place = (reached < share * total).sum(dim=1, keepdim=True).clamp_max(order.shape[1] - 1)
    found = correlation.gather(1, order).gather(1, place)[:, 0]
    # a few comparable pixels are no ground for a verdict
    enough = (total[:, 0] > 0) & (inside.mean(1) >= OVERLAP) & (mask.mean(1) >= SEEN)
    return torch.where(enough, found, torch.full_like(found, -1.0))
