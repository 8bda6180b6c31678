# SPDX-License-Identifier: Apache-2.0
"""Measures how long the statistics take, and how often their 95 % intervals hold the truth.

    python -m scripts.benchmark.statistics [--simulations 2000] [--resamples 1000] [--only time coverage ...]

Time: all metrics with all intervals, 2,000 resamples, every image its own patient and two images per patient; the CPU
time is what a machine with nothing else to do takes. Memory is what is added to predictions and interpreter.

Coverage: see :mod:`scripts.benchmark.coverage`. An honest 95 % interval scores 93 to 97.

Seeds: two methods of equal expectation, trained with a few seeds each and tested on the same 200 images; how often the
interval of their difference holds the 0, by how much the seeds' differences vary against the standard error of one.

Thresholds: what is decided on validation images, see :mod:`.thresholds`.
Comparisons: see :mod:`scripts.benchmark.comparisons`.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np

from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.intervals import metric_intervals
from dual_skd.metrics.paired import paired_differences
from scripts.benchmark.comparisons import errors_of_the_first_kind
from scripts.benchmark.coverage import Coverage, coverage, many_classes
from scripts.benchmark.thresholds import ratio_rows, set_rows, threshold_rows

TIMED_SIZES = ((2, 1_000), (2, 100_000), (10, 100_000), (2_000, 10_000))
SEEDS = (2, 3, 5, 10)
TRAINING_DEVIATIONS = (0.0, 0.4, 0.8, 1.6)  # standard deviation, over trainings, of the distance between ill and well


def timing() -> Iterator[str]:
    """Rows of the table of times."""
    yield "| classes | images | patients | wall time | CPU time | memory |"
    yield "|---|---|---|---|---|---|"
    random = np.random.default_rng(0)
    for classes, images in TIMED_SIZES:
        p, labels, _ = many_classes(random, images, classes)
        if classes == 2:
            p[:, 0] = 1 - p[:, 1]
        for patients in (None, (np.arange(images) // 2).tolist()):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            wall, cpu = time.perf_counter(), time.process_time()
            found = metric_intervals(p, labels, patients)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            yield (
                f"| {classes:,} | {images:,} | {found.patients:,} | {wall:.1f} s | {cpu:.1f} s | "
                f"{max(more, 0):.0f} MiB more than before |"
            )


def seeds_coverage(simulations: int, resamples: int) -> Iterator[str]:
    """Intervals of the mean difference of two methods over seeds, of new trainings and of these trained networks."""
    yield "| test set | interval | holds the 0 |"
    yield "|---|---|---|"
    labels = np.tile([0, 1], 100)
    for seeds in SEEDS:
        for deviation in TRAINING_DEVIATIONS:
            counted = {how: Coverage({"nll": 0.0}) for how in ("these networks", "new trainings")}
            ratios = []
            for case in range(simulations):
                random = np.random.default_rng([case, 9])
                # what an image is like is common to all networks, and each sees it in its own way
                seen = np.sqrt(0.5) * (random.normal(size=200) + random.normal(size=(2, seeds, 200)))
                score = seen + (1.5 + deviation * random.normal(size=(2, seeds, 1))) * labels
                p = 1 / (1 + np.exp(-1.5 * np.stack([0.75 - score, score - 0.75], axis=-1)))
                nll = -np.log(np.take_along_axis(p, np.broadcast_to(labels, score.shape)[..., None], -1)[..., 0])
                apart = nll[0] - nll[1]
                ratios.append(apart.mean(axis=1).var(ddof=1) / (apart.var(axis=1) / 200).mean())
                for how, count in counted.items():
                    found = paired_differences(
                        *p,
                        labels,
                        metrics=["nll"],
                        new_trainings=how == "new trainings",
                        resamples=resamples,
                        seed=case,
                    )["nll"]
                    count.add({"nll": Estimate(found.value, found.low, found.high)})
            for how, count in counted.items():
                yield f"| {seeds} seeds, ratio {np.sqrt(np.mean(ratios)):.1f} | {how} | {count.share('nll')} % |"


PARTS: dict[str, Callable[[int, int], Iterator[str]]] = {  # rows of a table, from numbers of simulations and resamples
    "time": lambda *_: timing(),
    "coverage": coverage,
    "seeds": seeds_coverage,
    "thresholds": lambda simulations, _: chain(
        threshold_rows(simulations), [""], set_rows(simulations), [""], ratio_rows(simulations)
    ),
    "comparisons": lambda simulations, _: errors_of_the_first_kind(simulations),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000, help="of each simulated test set")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args(arguments)
    for part in args.only:
        for row in PARTS[part](args.simulations, args.resamples):
            print(row, flush=True)
        print()


if __name__ == "__main__":
    main()
