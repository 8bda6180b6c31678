# SPDX-License-Identifier: Apache-2.0
"""Random geometry and intensity changes of a whole batch, on the device where the batch is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from monai.engines import default_prepare_batch
from torch import nn
from torch.nn import functional

from dual_skd.data.spectra import mix_spectra
from dual_skd.errors import InputError


class BatchAugment(nn.Module):
    """One random affine map and one random intensity change per image, one resampling per batch.

    Per-image transforms on the CPU cost more than a light network's training step; this costs a few percent of it.
    :func:`sharpen` keeps resampled images as sharp as others. Random numbers come from torch's global generator, so a
    seeded run is reproducible. Each change is drawn uniformly within its limits; 0 turns it off.

    Args:
        spatial_dims: 2 for (N, C, H, W), 3 for (N, C, H, W, D).
        rotate: largest angle, degrees; in 3D about each of the three axes.
        scale: largest relative change of size: 0.1 is 0.9 to 1.1, one factor for all axes.
        shear: largest shear, as a tangent (2D and 3D).
        translate: largest shift, as a share of the image's size along each axis.
        flip_axes: spatial axes (0 = H, 1 = W, 2 = D) mirrored with probability 0.5.
        contrast: largest relative change of the deviation from the image's mean.
        brightness: largest added value, in units of the intensity scale.
        noise: largest standard deviation of added Gaussian noise, drawn per image.
        spectrum: largest share by which an image's power spectrum becomes that of another image of the batch
            (:func:`dual_skd.data.spectra.mix_spectra`), at most 1.
        probability: probability that an image is changed at all; each image draws on its own.

    Raises:
        InputError: for limits out of range.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        *,
        rotate: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        translate: float = 0.0,
        flip_axes: Sequence[int] = (),
        contrast: float = 0.0,
        brightness: float = 0.0,
        noise: float = 0.0,
        spectrum: float = 0.0,
        probability: float = 1.0,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise InputError(f"spatial_dims must be 2 or 3, found {spatial_dims}.")
        limits = {"rotate": rotate, "scale": scale, "shear": shear, "translate": translate, "contrast": contrast,
                  "brightness": brightness, "noise": noise, "spectrum": spectrum}  # fmt: skip
        for name, limit in limits.items():
            if limit < 0 or (name in ("scale", "contrast") and limit >= 1) or (name == "spectrum" and limit > 1):
                raise InputError(
                    f"The augmentation limit {name} must not be negative (and below 1 for scale and "
                    f"contrast, at most 1 for spectrum), found {limit}."
                )
        if not isinstance(flip_axes, Sequence) or any(axis not in range(spatial_dims) for axis in flip_axes):
            raise InputError(f"flip_axes must be a list of axes of 0 to {spatial_dims - 1}, found {flip_axes!r}.")
        if not 0 <= probability <= 1:
            raise InputError(f"The augmentation probability must be between 0 and 1, found {probability}.")
        self.spatial_dims = spatial_dims
        self.limits = limits
        self.flip_axes = tuple(flip_axes)
        self.probability = probability

    def extra_repr(self) -> str:
        active = ", ".join(f"{name}={limit}" for name, limit in self.limits.items() if limit)
        return f"spatial_dims={self.spatial_dims}, {active}, flip_axes={self.flip_axes}, p={self.probability}"

    def times(self, factor: float) -> BatchAugment:
        """The same changes with limits ``factor`` times as large, as far as limits go."""
        most = {"scale": 0.9, "contrast": 0.9, "spectrum": 1.0, "translate": 0.5}
        limits: dict[str, Any] = {
            name: min(factor * limit, max(most.get(name, math.inf), limit)) for name, limit in self.limits.items()
        }
        return BatchAugment(self.spatial_dims, flip_axes=self.flip_axes, probability=self.probability, **limits)

    @property
    def moves(self) -> bool:
        """Whether any geometric change is on."""
        return bool(self.flip_axes) or any(self.limits[name] for name in ("rotate", "scale", "shear", "translate"))

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Changes a batch.

        Args:
            images: (N, C, H, W) or (N, C, H, W, D), floating point.

        Returns:
            A plain tensor of the same shape, type and device.
        """
        if images.ndim != self.spatial_dims + 2:
            raise InputError(
                f"BatchAugment(spatial_dims={self.spatial_dims}) expected a batch with {self.spatial_dims + 2} axes, "
                f"found shape {tuple(images.shape)}."
            )
        images = images.as_tensor() if hasattr(images, "as_tensor") else images
        changed = torch.rand(len(images)) < self.probability
        if self.limits["spectrum"]:
            shares = torch.rand(len(images)) * self.limits["spectrum"] * changed
            images = mix_spectra(images, torch.randperm(len(images)), shares)
        if self.moves:
            # a black wedge beside the picture would be a cue of its own, so its border is repeated
            matrix = self.random_matrices(tuple(images.shape[2:]), changed).to(images)
            grid = sampling_grid(matrix, tuple(images.shape[2:]))
            images = functional.grid_sample(sharpen(images, grid), grid, padding_mode="border", align_corners=False)
        return self._change_intensity(images, changed)

    def random_matrices(self, size: tuple[int, ...], changed: torch.Tensor) -> torch.Tensor:
        """Draws matrices (N, d, d + 1) for :func:`sampling_grid`; identity where ``changed`` (N,) is False.

        ``grid_sample`` counts axes from the last one (W first, or D first in 3D) in units of half the image's extent.
        Rotation and shear are built in pixels and then divided by each axis' extent, which keeps angles in images that
        are not square.
        """
        count, dims = len(changed), self.spatial_dims
        linear = torch.eye(dims).repeat(count, 1, 1)
        for first, second in ((0, 1), (0, 2), (1, 2)) if dims == 3 else ((0, 1),):
            angle = self._uniform(count, math.radians(self.limits["rotate"]))
            turn = torch.eye(dims).repeat(count, 1, 1)
            turn[:, first, first] = turn[:, second, second] = angle.cos()
            turn[:, first, second], turn[:, second, first] = -angle.sin(), angle.sin()
            linear = turn @ linear
        skew = torch.eye(dims).repeat(count, 1, 1)
        for first in range(dims):
            for second in range(first + 1, dims):
                skew[:, first, second] = self._uniform(count, self.limits["shear"])
        linear = linear @ skew * (1 + self._uniform(count, self.limits["scale"])).reshape(count, 1, 1)
        for axis in self.flip_axes:
            # spatial axis k is grid coordinate d - 1 - k
            linear[:, dims - 1 - axis] *= torch.where(torch.rand(count) < 0.5, -1.0, 1.0).reshape(count, 1)
        extent = torch.tensor(size[::-1], dtype=torch.float32)
        linear = linear * extent.reshape(1, 1, dims) / extent.reshape(1, dims, 1)
        # the grid spans -1 to 1, so a share of the size is twice as much in its units
        shift = 2 * self._uniform(count * dims, self.limits["translate"]).reshape(count, dims, 1)
        identity = torch.eye(dims, dims + 1).expand(count, dims, dims + 1)
        return torch.where(changed.reshape(count, 1, 1), torch.cat([linear, shift], dim=2), identity)

    def _change_intensity(self, images: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
        count, per_image = len(changed), (-1, *[1] * (images.ndim - 1))
        if self.limits["contrast"] or self.limits["brightness"]:
            gain = self._uniform(count, self.limits["contrast"]) * changed
            offset = self._uniform(count, self.limits["brightness"]) * changed
            mean = images.mean(dim=list(range(1, images.ndim)), keepdim=True)
            gain, offset = (change.to(images).reshape(per_image) for change in (gain, offset))
            images = images + (images - mean) * gain + offset
        if self.limits["noise"]:
            deviation = torch.rand(count) * self.limits["noise"] * changed
            images = images + torch.randn_like(images) * deviation.to(images).reshape(per_image)
        return images

    @staticmethod
    def _uniform(count: int, limit: float) -> torch.Tensor:
        return (2 * torch.rand(count) - 1) * limit


def sampling_grid(matrix: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """The grid of ``torch.nn.functional.affine_grid(align_corners=False)``, some twenty times faster on a CPU.

    A sum of one broadcast term per axis replaces torch's product of every voxel's coordinates with the matrix.

    Args:
        matrix: (N, d, d + 1).
        size: d spatial sizes, (H, W[, D]).

    Returns:
        (N, H, W[, D], d), a view with the coordinates outermost in memory.
    """
    count, dims = matrix.shape[:2]
    ones = [1] * dims
    grid = matrix[:, :, dims].reshape(count, dims, *ones)
    for column in range(dims):
        axis = dims - 1 - column  # the first grid coordinate runs along the last spatial axis
        places = ((torch.arange(size[axis]) + 0.5) * 2 / size[axis] - 1).to(matrix)
        along = [*ones[:axis], size[axis], *ones[axis + 1 :]]
        grid = grid + matrix[:, :, column].reshape(count, dims, *ones) * places.reshape(1, 1, *along)
    return grid.movedim(1, -1)


def sharpen(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sharpens each image by as much as linear interpolation at a grid's points will blur it.

    Without it a network trains on images that have lost a third of their squared gradient, and is used on sharp ones.

    Between two pixels, at the distance u from one of them, linear interpolation multiplies the power at the angular
    frequency f by 1 - m c, with m = 2 u (1 - u) and c = 1 - cos(f). A filter (-a, 1 + 2 a, -a) along the same axis
    multiplies it by (1 + 2 a c)^2. With a = 3/8 m the product stays within 6 % of 1 for m c up to 1/2. For points all
    over the pixels (m = 1/3 on average) that is beyond half of the highest frequency. Points on pixels have m = 0.

    Args:
        images: (N, C, H, W[, D]), floating point.
        grid: (N, H, W[, D], d), of :func:`sampling_grid`.

    Returns:
        A tensor of the images' shape.
    """
    dims = images.ndim - 2
    for axis in range(2, images.ndim):
        size = images.shape[axis]
        between = (((grid[..., dims + 1 - axis] + 1) * size - 1) / 2).frac().abs()
        amount = 0.75 * (between * (1 - between)).flatten(1).mean(dim=1)
        first, last = images.narrow(axis, 0, 1), images.narrow(axis, size - 1, 1)
        bend = images.diff(dim=axis, prepend=first, append=last).diff(dim=axis)  # x[i - 1] - 2 x[i] + x[i + 1]
        images = images - amount.reshape(-1, *[1] * (dims + 1)) * bend
    return images


class AugmentBatch:
    """A ``prepare_batch`` for MONAI's engines that moves a batch to the device and augments it there.

    Args:
        augment: usually a :class:`BatchAugment`. It draws new numbers at every call.

    Example:
        >>> import torch
        >>> prepare = AugmentBatch(BatchAugment(2, rotate=10.0, translate=0.05))
        >>> image, label = prepare({"image": torch.rand(4, 1, 32, 32), "label": torch.arange(4)}, torch.device("cpu"))
        >>> image.shape, label.tolist()
        (torch.Size([4, 1, 32, 32]), [0, 1, 2, 3])
    """

    def __init__(self, augment: nn.Module) -> None:
        self.augment = augment

    def __call__(
        self,
        batchdata: dict[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        image, label = default_prepare_batch(batchdata, device, non_blocking, **kwargs)
        return self.augment(image), label
