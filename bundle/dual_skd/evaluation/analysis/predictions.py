# SPDX-License-Identifier: Apache-2.0
"""The predictions that an analysis measures, with the truth and the patient of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dual_skd.metrics.estimates import Estimate, from_resamples, percentiles
from dual_skd.metrics.intervals import ONE_PATIENT, Intervals, metric_intervals, share_interval
from dual_skd.metrics.resampling import drawn_weights, patient_numbers

MAX_CLASSES = 12  # with curves and operating points of their own; of more, those with the most images


@dataclass(frozen=True)
class Settings:
    """How the intervals are made: their level, the number of bootstrap resamples, and the seed of these."""

    level: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class Patients:
    """How many patients are known, how many images have none, and what follows from that."""

    known: int
    images_without: int
    reason: str


@dataclass(frozen=True)
class Predictions:
    """The predictions of N images, or of N patients, for K classes.

    Attributes:
        probabilities: (N, K); rows sum to 1, with ``multi_label`` each number stands for itself.
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        patients: patient of each row, "" for an unknown one.
        class_names: of the K classes.
        multi_label: whether an image may have any number of the classes.
        settings: of the intervals.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    patients: list[str]
    class_names: Sequence[str]
    multi_label: bool
    settings: Settings

    def options(self, *, share: int = 1) -> dict[str, Any]:
        """Options of the bootstrap, with one ``share``-th of the resamples."""
        resamples = max(self.settings.resamples // share, 1)
        return {"level": self.settings.level, "resamples": resamples, "seed": self.settings.seed}

    def intervals(self, probabilities: np.ndarray | None = None, **options: Any) -> Intervals:
        """Metrics with their intervals, of these probabilities or of others of the same images."""
        p = self.probabilities if probabilities is None else probabilities
        given = {"class_names": self.class_names, "multi_label": self.multi_label, **self.options(), **options}
        return metric_intervals(p, self.labels, self.patients, **given)

    def share_interval(self, right: np.ndarray, among: np.ndarray | None = None) -> Estimate:
        """The share of images (N,), or of some ``among`` them, that are right in some way, with its interval."""
        patients = self.patients
        if among is not None:
            right, patients = right[among], [one for one, there in zip(patients, among, strict=True) if there]
        return share_interval(right, patients, level=self.settings.level)

    def mean_interval(self, values: np.ndarray) -> Estimate:
        """The mean over images (N,) with percentiles of resampled patients."""
        values, units = np.asarray(values, dtype=float), patient_numbers(self.patients, len(values))
        value = float(values.mean())
        if not units.any():
            return Estimate(value, reason=ONE_PATIENT)
        random = np.random.default_rng(self.settings.seed)
        drawn = [w @ values / w.sum(axis=1) for w in drawn_weights(random, units, self.settings.resamples)]
        low, high, share = percentiles(np.concatenate(drawn), self.settings.level)
        return from_resamples(value, float(low), float(high), float(share))

    def positives(self, k: int) -> np.ndarray:
        """Whether each image is of a class, (N,)."""
        return self.labels[:, k] > 0 if self.multi_label else self.labels == k

    def class_rows(self, counts: np.ndarray | None = None) -> list[int]:
        """Number of rows of each class, or the sum of their ``counts`` (N,)."""
        weights = np.ones(len(self.labels), dtype=int) if counts is None else counts
        return [int(weights[self.positives(k)].sum()) for k in range(len(self.class_names))]

    def class_patients(self) -> tuple[list[int], list[int]]:
        """Number of known patients of each class, and of rows of it without a known one."""
        patients = np.array(self.patients, dtype=object)
        of_class = [patients[self.positives(k)].tolist() for k in range(len(self.class_names))]
        return [len(set(one) - {""}) for one in of_class], [one.count("") for one in of_class]

    def frequent_classes(self) -> list[int]:
        """Indices of the classes with the most images, in their own order."""
        return sorted(np.argsort(-np.array(self.class_rows()), kind="stable")[:MAX_CLASSES].tolist())

    def known_patients(self, images: int) -> Patients:
        """How many patients the predictions are of, and of how many of all ``images`` behind them none is known."""
        known = [name for name in self.patients if name]
        unknown = len(self.patients) - len(known)
        whose = "the patient of 1" if unknown == 1 else f"the patients of {unknown}"
        those = "isn't known; that image counts" if unknown == 1 else "aren't known; each of those images counts"
        reason = (
            f"{whose} of {images} images {those} as a patient of its own, which makes intervals too narrow where a "
            "patient has several"
        )
        return Patients(len(set(known)), unknown, reason if unknown else "")
