# SPDX-License-Identifier: Apache-2.0
"""Compares pairs of pictures finely: aligned first, then without brightness, contrast and gamma."""

from __future__ import annotations

import torch
from torch.nn import functional

SIZE = 96  # pixels per side of what is compared
COARSE = ((24, 6), (48, 5))  # (pixels per side, Gauss-Newton steps): rough alignment of every candidate
FINE = ((96, 3),)  # and of what is still alike then
PROMISING = 0.5  # likeness after the rough alignment from which the fine one is worth its time
OVERLAP = 0.5  # share of the second picture that the first must cover
SEEN = 0.05  # share of the second picture that must be comparable: covered and not clipped
CLIPPED = 0.01  # share of the grey range at either end that counts as clipped


def blur(pictures: torch.Tensor, deviation: float) -> torch.Tensor:
    """Gaussian blur of (N, H, W), edges repeated; ``deviation`` in pixels."""
    radius = max(1, int(3 * deviation + 0.5))
    place = torch.arange(-radius, radius + 1, dtype=pictures.dtype)
    kernel = torch.exp(-0.5 * (place / deviation) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(pictures[:, None], (radius,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[:, 0]


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
    whole = high.flatten(1).std(dim=1)[:, None, None]
    return high / (local + floor * whole).clamp_min(1e-6)


def likeness(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """How alike two pictures are where they are least alike, after the one was laid over the other.

    Pictures are aligned by an affine map (Gauss-Newton on locally standardised grey values, coarse to fine; Lucas and
    Kanade, 1981). A copy then differs by noise, all over and little. A neighbouring slice differs by anatomy, in some
    places much. So correlations are taken block by block, and the tenth percentile of them (blocks weighted by their
    structure) is the result. Grey values that are clipped in either picture are left out.

    Args:
        first: (N, 96, 96) float32.
        second: the same.

    Returns:
        (N,) from -1 to 1.
    """
    theta = _align(first, second, torch.eye(2, 3).repeat(len(first), 1, 1), COARSE)
    size = COARSE[-1][0]
    found = _agreement(_shrunk(first, size), _shrunk(second, size), theta)
    go_on = torch.nonzero(found >= PROMISING).flatten()
    if len(go_on):
        a, b = first[go_on], second[go_on]
        theta = _align(a, b, theta[go_on], FINE)
        # interpolation smooths the one that is mapped; a copy may itself be the smoother one, so both ways are tried
        found[go_on] = torch.maximum(_agreement(a, b, theta), _agreement(b, a, _inverse(theta)))
    return found


def _inverse(theta: torch.Tensor) -> torch.Tensor:
    """The affine maps (N, 2, 3) that undo these; one that can't be undone becomes zero."""
    square, singular = torch.linalg.inv_ex(theta[:, :, :2])
    square = torch.where((singular == 0)[:, None, None], square, torch.zeros_like(square))
    return torch.cat([square, -square @ theta[:, :, 2:]], dim=2)


def _shrunk(pictures: torch.Tensor, size: int) -> torch.Tensor:
    return functional.avg_pool2d(pictures[:, None], pictures.shape[-1] // size)[:, 0]


def _grid(theta: torch.Tensor, size: int) -> torch.Tensor:
    return functional.affine_grid(theta, [len(theta), 1, size, size], align_corners=False)


def _align(
    first: torch.Tensor, second: torch.Tensor, theta: torch.Tensor, levels: tuple[tuple[int, int], ...]
) -> torch.Tensor:
    """Improves affine maps (N, 2, 3) from places in the second picture to places in the first."""
    for size, steps in levels:
        width = 1 + size / 24
        moving, fixed = (standardise(_shrunk(x, size), width) for x in (first, second))
        place = _grid(torch.eye(2, 3)[None], size)[0]
        x, y = place.flatten(0, 1).unbind(dim=1)
        slopes = torch.stack([moving, *_slopes(moving)], dim=1)
        for _ in range(steps):
            grid = _grid(theta, size)
            inside = (grid.abs() <= 1).all(dim=-1).flatten(1).float()
            value, dx, dy = functional.grid_sample(slopes, grid, align_corners=False).flatten(2).unbind(dim=1)
            residual = fixed.flatten(1) - value
            # Cauchy's weights: what is only in one of them (a letter, a corner that a turn left black) has little say
            scale = 2 * (residual.abs() * inside).mean(dim=1, keepdim=True).clamp_min(1e-6)
            weight = inside / (1 + (residual / scale) ** 2)
            jacobian = torch.stack([dx * x, dx * y, dx, dy * x, dy * y, dy], dim=1)
            weighted = jacobian * weight[:, None]
            hessian = weighted @ jacobian.transpose(1, 2)
            damping = torch.diag_embed(0.01 * hessian.diagonal(dim1=1, dim2=2) + 1e-6)
            step = torch.linalg.solve(hessian + damping, (weighted @ residual[..., None])[..., 0])
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


def _agreement(first: torch.Tensor, second: torch.Tensor, theta: torch.Tensor, share: float = 0.1) -> torch.Tensor:
    """Correlation that all but a ``share`` of the structure reaches, block by block, after mapping by ``theta``."""
    size = first.shape[-1]
    width = size / 24
    a, b = (blur(standardise(x, width), 0.7) for x in (first, second))
    grid = _grid(theta, size)
    inside = (grid.abs() <= 1 - 4 / size).all(dim=-1).float()
    # linear interpolation would make the first blurred beside the second
    a = functional.grid_sample(a[:, None], grid, mode="bicubic", align_corners=False)[:, 0]
    seen = functional.grid_sample(_visible(first)[:, None], grid, align_corners=False)[:, 0]
    mask = inside * (seen > 0.5) * _visible(second)

    def pooled(values: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(values[:, None], size // 6, size // 12)[:, 0].flatten(1)

    area = pooled(mask)
    per_area = 1 / area.clamp_min(1e-3)
    mean_a, mean_b = pooled(a * mask) * per_area, pooled(b * mask) * per_area
    var_a = (pooled(a * a * mask) * per_area - mean_a**2).clamp_min(1e-6)
    var_b = (pooled(b * b * mask) * per_area - mean_b**2).clamp_min(1e-6)
    correlation = (pooled(a * b * mask) * per_area - mean_a * mean_b) / (var_a * var_b).sqrt()
    weight = (var_a * var_b).sqrt() * area * (area > 0.25)
    order = correlation.argsort(dim=1)
    reached = weight.gather(1, order).cumsum(dim=1)
    total = reached[:, -1:]
    place = (reached < share * total).sum(dim=1, keepdim=True).clamp_max(order.shape[1] - 1)
    found = correlation.gather(1, order).gather(1, place)[:, 0]
    # a few comparable pixels are no ground for a verdict
    enough = (total[:, 0] > 0) & (inside.mean((1, 2)) >= OVERLAP) & (mask.mean((1, 2)) >= SEEN)
    return torch.where(enough, found, torch.full_like(found, -1.0))
