# SPDX-License-Identifier: Apache-2.0
"""Picks, among all pairs of images, the few that are worth a fine comparison."""

from __future__ import annotations

import logging

import torch

from dual_skd.data.signatures import NUMBERS, turning, unit

logger = logging.getLogger(__name__)

CANDIDATE = 0.6  # correlation of distinct descriptors from which two images are compared finely
ANGLES = (0.0, -3.3, 3.3)  # degrees by which a picture is turned; what lies between is alike enough
MOST = 50  # candidates per image
ROWS, COLUMNS = 512, 8192  # of a block of the all-pairs comparison


def candidates(descriptors: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> list[tuple[int, int]]:
    """Pairs of images with similar descriptors, found in blocks: memory doesn't grow with the number of all pairs.

    Args:
        descriptors: (N, V * 256) float16 of all images of the set, which are all different.
        first: (A,) rows of the ones.
        second: (B,) rows of the others.

    Returns:
        (one, other), every pair once.
    """
    if not len(first) or not len(second):
        return []
    mean, matrix = contrast(descriptors)
    # volumes are not turned: a turn about one axis changes the slices along the others
    angles = ANGLES if descriptors.shape[1] == NUMBERS else ANGLES[:1]
    distinct = torch.cat([unit((descriptors[rows].float() - mean) @ matrix) for rows in second.split(COLUMNS)])
    symmetric = torch.equal(first, second)  # then the blocks below the diagonal hold the same pairs again
    found: dict[tuple[int, int], None] = {}
    crowded = 0
    for start in range(0, len(first), ROWS):
        rows = first[start : start + ROWS]
        upright = descriptors[rows].float()
        turned = [(unit(upright @ turning(angle)) if angle else upright) - mean for angle in angles]
        queries = [unit(query @ matrix) for query in turned]
        hits = []
        for left in range(start if symmetric else 0, len(second), COLUMNS):
            block = distinct[left : left + COLUMNS].T
            best = queries[0] @ block
            for query in queries[1:]:
                torch.maximum(best, query @ block, out=best)
            row, column = torch.nonzero(best >= CANDIDATE, as_tuple=True)
            hits.append((row, second[column + left], best[row, column]))
        row, column, value = (torch.cat(part) for part in zip(*hits, strict=True))
        row, column, value = (part[rows[row] != column] for part in (row, column, value))
        order = value.argsort(descending=True, stable=True)
        order = order[row[order].argsort(stable=True)]  # by row, best first
        row, column = row[order], column[order]
        rank = torch.arange(len(row)) - torch.searchsorted(row, row)
        crowded += int((rank == MOST).sum())
        for pair in zip(rows[row[rank < MOST]].tolist(), column[rank < MOST].tolist(), strict=True):
            if pair[::-1] not in found:
                found[pair] = None
    if crowded:
        logger.warning(
            "%d images resemble more than %d others each: only the most similar %d were compared finely.",
            crowded,
            MOST,
            MOST,
        )
    return list(found)


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
