# SPDX-License-Identifier: Apache-2.0
"""What is kept of an image to recognise its copies: a digest of its grey values and 256 numbers per view."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from dual_skd.data.near_duplicates.similarity import SIZE, standardise
from dual_skd.data.reading.grey import read_grey
from dual_skd.errors import InputError

VERSION = 2  # of digest, descriptor and likeness: what is stored of another version is not used
THUMBNAIL = 48  # pixels per side of what a descriptor is computed from
NEIGHBOURHOOD = 5.0  # pixels of a thumbnail over which brightness and contrast are evened out
NUMBERS = 256  # cosine frequencies kept of a view: all up to 9 cycles per picture side
FREQUENCY_SCALE = (
    12.0  # half cycles at which a frequency's weight has fallen to exp(-1/2): fine ones suffer from shifts
)


@dataclass(frozen=True)
class Signature:
    """What is kept of an image to recognise its copies.

    Args:
        digest: hash of size and decoded grey values; equal for equal pictures whatever the file format.
        descriptor: (V * 256,) float16, see :func:`describe`; V is 1 for a picture and 3 for a volume.
        views: what is compared finely, see :func:`views_to_compare`, where the image was decoded just now; else None.
        problem: why the file can't be read, or "".
    """

    digest: str
    descriptor: np.ndarray
    views: np.ndarray | None = None
    problem: str = ""


def read_finite(image: str, *, spatial_dims: int = 2) -> np.ndarray:
    """Decodes an image as training does.

    Returns:
        (W, H) or (X, Y, Z) float32.

    Raises:
        InputError: the image can't be read, has another number of axes than ``spatial_dims``, or values that are not
            finite.
    """
    array = read_grey(image, spatial_dims=spatial_dims).numpy()
    if not np.isfinite(array).all():
        raise InputError(f"{image} has values that are not finite (NaN or infinity); export it again or leave it out.")
    return array


def views_of(array: np.ndarray, size: int) -> np.ndarray:
    """The picture itself, or the three middle slices of a volume, squeezed into squares: (V, size, size) float32."""
    views = [array]
    if array.ndim == 3:
        middle = [length // 2 for length in array.shape]
        views = [array[:, :, middle[2]], array[:, middle[1]], array[middle[0]]]
    squares = []
    for view in views:
        # the mean over the pixels of a larger picture: sampling a few of them would depend on their noise
        kind = Image.Resampling.BOX if min(view.shape) >= size else Image.Resampling.BICUBIC
        squares.append(Image.fromarray(np.ascontiguousarray(view, dtype=np.float32)).resize((size, size), kind))
    return np.stack([np.asarray(square) for square in squares])


def digest_of(array: np.ndarray) -> str:
    """Hash of shape and grey values, rounded to hundredths: readers differ in the last bits of a luma.

    Values that lie close together, such as those of an ADC map in mm2/s, are rounded to 1/10,000 of their span or less.
    """
    digest = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    span = float(np.ptp(array))
    digits = max(2, 4 - math.floor(math.log10(span))) if span > 0 else 2
    digest.update(np.ascontiguousarray(array.round(digits)).tobytes())
    return digest.hexdigest()


def views_to_compare(array: np.ndarray) -> np.ndarray:
    """The views of 96 pixels per side that are compared finely, each stretched to whole numbers: (V, 96, 96) uint16."""
    views = views_of(array, SIZE)
    low, high = views.min((1, 2), keepdims=True), views.max((1, 2), keepdims=True)
    return np.rint((views - low) * (np.iinfo(np.uint16).max / np.maximum(high - low, 1e-12))).astype(np.uint16)


def signature_of(array: np.ndarray) -> Signature:
    """The signature of what :func:`read_finite` returned."""
    thumbnails = torch.from_numpy(views_of(array, THUMBNAIL))
    return Signature(digest_of(array), describe(thumbnails[None])[0].half().numpy(), views_to_compare(array))


def describe(thumbnails: torch.Tensor) -> torch.Tensor:
    """Low cosine frequencies of locally standardised thumbnails, as vectors whose dot products are correlations.

    Local standardisation takes brightness, contrast and gamma away; few frequencies take compression and resizing away,
    and, being linear, let a turned picture's descriptor be computed from the upright one's (:func:`turning`).

    Args:
        thumbnails: (N, V, 48, 48).

    Returns:
        (N, V * 256), unit norm, or zero for a picture without any structure.
    """
    images, views = thumbnails.shape[:2]
    fine = standardise(thumbnails.flatten(0, 1), NEIGHBOURHOOD) * _fading()
    return unit((_frequencies(fine) * _weights()).view(images, views * NUMBERS))


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (N, K) of norm 1; zero stays zero."""
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-6)


@lru_cache(maxsize=8)
def turning(degrees: float) -> torch.Tensor:
    """(256, 256) that makes of a picture's descriptor, from the left, nearly the one of the picture turned."""
    waves, weights, lowest = _cosines(), _weights(), _lowest()[0]
    pictures = waves[lowest // THUMBNAIL][:, None, :, None] * waves[lowest % THUMBNAIL][:, None, None]
    angle = torch.deg2rad(torch.tensor(degrees))
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]])
    grid = functional.affine_grid(turn.expand(NUMBERS, 2, 3), [NUMBERS, 1, THUMBNAIL, THUMBNAIL], align_corners=False)
    turned = functional.grid_sample(pictures, grid, mode="bicubic", align_corners=False)
    return _frequencies(turned[:, 0]) * weights / weights[:, None]


@lru_cache(maxsize=4)
def mirroring(axes: int) -> torch.Tensor:
    """(256, 256) that makes of a picture's descriptor the one of its mirror image along axis 1, 2 or both (3)."""
    lowest = _lowest()[0]
    odd = (axes & 1) * (lowest // THUMBNAIL) + (axes >> 1) * (lowest % THUMBNAIL)
    return torch.diag(1.0 - 2.0 * (odd % 2))


@lru_cache(maxsize=1)
def _lowest() -> tuple[torch.Tensor, torch.Tensor]:
    """Place and frequency, in half cycles per side, of the 256 lowest cosine waves but the constant one."""
    place = torch.arange(THUMBNAIL)
    frequency = (place[:, None] ** 2 + place**2).flatten().float().sqrt()
    lowest = frequency.argsort(stable=True)[1 : NUMBERS + 1]
    return lowest, frequency[lowest]


def _frequencies(pictures: torch.Tensor) -> torch.Tensor:
    """How much of each of the 256 lowest two-dimensional cosine waves is in pictures (N, 48, 48): (N, 256)."""
    return (_cosines() @ pictures @ _cosines().T).flatten(1)[:, _lowest()[0]]


@lru_cache(maxsize=1)
def _cosines() -> torch.Tensor:
    """The cosine waves of a line of pixels, orthonormal: (48 frequencies, 48 pixels)."""
    place = torch.arange(THUMBNAIL)
    waves = torch.cos(torch.pi / THUMBNAIL * (place + 0.5) * place[:, None]) * (2 / THUMBNAIL) ** 0.5
    waves[0] /= 2**0.5
    return waves


@lru_cache(maxsize=1)
def _weights() -> torch.Tensor:
    """(256,) weights of the frequencies."""
    return torch.exp(-0.5 * (_lowest()[1] / FREQUENCY_SCALE) ** 2)


@lru_cache(maxsize=1)
def _fading() -> torch.Tensor:
    """(48, 48) weights that fall towards the border, where a turned or cropped copy differs."""
    line = torch.hann_window(THUMBNAIL + 2, periodic=False)[1:-1].sqrt()
    return line[:, None] * line
