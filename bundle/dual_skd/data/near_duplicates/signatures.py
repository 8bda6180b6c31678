# SPDX-License-Identifier: Apache-2.0
"""Signatures of images: a digest of the grey values, and a descriptor of 256 numbers per view."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from dual_skd.data.near_duplicates.similarity import SIZE_PIXELS, standardise
from dual_skd.data.reading.grey import read_grey
from dual_skd.errors import InputError

VERSION = 2  # of digest, descriptor and similarity; stored results of other versions aren't used
THUMBNAIL_PIXELS = 48  # side of the pictures that descriptors are computed from
NEIGHBOURHOOD_PIXELS = 5.0  # of a thumbnail, over which brightness and contrast are evened out
FREQUENCIES = 256  # cosine frequencies of a view: all up to 9 cycles per picture side
FREQUENCY_SCALE = 12.0  # half cycles at which a weight has fallen to exp(-1/2): shifts disturb high frequencies


@dataclass(frozen=True)
class Signature:
    """What the search for near duplicates knows of an image.

    Args:
        digest: hash of size and decoded grey values; equal for equal pictures, whatever the file format.
        descriptor: (V * 256,) float16, see :func:`describe`; V is 1 for a picture and 3 for a volume.
        views: input of the fine comparison, see :func:`views_to_compare`; None if the signature was stored earlier.
        problem: why the file can't be read, or "".
    """

    digest: str
    descriptor: np.ndarray
    views: np.ndarray | None = None
    problem: str = ""


def read_finite(image: str, *, spatial_dims: int = 2) -> np.ndarray:
    """Decodes an image as training does, to (W, H) or (X, Y, Z) float32.

    Raises:
        InputError: the image can't be read, has other dimensions, or values that are not finite.
    """
    array = read_grey(image, spatial_dims=spatial_dims).numpy()
    if not np.isfinite(array).all():
        raise InputError(f"{image} has values that are not finite (NaN or infinity); export it again or leave it out.")
    return array


def views_of(array: np.ndarray, size: int) -> np.ndarray:
    """The picture itself, or the three middle slices of a volume, resized to squares: (V, size, size) float32."""
    x, y, *z = (length // 2 for length in array.shape)
    squares = []
    for view in [array[:, :, z[0]], array[:, y], array[x]] if z else [array]:
        # a large picture is averaged: a sample of its pixels would depend on their noise
        kind = Image.Resampling.BOX if min(view.shape) >= size else Image.Resampling.BICUBIC
        squares.append(Image.fromarray(np.ascontiguousarray(view, dtype=np.float32)).resize((size, size), kind))
    return np.stack([np.asarray(square) for square in squares])


def digest_of(array: np.ndarray) -> str:
    """Hash of shape and grey values, rounded to hundredths, as readers differ in the last bits of a luma.

    Values with a small span, such as those of an ADC map in mm2/s, are rounded to 1/10,000 of their span or less.
    """
    digest = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    span = float(np.ptp(array))
    digits = max(2, 4 - math.floor(math.log10(span))) if span > 0 else 2
    digest.update(np.ascontiguousarray(array.round(digits)).tobytes())
    return digest.hexdigest()


def views_to_compare(array: np.ndarray) -> np.ndarray:
    """Views for the fine comparison, each stretched to the range of whole numbers: (V, 96, 96) uint16."""
    views = views_of(array, SIZE_PIXELS)
    low, high = views.min((1, 2), keepdims=True), views.max((1, 2), keepdims=True)
    return np.rint((views - low) * (np.iinfo(np.uint16).max / np.maximum(high - low, 1e-12))).astype(np.uint16)


def signature_of(array: np.ndarray) -> Signature:
    """Computes the signature of a decoded image, see :func:`read_finite`."""
    thumbnails = torch.from_numpy(views_of(array, THUMBNAIL_PIXELS))
    return Signature(digest_of(array), describe(thumbnails[None])[0].half().numpy(), views_to_compare(array))


def describe(thumbnails: torch.Tensor) -> torch.Tensor:
    """Low cosine frequencies of locally standardised thumbnails, as vectors whose dot products are correlations.

    Local standardisation removes brightness, contrast and gamma; a few frequencies ignore compression and resizing.
    They are linear, so the descriptor of a turned picture follows from the upright one's (:func:`turning`).

    Args:
        thumbnails: (N, V, 48, 48).

    Returns:
        (N, V * 256), unit norm, or zero for a picture without any structure.
    """
    images, views = thumbnails.shape[:2]
    fine = standardise(thumbnails.flatten(0, 1), NEIGHBOURHOOD_PIXELS) * _FADE
    return unit((_frequencies(fine) * _WEIGHTS).view(images, views * FREQUENCIES))


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors (N, K) scaled to norm 1; zero stays zero."""
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-6)


@lru_cache(maxsize=8)
def turning(degrees: float) -> torch.Tensor:
    """Matrix (256, 256) with which a descriptor is multiplied to get, nearly, that of the turned picture."""
    size = THUMBNAIL_PIXELS
    pictures = _COSINES[_LOWEST // size][:, None, :, None] * _COSINES[_LOWEST % size][:, None, None]
    angle = torch.deg2rad(torch.tensor(degrees))
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0]])
    grid = functional.affine_grid(turn.expand(FREQUENCIES, 2, 3), [FREQUENCIES, 1, size, size], align_corners=False)
    turned = functional.grid_sample(pictures, grid, mode="bicubic", align_corners=False)
    return _frequencies(turned[:, 0]) * _WEIGHTS / _WEIGHTS[:, None]


@lru_cache(maxsize=4)
def mirroring(axes: int) -> torch.Tensor:
    """Matrix (256, 256) that mirrors a descriptor's picture along axis 1, 2 or both (3)."""
    odd = (axes & 1) * (_LOWEST // THUMBNAIL_PIXELS) + (axes >> 1) * (_LOWEST % THUMBNAIL_PIXELS)
    return torch.diag(1.0 - 2.0 * (odd % 2))


def _frequencies(pictures: torch.Tensor) -> torch.Tensor:
    """Amplitudes (N, 256) of the lowest two-dimensional cosine waves in pictures (N, 48, 48)."""
    return (_COSINES @ pictures @ _COSINES.T).flatten(1)[:, _LOWEST]


def _cosines() -> torch.Tensor:
    """The orthonormal cosine waves of a line of pixels: (48 frequencies, 48 pixels)."""
    waves = torch.cos(torch.pi / THUMBNAIL_PIXELS * (_PLACE + 0.5) * _PLACE[:, None]) * (2 / THUMBNAIL_PIXELS) ** 0.5
    waves[0] /= 2**0.5
    return waves


def _fade() -> torch.Tensor:
    """Weights (48, 48) that fall towards the border, where a turned or cropped copy differs."""
    line = torch.hann_window(THUMBNAIL_PIXELS + 2, periodic=False)[1:-1].sqrt()
    return line[:, None] * line


_PLACE = torch.arange(THUMBNAIL_PIXELS)
_COSINES, _FADE = _cosines(), _fade()
_FREQUENCY = (_PLACE[:, None] ** 2 + _PLACE**2).flatten().float().sqrt()
_LOWEST = _FREQUENCY.argsort(stable=True)[1 : FREQUENCIES + 1]  # the first is the constant wave
_WEIGHTS = torch.exp(-0.5 * (_FREQUENCY[_LOWEST] / FREQUENCY_SCALE) ** 2)
