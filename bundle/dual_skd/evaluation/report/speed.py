# SPDX-License-Identifier: Apache-2.0
"""How long a network takes for one image on one thread of this computer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

MAX_RUNS = 15
MAX_SECONDS = 3.0  # after which no further run begins
MIN_RUNS = 3


def cpu_milliseconds(network: nn.Module, shape: Sequence[int]) -> dict[str, Any]:
    """Median time of a batch of one image on one CPU thread.

    Args:
        network: in evaluation mode, on the CPU.
        shape: (C, H, W[, D]) of an image.

    Returns:
        ``milliseconds``, ``runs`` and ``threads``.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            image = torch.zeros(1, *shape)
            times: list[float] = []
            network(image)  # the first run allocates
            began = time.perf_counter()
            while len(times) < MIN_RUNS or (len(times) < MAX_RUNS and time.perf_counter() - began < MAX_SECONDS):
                start = time.perf_counter()
                network(image)
                times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return {"milliseconds": round(1000 * statistics.median(times), 2), "runs": len(times), "threads": 1}
