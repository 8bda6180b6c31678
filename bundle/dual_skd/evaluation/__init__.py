# SPDX-License-Identifier: Apache-2.0
"""Metrics of a classifier and the handler that records them."""

from dual_skd.evaluation.calibration import fit_temperature, reliability, wilson_interval
from dual_skd.evaluation.metrics import area_under_roc, calibration_error, classification_metrics, mean_logits
from dual_skd.evaluation.predictions import PredictionTable, read_predictions, write_predictions
from dual_skd.evaluation.recorder import MetricsRecorder, goodness, log_metrics
from dual_skd.evaluation.uncertainty import (
    decompose_entropy,
    disagreement,
    fit_conformal,
    prediction_sets,
    predictive_entropy,
    risk_coverage,
    set_coverage,
)

__all__ = [
    "MetricsRecorder",
    "PredictionTable",
    "area_under_roc",
    "calibration_error",
    "classification_metrics",
    "decompose_entropy",
    "disagreement",
    "fit_conformal",
    "fit_temperature",
    "goodness",
    "log_metrics",
    "mean_logits",
    "prediction_sets",
    "predictive_entropy",
    "read_predictions",
    "reliability",
    "risk_coverage",
    "set_coverage",
    "wilson_interval",
    "write_predictions",
]
