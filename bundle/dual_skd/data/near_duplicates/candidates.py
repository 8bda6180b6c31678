# SPDX-License-Identifier: Apache-2.0
"""Picks, among all pairs of images, the few that are worth a fine comparison."""

from __future__ import annotations

import logging
from collections import defaultdict, deque

import torch

from dual_skd.data.near_duplicates.signatures import NUMBERS, mirroring, turning, unit

logger = logging.getLogger(__name__)

CANDIDATE = 0.6  # correlation of distinct descriptors from which two images are compared finely
ANGLES = (-3.3, 3.3)  # degrees by which a picture is turned besides 0; what lies between is alike enough
MOST = 50  # candidates per image
ROWS, COLUMNS = 512, 8192  # of a block of the all-pairs comparison


def candidates(descriptors: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> list[tuple[int, int, int]]:
    """Pairs of images with similar descriptors, found in blocks: memory doesn't grow with the number of all pairs.

    Args:
        descriptors: (N, V * 256) float16 of all images of the set, which are all different.
        first: (A,) rows of the ones.
        second: (B,) rows of the others.

    Returns:
        (one, other, which axes of the one are to be mirrored: 1 first, 2 second, 3 both), every pair once.
    """
    if not len(first) or not len(second):
        return []
    mean, matrix = contrast(descriptors)
    # volumes are taken as they are: a turn or a mirror image would put other slices into their middle
    plane = descriptors.shape[1] == NUMBERS
    changes = [turning(angle) for angle in ANGLES] + [mirroring(axes) for axes in (1, 2, 3)] if plane else []
    mirrors = torch.tensor([0, *(0 for _ in ANGLES), 1, 2, 3] if plane else [0])
    distinct = torch.cat([unit((descriptors[rows].float() - mean) @ matrix) for rows in second.split(COLUMNS)])
    symmetric = torch.equal(first, second)  # then the blocks below the diagonal hold the same pairs again
    found: dict[tuple[int, int], int] = {}
    crowded = 0
    for start in range(0, len(first), ROWS):
        rows = first[start : start + ROWS]
        upright = descriptors[rows].float()
        versions = [upright, *(unit(upright @ change) for change in changes)]
        queries = torch.stack([unit((version - mean) @ matrix) for version in versions])
        hits = []
        for left in range(start if symmetric else 0, len(second), COLUMNS):
            block = distinct[left : left + COLUMNS].T
            best = queries[0] @ block
            for query in queries[1:]:
                torch.maximum(best, query @ block, out=best)
            row, column = torch.nonzero(best >= CANDIDATE, as_tuple=True)
            hits.append((row, column + left))
        row, column = (torch.cat(part) for part in zip(*hits, strict=True))
        differ = rows[row] != second[column]
        row, column = row[differ], column[differ]
        value, version = _best(queries, distinct, row, column)
        column, mirror = second[column], mirrors[version]
        order = value.argsort(descending=True, stable=True)
        order = order[row[order].argsort(stable=True)]  # by row, best first
        row, column, mirror = row[order], column[order], mirror[order]
        rank = torch.arange(len(row)) - torch.searchsorted(row, row)
        crowded += int((rank == MOST).sum())
        kept = rank < MOST
        for one, other, axes in zip(
            rows[row[kept]].tolist(), column[kept].tolist(), mirror[kept].tolist(), strict=True
        ):
            if (other, one) not in found:
                found[one, other] = axes
    if crowded:
        logger.warning(
            "%d images resemble more than %d others each: only the most similar %d were compared finely.",
            crowded,
            MOST,
            MOST,
        )
    return [(one, other, axes) for (one, other), axes in found.items()]


def _best(
    queries: torch.Tensor, distinct: torch.Tensor, row: torch.Tensor, column: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Highest correlation over the versions of a query, and which version has it, for every pair of row and column."""
    parts = zip(row.split(COLUMNS), column.split(COLUMNS), strict=True)
    values = [(queries[:, r] * distinct[c]).sum(dim=2) for r, c in parts]
    best = torch.cat(values, dim=1).max(dim=0)
    return best.values, best.indices


def contrast(descriptors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and matrix that make the descriptors of a set more distinct: what all its images share counts less.

    Chest X-rays of any two people share ribs and outline. Subtracting the mean and dividing by the square root of the
    covariance (whitening), both drawn towards those of unrelated pictures as if 200 of them belonged to the set, takes
    the shared part away, and leaves small sets as they are.

    Args:
        descriptors: (N, K), of any precision, of images that are all different.

    Returns:
        mean (K,) and matrix (K, K); the distinct form of a descriptor d is (d - mean) @ matrix.
    """
    count, length = descriptors.shape
    mean = descriptors.sum(dim=0, dtype=torch.float32) / (count + 200)
    scatter = torch.zeros(length, length)
    for chunk in descriptors.split(COLUMNS):
        scatter += (chunk.float() - mean).T @ (chunk.float() - mean)
    covariance = (scatter + 200 / length * torch.eye(length)) / (count + 200)
    values, vectors = torch.linalg.eigh(covariance)
    return mean, vectors @ torch.diag((values.clamp_min(0) + 0.3 / length).rsqrt()) @ vectors.T


def side_by_side(pairs: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The same pairs, those of the same images close together: images are walked through from candidate to candidate.

    Args:
        pairs: what :func:`candidates` returns.
    """
    pairs_of: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for pair in pairs:
        for row in pair[:2]:
            pairs_of[row].append(pair)
    ordered: dict[tuple[int, int, int], None] = {}
    reached: dict[int, None] = {}
    for start in pairs_of:
        waiting = deque([start])
        while waiting:
            row = waiting.popleft()
            if row in reached:
                continue
            reached[row] = None
            for pair in pairs_of[row]:
                ordered[pair] = None
                waiting.extend(other for other in pair[:2] if other not in reached)
    return list(ordered)
