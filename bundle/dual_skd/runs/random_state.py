# SPDX-License-Identifier: Apache-2.0
"""The state of all random generators, and a sampler that goes on within an epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import Sampler

from dual_skd.runs.distributed import several_processes


class ResumableSampler(Sampler[int]):
    """Another sampler's order, of which the first ``start`` places of the next pass are left out.

    Args:
        sampler: for instance a ``RandomSampler``, or a ``DistributedSampler``.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.start = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        start, self.start = self.start, 0
        return islice(iter(self.sampler), start, None)


class PairedSampler(Sampler[tuple[int, list[int]]]):
    """Another sampler's order, in which every labelled image has some images without labels beside it.

    Those are drawn anew for each pass, by the global generator: none a second time before all others have been drawn.
    Several processes draw the same order, and each takes its part of it.

    Args:
        sampler: of the labelled images.
        unlabelled: number of images without labels.
        ratio: how many of them go with each labelled one.
    """

    def __init__(self, sampler: Any, unlabelled: int, ratio: int = 1) -> None:
        self.sampler = sampler
        self.unlabelled = unlabelled
        self.ratio = ratio

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        rank, processes = (dist.get_rank(), dist.get_world_size()) if several_processes() else (0, 1)
        wanted = len(self) * self.ratio
        passes = -(-wanted * processes // self.unlabelled)
        order = torch.cat([torch.randperm(self.unlabelled) for _ in range(passes)])[rank::processes].tolist()
        for place, index in enumerate(self.sampler):
            yield index, order[place * self.ratio : (place + 1) * self.ratio]


def paired(sampler: Any, unlabelled: int, ratio: int = 1) -> Any:
    """A sampler as it is, or paired with images without labels, if there are any."""
    return PairedSampler(sampler, unlabelled, ratio) if unlabelled else sampler


def random_state() -> dict[str, Any]:
    """States of the generators of Python, NumPy and PyTorch (CPU and all CUDA devices) as tensors and plain values."""
    numpy = np.random.get_state(legacy=False)
    key = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": numpy | {"state": numpy["state"] | {"key": key}},
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Sets the generators; those of CUDA only where the number of devices is the same."""
    random.setstate(state["python"])
    numpy = state["numpy"]
    np.random.set_state(numpy | {"state": numpy["state"] | {"key": numpy["state"]["key"].numpy().astype(np.uint32)}})
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
