# SPDX-License-Identifier: Apache-2.0
"""How often `dual-skd compare` calls two methods different that are equally good: the error of the first kind.

Part of ``python -m scripts.benchmark.statistics --only comparisons``. An honest test at 5 % scores 4 to 6, one that is
exact and has few outcomes less. Both methods see the same images, each with errors of its own, and neither is better.
All images of a patient are of one class; patients differ as much as the images of a patient do (a correlation of 0.5
within patients), and half of either is common to both methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from dual_skd.evaluation.comparison import compare_runs
from dual_skd.evaluation.run_files import RunFiles
from dual_skd.metrics.differences import TESTED
from dual_skd.metrics.influence import difference, overall_influence
from dual_skd.metrics.mcnemar import mcnemar_test
from dual_skd.metrics.paired import SIGNIFICANCE
from dual_skd.metrics.predictions import PredictionTable
from dual_skd.metrics.score_intervals import normal_quantile
from dual_skd.metrics.weighted import Predictions

DISTANCE = 1.5  # between classes, in standard deviations of a score
COMMON = 0.5  # of the variance of either method's scores
COLUMNS = {
    "accuracy": "accuracy (McNemar)",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "macro_auc": "macro AUC",
    "class_auc": "AUC of the rarest class",
    "nll": "NLL",
    "brier": "Brier",
    "any_after_holm": "any after Holm",
    "mcnemar_of_images": "McNemar over images",
    "normal_macro_auc": "macro AUC, normal",
    "disagreeing": "accuracy: p and interval disagree",
}


class Setting(NamedTuple):
    """Patients of each class, and images of each patient."""

    patients: tuple[int, ...]
    images: int = 1

    def __str__(self) -> str:
        of_each = f", {self.images} images of each" if self.images > 1 else ""
        return f"{' + '.join(map(str, self.patients))} patients{of_each}"


SETTINGS = (
    Setting((20, 20)),
    Setting((50, 50)),
    Setting((200, 200)),
    Setting((5, 35)),
    Setting((5, 395)),
    Setting((15, 385)),
    Setting((50, 50), 4),
    Setting((50, 50), 10),
    Setting((5, 95), 4),
    Setting((40, 40, 40)),
    Setting((10, 30, 60), 4),
    Setting((2, 2), 10),
    Setting((2, 3), 4),
    Setting((3, 3), 4),
)


def two_equal_methods(random: np.random.Generator, setting: Setting) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities (2, N, K), labels (N,) and patients (N,)."""
    counts, classes = sum(setting.patients), len(setting.patients)
    units = np.repeat(np.arange(counts), setting.images)
    labels = np.repeat(np.arange(classes), setting.patients)[units]

    def seen(size: int) -> np.ndarray:
        common, own = random.normal(size=(size, classes)), random.normal(size=(2, size, classes))
        return np.sqrt(COMMON) * common + np.sqrt(1 - COMMON) * own

    scores = np.sqrt(0.5) * (seen(counts)[:, units] + seen(len(units))) if setting.images > 1 else seen(len(units))
    # two classes lie DISTANCE apart on the axis between them; the odds of normal scores of deviation 1 are linear
    shift = DISTANCE / np.sqrt(2)
    logits = shift * (scores + shift * np.eye(classes)[labels]) + np.log(np.array(setting.patients) / counts)
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True), labels, units


def as_runs(pair: np.ndarray, labels: np.ndarray, units: np.ndarray) -> list[RunFiles]:
    """What ``compare_runs`` takes."""
    images = [f"{image}.png" for image in range(len(labels))]
    names = [f"class {k}" for k in range(pair.shape[-1])]
    records = [{"image": image, "patient": f"p{unit}"} for image, unit in zip(images, units, strict=True)]
    return [
        RunFiles(
            split="test", table=PredictionTable(images, labels, p, names, {}), validation=None, datalist={},
            records=tuple(records), metrics={}, run={}, selection=(), calibration=None, model_bytes=None,
            multi_label=False, section="test", validation_reason="",
        )
        for p in pair
    ]  # fmt: skip


def called_different(setting: Setting, seed: int) -> dict[str, bool]:
    """Which tests of one pair of equal methods are below the level; also two that one shouldn't use."""
    pair, labels, units = two_equal_methods(np.random.default_rng([seed, 10]), setting)
    found = compare_runs(*as_runs(pair, labels, units), resamples=1)
    tested: dict[str, dict[str, Any]] = {name: found["metrics"][name] for name in TESTED}
    if found["areas"]:
        tested["class_auc"] = found["areas"][0]  # of the rarest class
    below = {name: entry["p"] is not None and entry["p"] < SIGNIFICANCE for name, entry in tested.items()}
    every = [*tested.values(), *found["areas"]]
    below["any_after_holm"] = any(entry["p_holm"] is not None and entry["p_holm"] < SIGNIFICANCE for entry in every)
    low, high = tested["accuracy"]["low"], tested["accuracy"]["high"]
    below["disagreeing"] = below["accuracy"] != (low is not None and not low <= 0 <= high)
    below["mcnemar_of_images"] = mcnemar_test(pair[0].argmax(1), pair[1].argmax(1), labels).p < SIGNIFICANCE
    areas = [overall_influence(Predictions(p, labels, None, None, False), "macro_auc", units) for p in pair]
    if areas[0] is not None and areas[1] is not None:
        apart = difference(areas[0], areas[1])
        below["normal_macro_auc"] = (
            abs(apart.value) > normal_quantile(1 - SIGNIFICANCE) * apart.standard_error(units) > 0
        )
    return below


def errors_of_the_first_kind(simulations: int) -> Iterator[str]:
    """Rows of the table: percentages of pairs of equal methods that each test calls different."""
    yield f"| test set | {' | '.join(COLUMNS.values())} |"
    yield f"|{'---|' * (len(COLUMNS) + 1)}"
    for setting in SETTINGS:
        found = [called_different(setting, seed) for seed in range(simulations)]
        shares = {name: np.mean([below[name] for below in found]) for name in found[0]}
        cells = [f"{100 * shares[name]:.1f}" if name in shares else "–" for name in COLUMNS]
        yield f"| {setting} | {' | '.join(cells)} |"
