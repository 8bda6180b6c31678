# SPDX-License-Identifier: Apache-2.0
"""How often the 95 % intervals of calibration slope, intercept and observed / expected hold the truth.

    python -m scripts.benchmark.risk_coverage [--simulations 600]

Test sets are drawn whose risks are right: slope 1, intercept 0, observed / expected 1. The images of a patient share
half of the variance of their logits, and of the chance that decides whether they are ill. Sets with fewer patients on a
side than :data:`dual_skd.metrics.recalibration.FEWEST` have no interval and don't count.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence

import numpy as np

from dual_skd.metrics.risks import risk_calibration
from scripts.markdown import table_head, table_row

# patients, images of each, mean number of ill patients were each image a patient
SETTINGS = (
    (40, 1, 20), (100, 1, 50), (400, 1, 200), (100, 1, 15), (400, 1, 15), (100, 2, 50), (400, 2, 200), (400, 2, 15),
    (400, 4, 100), (100, 10, 50),
)  # fmt: skip
TRUTH = {"slope": 1.0, "intercept": 0.0, "observed_expected": 1.0}
SPREAD = 1.2  # standard deviation of the logits


def drawn(random: np.random.Generator, patients: int, images: int, ill: int) -> tuple[np.ndarray, np.ndarray]:
    """Risks and outcomes of patients with some images each."""

    def shared() -> np.ndarray:
        of_patients = np.repeat(random.normal(size=patients), images)
        alone = random.normal(size=patients * images)
        return (of_patients + alone) / math.sqrt(2) if images > 1 else of_patients

    logits = math.log(ill / (patients - ill)) - 0.5 * (ill < patients / 2) + SPREAD * shared()
    risk = 1 / (1 + np.exp(-logits))
    chance = 0.5 * (1 + np.vectorize(math.erf)(shared() / math.sqrt(2)))
    return risk, (chance < risk).astype(int)


def coverage(simulations: int, settings: Sequence[tuple[int, int, int]] = SETTINGS) -> Iterator[str]:
    """Rows of a Markdown table."""
    names = [name.replace("_", " / ") for name in TRUTH]
    yield from table_head(["patients", "images of each", "ill patients, about", *names, "sets"])
    for patients, images, ill in settings:
        random, held, sets = np.random.default_rng(1), dict.fromkeys(TRUTH, 0), 0
        units = np.repeat(np.arange(patients), images).tolist()
        for _ in range(simulations):
            risk, labels = drawn(random, patients, images, ill)
            (found,) = risk_calibration(np.stack([1 - risk, risk], axis=1), labels, units, classes=[1])
            limits = {name: getattr(found, name) for name in TRUTH}
            if any(one.low is None for one in limits.values()):
                continue
            sets += 1
            for name, one in limits.items():
                held[name] += one.low <= TRUTH[name] <= one.high
        shares = [f"{100 * count / sets:.1f}" if sets else "" for count in held.values()]
        yield table_row([str(patients), str(images), str(ill), *shares, str(sets)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=600)
    for row in coverage(parser.parse_args(arguments).simulations):
        print(row, flush=True)


if __name__ == "__main__":
    main()
