# SPDX-License-Identifier: Apache-2.0
"""Finds copies of images, exact ones and near ones, among many files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from dual_skd.data.transforms import read_grey
from dual_skd.errors import InputError

THUMBNAIL = 64  # pixels per side of what is compared finely
HASH_BITS = 14  # perceptual hashes that differ in more of their 64 bits are not compared finely
SIMILARITY = 0.85  # correlation of fine structure from which two images count as near copies
SKETCH = 256  # numbers that stand for a fine structure in a first, cheap comparison
SKETCH_MARGIN = 0.35  # four standard deviations of that comparison's error
CHUNK = 512


@dataclass(frozen=True)
class Signature:
    """What is kept of an image to recognise its copies.

    Args:
        digest: hash of size and decoded grey values; equal for equal pictures whatever the file format.
        thumbnails: (V, 64, 64) float32: the picture, or the middle slices of a volume along its three axes.
        problem: why the file can't be read, or "".
    """

    digest: str
    thumbnails: np.ndarray
    problem: str = ""


@dataclass(frozen=True)
class Twin:
    """Two images that are copies of each other: ``exact`` ones have equal grey values, others nearly so.

    Args:
        image: path of the one.
        twin: path of the other.
        exact: whether decoded grey values are equal.
        similarity: correlation of the fine structure, 1 for exact copies.
    """

    image: str
    twin: str
    exact: bool
    similarity: float


# ------------------------------------------------------------------------------------------------------- signatures


def sign(path: str, *, spatial_dims: int = 2) -> Signature:
    """Decodes one image (as training does) and computes its signature; an unreadable file gives a ``problem``."""
    try:
        array = read_grey(path).numpy()
        if array.ndim != spatial_dims:
            raise InputError(f"it has {array.ndim} spatial axes where {spatial_dims} were expected")
        if not np.isfinite(array).all():
            raise InputError("it has values that are not finite")
    except Exception as error:  # readers raise whatever their library raises; every kind means "unreadable" here
        reason = str(error).strip().splitlines() or [""]
        return Signature("", np.zeros((0, THUMBNAIL, THUMBNAIL), np.float32), f"{type(error).__name__}: {reason[-1]}")
    digest = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array.round(2)).tobytes())
    return Signature(digest.hexdigest(), np.stack([_thumbnail(view) for view in _views(array)]))


def _views(array: np.ndarray) -> list[np.ndarray]:
    """The picture itself, or the three middle slices of a volume, through-plane axis last."""
    if array.ndim == 2:
        return [array]
    middle = [size // 2 for size in array.shape]
    return [array[:, :, middle[2]], array[:, middle[1]], array[middle[0]]]


def _thumbnail(view: np.ndarray) -> np.ndarray:
    filter_ = Image.Resampling.BOX if min(view.shape) >= THUMBNAIL else Image.Resampling.BILINEAR
    small = Image.fromarray(np.ascontiguousarray(view, dtype=np.float32)).resize((THUMBNAIL, THUMBNAIL), filter_)
    return np.asarray(small)


def perceptual_hash(thumbnails: torch.Tensor) -> torch.Tensor:
    """Signs of the 8 x 8 lowest discrete cosine frequencies against their median (the "pHash" of Zauner, 2010).

    Args:
        thumbnails: (N, 64, 64).

    Returns:
        (N, 64) of -1 and 1: the number of bits that differ between a and b is (64 - a @ b) / 2.
    """
    size = 32
    small = functional.avg_pool2d(thumbnails[:, None], THUMBNAIL // size)[:, 0]
    place = torch.arange(size)
    cosines = torch.cos(torch.pi / size * (place + 0.5) * place[:8, None])
    low = (cosines @ small @ cosines.T).flatten(1)
    return torch.where(low > low.median(dim=1, keepdim=True).values, 1.0, -1.0)


def fine_structure(thumbnails: torch.Tensor) -> torch.Tensor:
    """What is left of thumbnails without their local mean, as vectors whose dot products are correlations.

    Two chest X-rays, or two heads, share their coarse shape: whole thumbnails of different patients correlate up to
    0.96. Without the mean over 9 x 9 pixels, different patients stay under 0.75 in the sets that we looked at, and
    rescaled or re-encoded copies lie above 0.86.

    Args:
        thumbnails: (N, V, 64, 64).

    Returns:
        (N, V * 4096), zero mean and unit norm each.
    """
    padded = functional.pad(thumbnails, (4, 4, 4, 4), mode="replicate")
    fine = (thumbnails - functional.avg_pool2d(padded, 9, stride=1)).flatten(1)
    fine = fine - fine.mean(dim=1, keepdim=True)
    return fine / fine.norm(dim=1, keepdim=True).clamp_min(1e-6)


# ------------------------------------------------------------------------------------------------------------ twins


class TwinFinder:
    """Signatures of many images, computed once, and the search for copies among any of them.

    Args:
        images: paths.
        spatial_dims: 2 for images, 3 for volumes.
        workers: decoding threads; default one per processor.
    """

    def __init__(self, images: Iterable[str], *, spatial_dims: int = 2, workers: int | None = None) -> None:
        images = list(dict.fromkeys(images))
        with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
            signatures = pool.map(partial(sign, spatial_dims=spatial_dims), images)
            self.signatures: dict[str, Signature] = dict(zip(images, signatures, strict=True))
        readable = [image for image in images if not self.signatures[image].problem]
        self._row = {image: row for row, image in enumerate(readable)}
        # a copy is twice as small in half precision, and 6,000 images take 50 MB
        views = 1 if spatial_dims == 2 else 3
        self._bits = torch.empty(len(readable), 64)
        self._fine = torch.empty(len(readable), views * THUMBNAIL**2, dtype=torch.float16)
        self._sketch = torch.empty(len(readable), SKETCH)
        # a random projection keeps correlations to about 1 / 16 (Johnson and Lindenstrauss, 1984)
        projection = torch.randn(views * THUMBNAIL**2, SKETCH, generator=torch.Generator().manual_seed(0)) / SKETCH**0.5
        for start in range(0, len(readable), CHUNK):
            chunk = readable[start : start + CHUNK]
            thumbnails = torch.from_numpy(np.stack([self.signatures[image].thumbnails for image in chunk]))
            rows = slice(start, start + len(chunk))
            fine = fine_structure(thumbnails)
            self._bits[rows], self._fine[rows] = perceptual_hash(thumbnails[:, 0]), fine.half()
            self._sketch[rows] = fine @ projection

    @property
    def unreadable(self) -> dict[str, str]:
        """Path -> problem of every file that can't be used."""
        return {image: signature.problem for image, signature in self.signatures.items() if signature.problem}

    def twins(self, images: Sequence[str], others: Sequence[str], *, similarity: float = SIMILARITY) -> list[Twin]:
        """All pairs of one of ``images`` with one of ``others`` that are copies, each pair once, no image with itself.

        Only pairs with close perceptual hashes are compared finely, so 5,000 images against 5,000 take a second or two.
        """
        rows = [self._row[path] for path in dict.fromkeys(images) if path in self._row]
        columns = [self._row[path] for path in dict.fromkeys(others) if path in self._row]
        names = list(self._row)
        found: dict[tuple[int, int], Twin] = {}

        def add(row: int, column: int, exact: bool, value: float) -> None:
            pair = (min(row, column), max(row, column))
            if row != column and pair not in found:
                found[pair] = Twin(names[row], names[column], exact, round(min(value, 1.0), 4))

        by_digest: dict[str, list[int]] = {}
        for column in columns:
            by_digest.setdefault(self.signatures[names[column]].digest, []).append(column)
        for row in rows:
            for column in by_digest.get(self.signatures[names[row]].digest, ()):
                add(row, column, True, 1.0)
        for row, column, value in self._near(torch.tensor(rows), torch.tensor(columns), similarity):
            add(row, column, False, value)
        return list(found.values())

    def _near(self, rows: torch.Tensor, columns: torch.Tensor, similarity: float) -> Iterator[tuple[int, int, float]]:
        """Pairs (row, column, correlation) above ``similarity``, from cheap comparison to dear."""
        if len(columns) == 0:
            return
        bits = self._bits[columns].T
        for chunk in rows.split(CHUNK) if len(rows) else ():
            first, second = torch.nonzero(self._bits[chunk] @ bits >= 64 - 2 * HASH_BITS, as_tuple=True)
            for r, c in zip(chunk[first].split(2**15), columns[second].split(2**15), strict=True):
                rough = (self._sketch[r] * self._sketch[c]).sum(dim=1) >= similarity - SKETCH_MARGIN
                r, c = r[rough], c[rough]
                for some_r, some_c in zip(r.split(2**11), c.split(2**11), strict=True):
                    values = (self._fine[some_r].float() * self._fine[some_c].float()).sum(dim=1)
                    for k in torch.nonzero(values >= similarity).flatten().tolist():
                        yield int(some_r[k]), int(some_c[k]), values[k].item()

    def drop_twins(self, records: Sequence[dict], known: Sequence[dict]) -> tuple[list[dict], list[dict]]:
        """Separates the records with a twin among ``known`` ones from the rest.

        Args:
            records: dicts with the path "image".
            known: the same, of what must not be met again (the training set).

        Returns:
            (kept, left_out): the records without a twin as they are, and the others with the keys "twin" (path of the
            most similar known image), "similarity" and "exact" added; the order is kept in both.
        """
        best: dict[str, Twin] = {}
        for twin in self.twins([r["image"] for r in records], [r["image"] for r in known]):
            if twin.image not in best or twin.similarity > best[twin.image].similarity:
                best[twin.image] = twin
        kept = [record for record in records if record["image"] not in best]
        left_out = [
            {**record, "twin": twin.twin, "similarity": twin.similarity, "exact": twin.exact}
            for record in records
            if (twin := best.get(record["image"]))
        ]
        return kept, left_out

    def without_twins(self, records: list[dict], known: list[dict], notes: list[str], split: str) -> list[dict]:
        """Leaves out the records with a twin among ``known`` ones, and adds a note saying how many."""
        kept, left_out = self.drop_twins(records, known)
        if left_out:
            exact = sum(record["exact"] for record in left_out)
            notes.append(
                f"{len(left_out)} of {len(records)} {split} images were left out because a twin of them is "
                f"in training ({exact} exact, {len(left_out) - exact} near copies)"
            )
        return kept

    def refuse_unreadable(self) -> None:
        """Raises :class:`InputError` when any image can't be read."""
        if self.unreadable:
            image, problem = next(iter(self.unreadable.items()))
            others = f" (and {len(self.unreadable) - 1} more)" if len(self.unreadable) > 1 else ""
            raise InputError(f"The image {image}{others} can't be read: {problem}; replace or remove it.")
