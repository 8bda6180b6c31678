# SPDX-License-Identifier: Apache-2.0
"""Finds copies of images, exact ones and near ones, among many files."""

from __future__ import annotations

import os
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from dual_skd.data.near_duplicates import signature_cache
from dual_skd.data.near_duplicates.candidates import candidates, side_by_side
from dual_skd.data.near_duplicates.signatures import NUMBERS, Signature, read_finite, views_to_compare
from dual_skd.data.near_duplicates.similarity import likeness
from dual_skd.errors import InputError
from dual_skd.options.shared import SIMILARITY
from dual_skd.utils.progress import bar

PROBABLE = 0.80  # from here, in some sets, pairs are sharpened copies, in others neighbouring slices: for a user to see
CHUNK = 1024  # images that are under way at a time, so that memory doesn't grow with their number
PAIRS = 512  # pairs per step of the fine comparison


@dataclass(frozen=True)
class Twin:
    """Two images that are copies of each other: ``exact`` ones have equal grey values, others nearly so.

    Args:
        image: path of the one.
        twin: path of the other.
        exact: whether decoded grey values are equal.
        similarity: likeness of the fine structure where it is least alike, 1 for exact copies.
    """

    image: str
    twin: str
    exact: bool
    similarity: float


def count_cached(images: Sequence[str], *, spatial_dims: int = 2) -> int:
    """How many images a :class:`TwinFinder` would not have to decode, as an earlier one has kept their signatures."""
    keys = (signature_cache.key_of(image, spatial_dims=spatial_dims) for image in images)
    return signature_cache.count([key for key in keys if key])


class TwinFinder:
    """Signatures of many images, computed once, and the search for copies among any of them.

    Args:
        images: paths.
        spatial_dims: 2 for images, 3 for volumes.
        workers: decoding threads; default one per processor.
        cache: whether signatures are kept on disk and taken from there (:mod:`.signature_cache`).
        signatures: of these images, as far as they are known; the others are decoded.
    """

    def __init__(
        self,
        images: Iterable[str],
        *,
        spatial_dims: int = 2,
        workers: int | None = None,
        cache: bool = True,
        signatures: signature_cache.Signatures | None = None,
    ) -> None:
        self._spatial_dims = spatial_dims
        self._cache = cache
        self._workers = workers or os.cpu_count() or 1
        images = list(dict.fromkeys(images))
        signatures = signatures or signature_cache.Signatures(images, spatial_dims=spatial_dims, cache=cache)
        unknown = [image for image in images if image not in signatures]
        with ThreadPoolExecutor(self._workers) as pool, bar(None, "Comparing images", len(unknown)) as seen:
            for start in range(0, len(unknown), CHUNK):
                for _ in pool.map(signatures.decode, unknown[start : start + CHUNK]):
                    seen.update()
        signatures.store()
        self.unreadable: dict[str, str] = {}  # path -> problem of every file that can't be used
        self._digest: dict[str, str] = {}
        self._members: dict[str, list[str]] = defaultdict(list)  # equal images by digest
        self._descriptors = np.empty((len(images), NUMBERS * (1 if spatial_dims == 2 else 3)), np.float16)
        self._row: dict[str, int] = {}  # digest -> row of the descriptors
        self._views: OrderedDict[int, np.ndarray] = OrderedDict()  # row -> what is compared finely, as far as kept
        for image in images:
            self._add(image, signatures[image])
        self._descriptors = self._descriptors[: len(self._row)]

    def _add(self, image: str, signature: Signature) -> None:
        if signature.problem:
            self.unreadable[image] = signature.problem
            return
        self._digest[image] = signature.digest
        self._members[signature.digest].append(image)
        if signature.digest not in self._row:
            row = self._row[signature.digest] = len(self._row)
            self._descriptors[row] = signature.descriptor
            if signature.views is not None:
                self._views[row] = signature.views

    def twins(self, images: Sequence[str], others: Sequence[str], *, similarity: float = SIMILARITY) -> list[Twin]:
        """All pairs of one of ``images`` with one of ``others`` that are copies, each pair once, no image with itself.

        Where both images of a pair are in both lists, the one that comes first in ``images`` is ``Twin.image``.

        Args:
            images: paths that were given to the finder; unreadable ones are passed over.
            others: the same.
            similarity: likeness from which two images that are not equal count as copies.
        """
        first, second = self._by_digest(images), self._by_digest(others)
        place = {image: number for number, image in enumerate(images)}
        swappable = set(images) & set(others)
        found: dict[frozenset[str], Twin] = {}

        def add(digest: str, other: str, exact: bool, value: float) -> None:
            for image in first.get(digest, ()):
                for twin in second.get(other, ()):
                    pair = frozenset((image, twin))
                    if image == twin or pair in found:
                        continue
                    if {image, twin} <= swappable and place[image] > place[twin]:
                        found[pair] = Twin(twin, image, exact, round(value, 4))
                    else:
                        found[pair] = Twin(image, twin, exact, round(value, 4))

        for digest in first:
            add(digest, digest, True, 1.0)
        for digest, other, value in self._near(list(first), list(second), similarity):
            add(digest, other, False, value)
            add(other, digest, False, value)
        return list(found.values())

    def _by_digest(self, images: Sequence[str]) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = defaultdict(list)
        for image in dict.fromkeys(images):
            if image in self._digest:
                groups[self._digest[image]].append(image)
        return groups

    def _near(self, first: list[str], second: list[str], similarity: float) -> Iterator[tuple[str, str, float]]:
        """Pairs of digests with likeness of at least ``similarity``."""
        digests = list(self._row)
        rows, columns = (torch.tensor([self._row[d] for d in some], dtype=torch.int64) for some in (first, second))
        pairs = candidates(torch.from_numpy(self._descriptors), rows, columns)
        keys = {pair: signature_cache.pair_key(digests[pair[0]], digests[pair[1]], pair[2]) for pair in pairs}
        known = signature_cache.load_likenesses(list(keys.values())) if self._cache else {}
        for pair in pairs:
            if known.get(keys[pair], 0.0) >= similarity:
                yield digests[pair[0]], digests[pair[1]], known[keys[pair]]
        pairs = [pair for pair in pairs if keys[pair] not in known]
        for some, values in self._compared(pairs, digests):
            if self._cache:
                signature_cache.store_likenesses({keys[pair]: value for pair, value in zip(some, values, strict=True)})
            for (row, column, _), value in zip(some, values, strict=True):
                if value >= similarity:
                    yield digests[row], digests[column], value

    def _compared(
        self, pairs: list[tuple[int, int, int]], digests: list[str]
    ) -> Iterator[tuple[list[tuple[int, int, int]], list[float]]]:
        """Candidate pairs with their likeness, some at a time."""
        with ThreadPoolExecutor(self._workers) as pool, bar(None, "Comparing likely copies", len(pairs)) as compared:
            pairs = side_by_side(pairs)
            for start in range(0, len(pairs), PAIRS):
                some = pairs[start : start + PAIRS]
                rows, mirrored = torch.tensor(some).split((2, 1), dim=1)
                wanted, place = rows.unique(return_inverse=True)
                views = self._views_of(wanted.tolist(), digests, pool)
                values = [likeness(pictures, place[:, 0], place[:, 1], mirrored[:, 0]) for pictures in views]
                yield some, torch.stack(values).amin(dim=0).clamp(max=1.0).tolist()
                compared.update(len(some))

    def _views_of(self, rows: list[int], digests: list[str], pool: ThreadPoolExecutor) -> torch.Tensor:
        """Views (V, K, 96, 96) of images, which are decoded unless they are kept."""

        def decode(row: int) -> np.ndarray:
            return views_to_compare(read_finite(self._members[digests[row]][0], spatial_dims=self._spatial_dims))

        missing = [row for row in rows if row not in self._views]
        self._views.update(zip(missing, pool.map(decode, missing), strict=True))
        for row in rows:
            self._views.move_to_end(row)
        views = np.stack([self._views[row] for row in rows], axis=1).astype(np.float32)
        while len(self._views) > signature_cache.KEPT[self._spatial_dims]:
            self._views.popitem(last=False)
        return torch.from_numpy(views)

    def best_twins(
        self, images: Sequence[str], known: Sequence[str], *, similarity: float = SIMILARITY
    ) -> dict[str, Twin]:
        """The most similar known image of each image that has one.

        Args:
            images: locators.
            known: locators of what must not be met again, the training set.
            similarity: see :meth:`twins`.
        """
        best: dict[str, Twin] = {}
        for each in self.twins(images, known, similarity=similarity):
            if each.image not in best or each.similarity > best[each.image].similarity:
                best[each.image] = each
        # the same file in both lists is the plainest near duplicate
        best.update({image: Twin(image, image, True, 1.0) for image in set(images) & set(known)})
        return best

    def refuse_unreadable(self) -> None:
        """Raises :class:`InputError` when any image can't be read."""
        if self.unreadable:
            image, problem = next(iter(self.unreadable.items()))
            others = f" (and {len(self.unreadable) - 1} more)" if len(self.unreadable) > 1 else ""
            raise InputError(f"The image {image}{others} can't be read: {problem}")
