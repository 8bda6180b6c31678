# SPDX-License-Identifier: Apache-2.0
"""What recalibration to a hospital would give: fitted on a share of its patients, measured on the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dual_skd.errors import InputError
from dual_skd.evaluation.analysis.predictions import Predictions
from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.recalibration import fit_recalibration, patients_for_the_fit, too_few_patients
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.risks import RiskCalibration, risk_calibration
from dual_skd.utils.wording import counted

logger = logging.getLogger(__name__)

MEASURED = ("nll", "brier", "ece")


@dataclass(frozen=True)
class RiskNumbers:
    """Metrics of the probabilities, and the calibration of the risk of each class."""

    metrics: dict[str, Estimate]
    classes: tuple[RiskCalibration, ...]


@dataclass(frozen=True)
class Recalibrated:
    """A recalibration and what it does, or the reason why there is none; ``form`` none where it wasn't asked for.

    The recalibrated probabilities are softmax(slope * log p + intercept) of those in the table of predictions, and with
    several labels per image sigmoid(slope * logit p + intercept).
    """

    form: str  # none, intercept, or slope: intercept and slope
    share: float  # of the patients, for the fit
    reason: str = ""  # why there is none, though it was asked for
    intercepts: dict[str, float] | None = None  # class -> intercept
    slopes: dict[str, float] | None = None  # class -> slope
    notes: tuple[str, ...] = ()  # why labels were left as they are
    seed: int | None = None  # of the draw of the patients
    fitted_images: int = 0
    fitted_patients: int = 0
    images: int = 0  # the others, that are measured
    patients: int = 0
    before: RiskNumbers | None = None
    after: RiskNumbers | None = None


def risks_of(predictions: Predictions) -> tuple[RiskCalibration, ...]:
    """Calibration of the risk of each of the classes with the most images."""
    return risk_calibration(
        predictions.probabilities, predictions.labels, predictions.patients, classes=predictions.frequent_classes(),
        class_names=predictions.class_names, multi_label=predictions.multi_label, level=predictions.settings.level,
    )  # fmt: skip


def recalibration_of(predictions: Predictions, form: str, share: float, *, chose_the_model: bool) -> Recalibrated:
    """Fits on a share of the patients and measures on the others, with the intervals of a fit that is given.

    Args:
        predictions: all of them.
        form: none, intercept or slope.
        share: of the patients, for the fit.
        chose_the_model: whether these are the validation images of the run.
    """
    none = Recalibrated(form, share)
    if form == "none":
        return none
    try:
        if chose_the_model:
            raise InputError(
                "No recalibration: these images chose the model and its temperature, so they say nothing of new ones; "
                "evaluate the test images or another data set."
            )
        return _recalibrated(predictions, none)
    except InputError as error:
        logger.warning("%s", error)
        return replace(none, reason=str(error).removesuffix("."))


def _recalibrated(predictions: Predictions, asked: Recalibrated) -> Recalibrated:
    names, multi_label, seed = list(predictions.class_names), predictions.multi_label, predictions.settings.seed
    truth = np.stack([predictions.positives(k) for k in range(len(names))], axis=1)
    units = patient_numbers(predictions.patients, len(truth))
    fit = patients_for_the_fit(truth, units, asked.share, seed)
    if fit.all() or not fit.any():
        raise InputError(
            f"No recalibration: a share of {asked.share:g} of {counted(int(units.max()) + 1, 'patient')} leaves no "
            "image to fit on, or none to measure on; give more images, or another recalibrate_share."
        )
    few = [] if multi_label else too_few_patients(truth[~fit], units[~fit], names)
    if few:
        raise InputError(
            f"No recalibration: of those left to measure on {few[0]}; give more images, or a smaller recalibrate_share."
        )
    part, rest = _taken(predictions, fit), _taken(predictions, ~fit)
    found = fit_recalibration(
        part.probabilities, part.labels, part.patients, slope=asked.form == "slope", class_names=names,
        multi_label=multi_label,
    )  # fmt: skip
    after = replace(rest, probabilities=found(rest.probabilities, multi_label=multi_label))
    return replace(
        asked,
        intercepts=dict(zip(names, found.intercepts, strict=True)),
        slopes=dict(zip(names, found.slopes, strict=True)),
        notes=found.notes,
        seed=seed,
        fitted_images=int(fit.sum()),
        fitted_patients=len(np.unique(units[fit])),
        images=int((~fit).sum()),
        patients=len(np.unique(units[~fit])),
        before=_numbers(rest),
        after=_numbers(after),
    )


def _taken(predictions: Predictions, rows: np.ndarray) -> Predictions:
    patients = [patient for patient, there in zip(predictions.patients, rows, strict=True) if there]
    return replace(
        predictions, probabilities=predictions.probabilities[rows], labels=predictions.labels[rows], patients=patients
    )


def _numbers(predictions: Predictions) -> RiskNumbers:
    return RiskNumbers(predictions.intervals(metrics=MEASURED).overall, risks_of(predictions))


def in_words(found: Mapping[str, Any]) -> str:
    """A line for a terminal about the recalibration of an analysis in ``metrics.json``; "" where none was asked for."""
    if found.get("form", "none") == "none":
        return ""
    if not found.get("after"):
        return found["reason"]
    before, after = (found[when]["metrics"]["nll"]["value"] for when in ("before", "after"))
    by = "intercept and slope" if found["form"] == "slope" else "intercept"
    return (
        f"{by} of {counted(found['fitted_patients'], 'patient')}: NLL {before:.3f} as it is, {after:.3f} recalibrated, "
        f"on {counted(found['patients'], 'other')}"
    )
