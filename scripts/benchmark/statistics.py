# SPDX-License-Identifier: Apache-2.0
"""Measures how long the statistics take, and how often their 95 % intervals hold the truth.

    python -m scripts.benchmark.statistics [--simulations 2000] [--resamples 1000] [--only time delong ...]

Time: all metrics with all intervals, 2,000 resamples, every image its own patient and two images per patient; the CPU
time is what a machine with nothing else to do takes. Memory is what is added to predictions and interpreter.

Coverage: test sets are drawn again and again from distributions whose true metrics are known (from one sample of
1,000,000 images, areas of two classes in closed form), and the intervals that hold the truth are counted. An honest
95 % interval scores 93 to 97. Clustered: each patient's images share a part of their score and are all ill or all well;
once resampled by patients, and once, as one shouldn't, by images.

Seeds: two methods of equal expectation, trained with a few seeds each and tested on the same 200 images; how often the
interval of their difference holds the 0, by how much the seeds' differences vary against the standard error of one.

Comparisons: see scripts/benchmark/comparisons.py.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist

import numpy as np

from dual_skd.metrics.bootstrap import BINARY_METRICS, bootstrap_intervals
from dual_skd.metrics.definitions import CALIBRATION_ERRORS, OVERALL_METRICS
from dual_skd.metrics.delong import auc_interval, delong_test, macro_auc_interval
from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.paired import paired_differences
from dual_skd.metrics.weighted import WeightedMetrics
from scripts.benchmark.comparisons import errors_of_the_first_kind

TRUTH_IMAGES = 1_000_000
TIMED_SIZES = ((2, 1_000), (2, 100_000), (10, 100_000), (2_000, 10_000))
CLUSTERED = ((400, 100), (1000, 250))  # images, patients
PATIENT_SHARE = 0.6  # of the variance of clustered scores lies between patients
SEEDS = (2, 3, 5, 10)
TRAINING_DEVIATIONS = (0.0, 0.4, 0.8, 1.6)  # standard deviation, over trainings, of the distance between ill and well
PARTS = ("time", "delong", "bootstrap", "seeds", "comparisons")
Sample = tuple[np.ndarray, np.ndarray, list[int] | None]  # probabilities, labels, patients


def many_classes(random: np.random.Generator, images: int, classes: int) -> Sample:
    """Classes of unequal frequency, right about two times of three, a little overconfident."""
    share = np.arange(classes, 0, -1) / np.arange(classes, 0, -1).sum()
    labels = random.choice(classes, size=images, p=share)
    logits = random.normal(size=(images, classes))
    logits[np.arange(images), labels] += 1.5
    p = np.exp(2 * logits)
    return p / p.sum(axis=1, keepdims=True), labels, None


def two_classes(random: np.random.Generator, images: int, *, ill: float, slope: float, patients: int = 0) -> Sample:
    """Normal scores, 1.5 deviations apart; probabilities are calibrated at slope 1."""
    unit = random.integers(patients, size=images) if patients else np.arange(images)
    labels = (random.random(unit.max() + 1) < ill)[unit].astype(int)
    share = PATIENT_SHARE if patients else 0.0
    scores = np.sqrt(share) * random.normal(size=unit.max() + 1)[unit] + np.sqrt(1 - share) * random.normal(size=images)
    scores += 1.5 * labels
    logit = 1.5 * (scores - 0.75) + np.log(ill / (1 - ill))  # log of the odds, by Bayes
    second = 1 / (1 + np.exp(-slope * logit))
    return np.stack([1 - second, second], axis=1), labels, unit.tolist() if patients else None


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
            found = bootstrap_intervals(p, labels, patients)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            yield (
                f"| {classes:,} | {images:,} | {found.patients:,} | {wall:.1f} s | {cpu:.1f} s | "
                f"{max(more, 0):.0f} MiB more than before |"
            )


class Coverage:
    """Counts how often intervals hold the truth."""

    def __init__(self, true: dict[str, float]) -> None:
        self.true = true
        self._held = dict.fromkeys(true, 0)
        self._given = dict.fromkeys(true, 0)
        self._width = dict.fromkeys(true, 0.0)

    def add(self, found: dict[str, Estimate]) -> None:
        for name, true in self.true.items():
            one = found[name]
            if one.low is not None:
                self._given[name] += 1
                self._held[name] += one.low <= true <= one.high
                self._width[name] += one.high - one.low

    def rows(self, what: str, how: str) -> Iterator[str]:
        for name, true in self.true.items():
            given = self._given[name]
            yield (
                f"| {what} | {name} | {how} | {true:.3f} | {100 * self._held[name] / given:.1f} % | "
                f"{self._width[name] / given:.3f} | {given:,} |"
            )


def truth(draw: Callable[[np.random.Generator, int], Sample], names: list[str], calibrated: bool) -> dict[str, float]:
    """Metrics of a very large sample."""
    p, labels, _ = draw(np.random.default_rng(1), TRUTH_IMAGES)
    found = WeightedMetrics(p, labels, names)(np.ones((1, TRUTH_IMAGES)))
    true = {}
    for name in names:
        if name in CALIBRATION_ERRORS and calibrated:
            true[name] = 0.0
        elif name in found.overall:
            true[name] = float(found.overall[name][0])
        else:
            true[name] = float(found.per_class[name][0, 1])
    return true


def bootstrap_coverage(simulations: int, resamples: int) -> Iterator[str]:
    """Percentile intervals of all metrics, independent and clustered images."""
    overall, binary = list(OVERALL_METRICS), [*OVERALL_METRICS, *BINARY_METRICS]

    def calibrated(random, images):
        return two_classes(random, images, ill=0.3, slope=1)

    def sharp(random, images):
        return two_classes(random, images, ill=0.3, slope=2)

    def three(random, images):
        return many_classes(random, images, 3)

    for what, draw, images, names, is_calibrated in (
        ("2 classes, 60 images", calibrated, 60, binary, True),
        ("2 classes, 300 images", calibrated, 300, binary, True),
        ("2 classes, 300 images, overconfident", sharp, 300, ["nll", "brier", *CALIBRATION_ERRORS], False),
        ("3 classes, 300 images", three, 300, overall, False),
    ):
        counted = Coverage(truth(draw, names, is_calibrated))
        for case in range(simulations):
            p, labels, _ = draw(np.random.default_rng([case, 2]), images)
            counted.add(bootstrap_intervals(p, labels, metrics=names, resamples=resamples, seed=case).overall)
        yield from counted.rows(what, "bootstrap")

    names = ["accuracy", "macro_auc", "sensitivity", "specificity", "brier"]
    true = truth(calibrated, names, True)  # of a new image of a new patient
    for images, patients in CLUSTERED:
        counted = {"bootstrap, patients": Coverage(true), "bootstrap, images": Coverage(true)}
        for case in range(simulations):
            p, labels, units = two_classes(
                np.random.default_rng([case, 3]), images, ill=0.3, slope=1, patients=patients
            )
            for how, count in counted.items():
                drawn = units if "patients" in how else None
                count.add(bootstrap_intervals(p, labels, drawn, metrics=names, resamples=resamples, seed=case).overall)
        for how, count in counted.items():
            yield from count.rows(f"2 classes, {images} images of {patients} patients", how)


def delong_coverage(simulations: int) -> Iterator[str]:
    """Intervals of DeLong, and the error of the first kind of the paired test."""
    for distance, ill, well in ((1.5, 15, 15), (1.5, 30, 70), (2.5, 30, 70), (2.5, 15, 285), (3.5, 50, 50)):
        positive = np.arange(ill + well) < ill
        count = Coverage({"auc": NormalDist().cdf(distance / np.sqrt(2))})
        for case in range(5 * simulations):
            scores = np.random.default_rng([case, 4]).normal(size=ill + well) + distance * positive
            count.add({"auc": auc_interval(scores, positive)})
        yield from count.rows(f"{ill} ill, {well} well", "DeLong")
    for images in (100, 300):
        p, labels, _ = many_classes(np.random.default_rng(5), TRUTH_IMAGES, 3)
        count = Coverage({"macro_auc": truth(lambda *_, s=(p, labels, None): s, ["macro_auc"], False)["macro_auc"]})
        for case in range(2 * simulations):
            p, labels, _ = many_classes(np.random.default_rng([case, 6]), images, 3)
            count.add({"macro_auc": macro_auc_interval(p, labels)})
        yield from count.rows(f"3 classes, {images} images", "DeLong")
    for images, patients in CLUSTERED:
        counted = {how: Coverage({"auc": NormalDist().cdf(1.5 / np.sqrt(2))}) for how in ("patients", "images")}
        for case in range(2 * simulations):
            p, labels, units = two_classes(
                np.random.default_rng([case, 7]), images, ill=0.3, slope=1, patients=patients
            )
            counted["patients"].add({"auc": auc_interval(p[:, 1], labels, patients=units)})
            counted["images"].add({"auc": auc_interval(p[:, 1], labels)})
        for how, count in counted.items():
            yield from count.rows(f"{images} images of {patients} patients", f"DeLong, {how}")
    positive, count = np.arange(100) < 40, Coverage({"difference of two equal areas": 0.0})
    for case in range(5 * simulations):
        random = np.random.default_rng([case, 8])
        one, other = random.normal(size=100) + positive + random.normal(size=(2, 100))
        found = delong_test(one, other, positive)
        count.add({"difference of two equal areas": Estimate(found.difference, found.low, found.high)})
    yield from count.rows("40 ill, 60 well", "DeLong, paired")


def seeds_coverage(simulations: int, resamples: int) -> Iterator[str]:
    """Intervals of the mean difference of two methods over seeds, of new trainings and of these trained networks."""
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
                yield from count.rows(f"{seeds} seeds, ratio {np.sqrt(np.mean(ratios)):.1f}", f"paired, {how}")


def coverage(parts: Sequence[str], simulations: int, resamples: int) -> Iterator[str]:
    """Rows of the table of coverages."""
    yield "| test set | metric | interval | truth | holds it | mean width | of sets |"
    yield "|---|---|---|---|---|---|---|"
    if "delong" in parts:
        yield from delong_coverage(simulations)
    if "bootstrap" in parts:
        yield from bootstrap_coverage(simulations, resamples)
    if "seeds" in parts:
        yield from seeds_coverage(simulations, resamples)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000, help="of each simulated test set")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args(arguments)
    if "time" in args.only:
        for row in timing():
            print(row, flush=True)
        print()
    if "comparisons" in args.only:
        for row in errors_of_the_first_kind(args.simulations):
            print(row, flush=True)
        print()
    if {"delong", "bootstrap", "seeds"} & set(args.only):
        for row in coverage(args.only, args.simulations, args.resamples):
            print(row, flush=True)


if __name__ == "__main__":
    main()
