# SPDX-License-Identifier: Apache-2.0
"""Whether probabilities mean what they say, before and after the temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dual_skd.evaluation.analysis.predictions import Predictions
from dual_skd.evaluation.run_files import RunFiles
from dual_skd.metrics.calibration import Calibration as FittedTemperature
from dual_skd.metrics.calibration import fit_temperature, logits_of
from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.probabilities import probabilities as probabilities_of
from dual_skd.metrics.reliability_diagram import ReliabilityBin, reliability
from dual_skd.metrics.uncertainty import decisions

CALIBRATION_METRICS = ("ece", "ece_equal_mass", "nll", "brier")
SCALED = "scaled by the temperature"


@dataclass(frozen=True)
class Reliability:
    """Calibration metrics and the bins of a reliability diagram, or the reason why there are none."""

    metrics: dict[str, Estimate] | None = None
    bins: tuple[ReliabilityBin, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Calibration:
    """The temperature and what it does."""

    temperature: float | None
    fitted_here: bool  # for this analysis, and not when the model was kept
    images: int | None  # that it was fitted on, as far as known
    patients: int | None
    predictions_are: str  # with the temperature or without it, in words
    before: Reliability
    after: Reliability

    @property
    def scaled(self) -> bool:
        """Whether the predictions of images are those after the temperature."""
        return self.predictions_are == SCALED

    @property
    def unchanged(self) -> bool:
        """Whether the temperature is 1, to the digits that are shown, so that before and after are the same."""
        return self.temperature is not None and round(self.temperature, 3) == 1


@dataclass(frozen=True)
class Tempered:
    """Probabilities (N, K) without and with the temperature."""

    temperature: float | None
    calibrated: bool  # whether the table of predictions was written with it
    reason: str  # why there are no validation probabilities
    before: np.ndarray | None  # None where the table can't be turned back
    after: np.ndarray | None
    validation: np.ndarray | None = None  # with the temperature where the table has it
    fitted_on: tuple[int | None, int | None] = (None, None)  # images and patients
    fitted_here: bool = False


def normalised(probabilities: np.ndarray, multi_label: bool) -> np.ndarray:
    """Probabilities of a table, whose digits needn't add up to 1."""
    return probabilities if multi_label else probabilities / probabilities.sum(axis=1, keepdims=True)


def tempered(probabilities: np.ndarray, temperature: float, multi_label: bool = False) -> np.ndarray:
    """Probabilities after their logits are divided by a temperature.

    Args:
        probabilities: (N, K), as they are written.
        temperature: 1 leaves them as they are.
        multi_label: each number by itself, through a sigmoid.
    """
    logits = logits_of(probabilities, multi_label=multi_label)
    return probabilities_of(logits, temperature, multi_label=multi_label).numpy()


def with_temperature(files: RunFiles, p: np.ndarray) -> Tempered:
    """The probabilities of a split and of the validation images with the model's temperature, or with a fitted one."""
    entry, stored = files.metrics.get(files.split) or {}, files.calibration or {}
    temperature = entry.get("temperature") or stored.get("temperature")
    calibrated, fitted_here = "calibrated" in entry, False
    if calibrated and temperature is None:
        reason = "the probabilities are calibrated, by a temperature that isn't known without the model file"
        return Tempered(None, True, reason, before=None, after=p)
    fitted_on: tuple[Any, Any] = (stored.get("images"), stored.get("patients"))
    if temperature is None and files.validation is not None:
        fitted = _fitted(files)
        temperature, fitted_on, fitted_here = fitted.temperature, (fitted.images, fitted.patients), True
    before, after, validation = p, None, None
    if files.validation is not None:
        validation = normalised(files.validation.probabilities, files.multi_label)
    if temperature is not None and calibrated:
        before, after = tempered(p, 1 / temperature, files.multi_label), p
        validation = None if validation is None else tempered(validation, temperature, files.multi_label)
    elif temperature is not None:
        after = tempered(p, temperature, files.multi_label)
    return Tempered(
        temperature, calibrated, files.validation_reason, before, after, validation, fitted_on, fitted_here
    )  # fmt: skip


def _fitted(files: RunFiles) -> FittedTemperature:
    """The temperature of the validation images."""
    validation: Any = files.validation
    return fit_temperature(
        logits_of(validation.probabilities, multi_label=files.multi_label), torch.from_numpy(validation.labels),
        multi_label=files.multi_label, sharpen=False, patients=files.validation_patients,
    )  # fmt: skip


def calibration_of(predictions: Predictions, forms: Tempered, combined: str = "") -> Calibration:
    """Calibration metrics and reliability before and after the temperature.

    Args:
        predictions: that are measured.
        forms: their probabilities without and with the temperature.
        combined: what the probabilities of images are that those of patients were combined from; "" for images.
    """
    written = SCALED if forms.calibrated else "as the network gives them"
    if combined:
        written = f"combined from those of images, which are {SCALED if combined == 'calibrated' else combined}"
    before, after = (_reliability(predictions, p, forms.reason) for p in (forms.before, forms.after))
    return Calibration(forms.temperature, forms.fitted_here, *forms.fitted_on, written, before, after)


def _reliability(predictions: Predictions, p: np.ndarray | None, reason: str) -> Reliability:
    if p is None:
        return Reliability(reason=f"no temperature is known: {reason or 'no temperature was fitted'}")
    confidence, right = (side.ravel() for side in decisions(p, predictions.labels, predictions.multi_label))
    measured = predictions.intervals(p, metrics=CALIBRATION_METRICS).overall
    return Reliability(measured, tuple(reliability(np.minimum(confidence, 1), right, bins=10)))
