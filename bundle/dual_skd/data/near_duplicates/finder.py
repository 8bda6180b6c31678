# SPDX-License-Identifier: Apache-2.0
"""Finds near duplicates and exact copies among many images."""

from __future__ import annotations

import os
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from dual_skd.data.near_duplicates import signature_cache
from dual_skd.data.near_duplicates.candidates import candidates, grouped_by_image
from dual_skd.data.near_duplicates.signatures import FREQUENCIES, read_finite, views_to_compare
from dual_skd.data.near_duplicates.similarity import pair_similarities
from dual_skd.errors import InputError
from dual_skd.options.shared import SIMILARITY
from dual_skd.utils.progress import bar

PROBABLE_SIMILARITY = 0.80  # between here and SIMILARITY lie edited copies and neighbouring slices: the user decides
IMAGES_PER_CHUNK = 1024  # images in the decoding queue at a time
PAIRS_PER_STEP = 512  # pairs per step of the fine comparison


@dataclass(frozen=True)
class NearDuplicate:
    """Two images that show the same picture.

    Args:
        image: path of the one.
        other: path of the other.
        exact: whether the decoded grey values are equal.
        similarity: correlation of the fine structure, 1 for exact copies.
    """

    image: str
    other: str
    exact: bool
    similarity: float


class NearDuplicateFinder:
    """Holds the signatures of many images and searches any of them for near duplicates.

    Args:
        images: paths.
        spatial_dims: 2 for images, 3 for volumes.
        cache: whether signatures are stored on disk and read from there (:mod:`.signature_cache`).
        signatures: known signatures; the other images are decoded.
    """

    def __init__(
        self,
        images: Iterable[str],
        *,
        spatial_dims: int = 2,
        cache: bool = True,
        signatures: signature_cache.Signatures | None = None,
    ) -> None:
        self._spatial_dims = spatial_dims
        self._cache = cache
        images = list(dict.fromkeys(images))
        signatures = signatures or signature_cache.Signatures(images, spatial_dims=spatial_dims, cache=cache)
        missing = [image for image in images if image not in signatures]
        with ThreadPoolExecutor(os.cpu_count()) as pool, bar(None, "Comparing images", len(missing)) as progress:
            for start in range(0, len(missing), IMAGES_PER_CHUNK):
                for _ in pool.map(signatures.decode, missing[start : start + IMAGES_PER_CHUNK]):
                    progress.update()
        signatures.store()
        self.unreadable = {image: signatures[image].problem for image in images if signatures[image].problem}
        distinct: dict[str, str] = {}  # digest -> first image with these grey values; its place is the row
        for image in images:
            if image not in self.unreadable:
                distinct.setdefault(signatures[image].digest, image)
        rows = {digest: row for row, digest in enumerate(distinct)}
        self._row = {image: rows[signatures[image].digest] for image in images if image not in self.unreadable}
        self._digests, self._images = list(distinct), list(distinct.values())
        found = [signatures[image] for image in self._images]
        length = FREQUENCIES * (1 if spatial_dims == 2 else 3)
        self._descriptors = np.array([one.descriptor for one in found], np.float16).reshape(-1, length)
        # row -> views for the fine comparison, the least recently used first
        self._views = OrderedDict((row, one.views) for row, one in enumerate(found) if one.views is not None)

    def find(
        self, images: Sequence[str], others: Sequence[str], *, min_similarity: float = SIMILARITY
    ) -> list[NearDuplicate]:
        """Finds all pairs of one of ``images`` with one of ``others`` that are near duplicates, each pair once.

        Where both images of a pair are in both lists, ``NearDuplicate.image`` is the one that comes first in
        ``images``. Unreadable images are ignored.

        Args:
            images: paths that were given to the finder.
            others: the same.
            min_similarity: lowest similarity of near duplicates that are not exact copies.
        """
        first, second = self._by_row(images), self._by_row(others)
        place = {image: number for number, image in enumerate(images)}
        in_both = set(images) & set(others)
        found: dict[frozenset[str], NearDuplicate] = {}

        def add(row: int, other_row: int, exact: bool, similarity: float) -> None:
            for image, other in product(first.get(row, ()), second.get(other_row, ())):
                if {image, other} <= in_both and place[image] > place[other]:
                    image, other = other, image
                if image != other:
                    pair = NearDuplicate(image, other, exact, round(similarity, 4))
                    found.setdefault(frozenset((image, other)), pair)

        for row in first:
            add(row, row, True, 1.0)
        for (row, other, _), similarity in self._similarities(list(first), list(second)).items():
            if similarity >= min_similarity:
                add(row, other, False, similarity)
                add(other, row, False, similarity)
        return list(found.values())

    def find_best(
        self, images: Sequence[str], known: Sequence[str], *, min_similarity: float = SIMILARITY
    ) -> dict[str, NearDuplicate]:
        """Finds the most similar known image of each image that has a near duplicate.

        Args:
            images: paths.
            known: paths of the training set.
            min_similarity: see :meth:`find`.
        """
        best: dict[str, NearDuplicate] = {}
        pairs = self.find(images, known, min_similarity=min_similarity)
        for pair in sorted(pairs, key=lambda pair: -pair.similarity):
            best.setdefault(pair.image, pair)
        # find() pairs no image with itself
        return best | {image: NearDuplicate(image, image, True, 1.0) for image in set(images) & set(known)}

    def refuse_unreadable(self) -> None:
        """Raises :class:`InputError` when any image can't be read."""
        if self.unreadable:
            image, problem = next(iter(self.unreadable.items()))
            others = f" (and {len(self.unreadable) - 1} more)" if len(self.unreadable) > 1 else ""
            raise InputError(f"The image {image}{others} can't be read: {problem}")

    def _by_row(self, images: Sequence[str]) -> dict[int, list[str]]:
        groups: dict[int, list[str]] = defaultdict(list)
        for image in dict.fromkeys(images):
            if image in self._row:
                groups[self._row[image]].append(image)
        return groups

    def _similarities(self, first: list[int], second: list[int]) -> dict[tuple[int, int, int], float]:
        """Similarity of each candidate pair, see :func:`candidates`."""
        rows, columns = (torch.tensor(part, dtype=torch.int64) for part in (first, second))
        pairs = candidates(torch.from_numpy(self._descriptors), rows, columns)
        digest = self._digests
        keys = {pair: signature_cache.pair_key(digest[pair[0]], digest[pair[1]], pair[2]) for pair in pairs}
        stored = signature_cache.load_similarities(list(keys.values())) if self._cache else {}
        values = {pair: stored[key] for pair, key in keys.items() if key in stored}
        pairs = grouped_by_image([pair for pair in pairs if pair not in values])
        with ThreadPoolExecutor(os.cpu_count()) as pool, bar(None, "Comparing likely copies", len(pairs)) as progress:
            for start in range(0, len(pairs), PAIRS_PER_STEP):
                step = pairs[start : start + PAIRS_PER_STEP]
                new = dict(zip(step, self._compare(step, pool), strict=True))
                if self._cache:
                    signature_cache.store_similarities({keys[pair]: value for pair, value in new.items()})
                values |= new
                progress.update(len(step))
        return values

    def _compare(self, pairs: list[tuple[int, int, int]], pool: ThreadPoolExecutor) -> list[float]:
        """Similarity of pairs; of volumes, that of the least similar view."""
        rows, mirrored = torch.tensor(pairs).split((2, 1), dim=1)
        needed, place = rows.unique(return_inverse=True)
        views = self._views_of(needed.tolist(), pool)
        values = [pair_similarities(pictures, place[:, 0], place[:, 1], mirrored[:, 0]) for pictures in views]
        return torch.stack(values).amin(dim=0).clamp(max=1.0).tolist()

    def _views_of(self, rows: list[int], pool: ThreadPoolExecutor) -> torch.Tensor:
        """Views (V, K, 96, 96) of images, decoded where memory doesn't hold them."""

        def decode(row: int) -> np.ndarray:
            return views_to_compare(read_finite(self._images[row], spatial_dims=self._spatial_dims))

        missing = [row for row in rows if row not in self._views]
        self._views.update(zip(missing, pool.map(decode, missing), strict=True))
        for row in rows:
            self._views.move_to_end(row)
        views = np.stack([self._views[row] for row in rows], axis=1).astype(np.float32)
        while len(self._views) > signature_cache.MAX_IMAGES_IN_MEMORY[self._spatial_dims]:
            self._views.popitem(last=False)
        return torch.from_numpy(views)
