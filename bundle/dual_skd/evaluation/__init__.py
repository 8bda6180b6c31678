# SPDX-License-Identifier: Apache-2.0
"""Metrics of a classifier and the handler that records them."""

from dual_skd.evaluation.calibration import fit_temperature, reliability, wilson_interval
from dual_skd.evaluation.metrics import area_under_roc, calibration_error, classification_metrics, mean_logits
from dual_skd.evaluation.recorder import MetricsRecorder, goodness, log_metrics

__all__ = [
    "MetricsRecorder",
    "area_under_roc",
    "calibration_error",
    "classification_metrics",
    "fit_temperature",
    "goodness",
    "log_metrics",
    "mean_logits",
    "reliability",
    "wilson_interval",
]
