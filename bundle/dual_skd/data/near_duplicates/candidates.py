# SPDX-License-Identifier: Apache-2.0
"""Picks, among all pairs of images, the few that are worth a fine comparison."""

from __future__ import annotations

import logging
from collections import defaultdict, deque

import torch

from dual_skd.data.near_duplicates.signatures import FREQUENCIES, mirroring, turning, unit

logger = logging.getLogger(__name__)

MIN_CORRELATION = 0.6  # of whitened descriptors
TURNS_DEGREES = (-3.3, 3.3)  # tried besides 0; descriptors of angles in between differ little
MAX_PER_IMAGE = 50
BLOCK_ROWS, BLOCK_COLUMNS = 512, 8192  # of the all-pairs comparison, whose memory stays small this way
PRIOR_IMAGES = 200  # weight of unrelated pictures in the whitening


def candidates(descriptors: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> list[tuple[int, int, int]]:
    """Finds the pairs of images with similar descriptors.

    Args:
        descriptors: (N, V * 256) float16 of all images of the set, which are all different.
        first: (A,) rows of the ones.
        second: (B,) rows of the others.

    Returns:
        (one, other, axes along which the one is to be mirrored: 0 none, 1 first, 2 second, 3 both), every pair once.
    """
    if not len(first) or not len(second):
        return []
    mean, matrix = whitening(descriptors)
    # a turn or a mirror image would put other slices of a volume into its middle, so volumes are taken as they are
    is_plane = descriptors.shape[1] == FREQUENCIES
    changes = [turning(angle) for angle in TURNS_DEGREES] + [mirroring(axes) for axes in (1, 2, 3)] if is_plane else []
    mirrors = torch.tensor([0, *(0 for _ in TURNS_DEGREES), 1, 2, 3] if is_plane else [0])
    others = torch.cat([unit((descriptors[rows].float() - mean) @ matrix) for rows in second.split(BLOCK_COLUMNS)])
    is_symmetric = torch.equal(first, second)  # then the blocks below the diagonal hold the same pairs again
    found: dict[tuple[int, int], int] = {}
    crowded = 0
    for start in range(0, len(first), BLOCK_ROWS):
        rows = first[start : start + BLOCK_ROWS]
        upright = descriptors[rows].float()
        versions = [upright, *(unit(upright @ change) for change in changes)]
        queries = torch.stack([unit((version - mean) @ matrix) for version in versions])
        row, column = _correlated(queries, others, start if is_symmetric else 0)
        differ = rows[row] != second[column]
        row, column = row[differ], column[differ]
        value, version = _best_version(queries, others, row, column)
        order = value.argsort(descending=True, stable=True)
        order = order[row[order].argsort(stable=True)]  # by row, best first
        row, column, mirror = row[order], second[column[order]], mirrors[version[order]]
        rank = torch.arange(len(row)) - torch.searchsorted(row, row)
        crowded += int((rank == MAX_PER_IMAGE).sum())
        pairs = torch.stack([rows[row], column, mirror], dim=1)[rank < MAX_PER_IMAGE]
        for one, other, axes in pairs.tolist():
            if (other, one) not in found:
                found[one, other] = axes
    if crowded:
        logger.warning(
            "%d images resemble more than %d others each: only the most similar %d were compared finely.",
            crowded, MAX_PER_IMAGE, MAX_PER_IMAGE,
        )  # fmt: skip
    return [(one, other, axes) for (one, other), axes in found.items()]


def _correlated(queries: torch.Tensor, others: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of every pair with ``MIN_CORRELATION`` in some version of the query, from a column on."""
    hits = []
    for left in range(start, len(others), BLOCK_COLUMNS):
        block = others[left : left + BLOCK_COLUMNS].T
        best = queries[0] @ block
        for query in queries[1:]:
            torch.maximum(best, query @ block, out=best)
        hits.append(torch.nonzero(best >= MIN_CORRELATION) + torch.tensor([0, left]))
    row, column = torch.cat(hits).unbind(dim=1)
    return row, column


def _best_version(
    queries: torch.Tensor, others: torch.Tensor, row: torch.Tensor, column: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Highest correlation over the versions of a query, and the number of that version, for every pair."""
    parts = zip(row.split(BLOCK_COLUMNS), column.split(BLOCK_COLUMNS), strict=True)
    best = torch.cat([(queries[:, r] * others[c]).sum(dim=2) for r, c in parts], dim=1).max(dim=0)
    return best.values, best.indices


def whitening(descriptors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and matrix that whiten descriptors, so that what all images of a set share counts less.

    Chest X-rays of any two people share ribs and outline. Whitening subtracts the mean and divides by the square root
    of the covariance. Both are estimated as if ``PRIOR_IMAGES`` unrelated pictures belonged to the set, so small sets
    hardly change.

    Args:
        descriptors: (N, K), of any precision, of images that are all different.

    Returns:
        mean (K,) and matrix (K, K); the whitened form of a descriptor d is (d - mean) @ matrix.
    """
    count, length = descriptors.shape
    mean = descriptors.sum(dim=0, dtype=torch.float32) / (count + PRIOR_IMAGES)
    scatter = torch.zeros(length, length)
    for chunk in descriptors.split(BLOCK_COLUMNS):
        scatter += (chunk.float() - mean).T @ (chunk.float() - mean)
    covariance = (scatter + PRIOR_IMAGES / length * torch.eye(length)) / (count + PRIOR_IMAGES)
    values, vectors = torch.linalg.eigh(covariance)
    return mean, vectors @ torch.diag((values.clamp_min(0) + 0.3 / length).rsqrt()) @ vectors.T


def grouped_by_image(pairs: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Sorts pairs breadth first, so that those of the same images come close together.

    Args:
        pairs: result of :func:`candidates`.
    """
    pairs_of: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for pair in pairs:
        for row in pair[:2]:
            pairs_of[row].append(pair)
    ordered: dict[tuple[int, int, int], None] = {}
    visited: set[int] = set()
    for start in pairs_of:
        queue = deque([start])
        while queue:
            row = queue.popleft()
            if row not in visited:
                visited.add(row)
                ordered |= dict.fromkeys(pairs_of[row])
                queue.extend(other for pair in pairs_of[row] for other in pair[:2])
    return list(ordered)
