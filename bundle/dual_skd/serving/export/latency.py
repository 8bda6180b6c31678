# SPDX-License-Identifier: Apache-2.0
"""Time, memory and logits of one artefact, measured in a process of its own.

    python -m dual_skd.serving.export.latency JSON

takes the arguments of :func:`measure`, and writes the measurements to the file ``answer``, the logits to ``logits``.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dual_skd.serving.export.runtimes import Run, open_artefact
from dual_skd.serving.export.worker import end_with_parent

BATCH_SIZES = (1, 32)
MAX_BATCH_VALUES = 2**25  # larger batches, as of volumes of 1 MB, would fill the memory, and aren't measured
MAX_TIMED_RUNS = 100
MIN_TIMED_RUNS = 5


def measure(
    runtime: str,
    source: str | dict[str, Any],
    images: str | None,
    shape: Sequence[int],
    threads: int,
    seconds: float,
    batches: Sequence[int] = BATCH_SIZES,
) -> tuple[dict[str, Any], np.ndarray | None]:
    """Measures one artefact.

    Args:
        runtime, source, threads: see :func:`dual_skd.serving.export.runtimes.open_artefact`.
        images: .npy file of the images (N, C, H, W[, D]) whose logits are wanted, or None.
        shape: (C, H, W[, D]) of one image, for the times.
        seconds: after which no further run of a batch size begins.
        batches: sizes of the batches whose time is wanted.

    Returns:
        ``ms``: batch size -> median milliseconds for the batch, or None where it is too large; ``peak_mb``: largest
        resident memory of the process up to then, in 10^6 bytes; and the logits (N, K).
    """
    run = open_artefact(runtime, source, threads)
    ms = {str(batch): milliseconds(run, (batch, *shape), threads, seconds) for batch in batches}
    found = {"ms": ms, "peak_mb": peak_memory() / 1e6}
    if images is None:
        return found, None
    return found, run_batches(run, np.load(images, mmap_mode="r"))


def run_batches(run: Run, images: np.ndarray) -> np.ndarray:
    """Logits (N, K) of all images, in the largest batches that are measured too, else one by one."""
    size = BATCH_SIZES[-1] if fits((BATCH_SIZES[-1], *images.shape[1:])) else 1
    return np.concatenate([run(np.array(images[i : i + size])) for i in range(0, len(images), size)])


def fits(shape: Sequence[int]) -> bool:
    """Whether a batch of this shape is small enough to be run."""
    return shape[0] == 1 or np.prod(shape, dtype=float) <= MAX_BATCH_VALUES


def milliseconds(run: Run, shape: Sequence[int], threads: int, seconds: float) -> float | None:
    """Median time of a batch of noise; None where the batch has too many values.

    With one thread it is the time of the processor, in which other programs of the machine don't count, else that of
    the clock.
    """
    if not fits(shape):
        return None
    clock = time.process_time if threads == 1 else time.perf_counter
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    for _ in range(2):  # the first runs allocate, and compile
        run(images)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < MIN_TIMED_RUNS or (len(times) < MAX_TIMED_RUNS and time.perf_counter() - began < seconds):
        start = clock()
        run(images)
        times.append(clock() - start)
    return 1000 * statistics.median(times)


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage of Linux counts what the parent held when it started this process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def main(arguments: Sequence[str]) -> None:
    """Measures and writes what was found."""
    given = json.loads(arguments[0])
    logits, answer = given.pop("logits", None), given.pop("answer")
    found, values = measure(**given)
    if values is not None:
        np.save(logits, values)
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    end_with_parent()
    main(sys.argv[1:])
