# SPDX-License-Identifier: Apache-2.0
"""Metrics of a classifier and the handler that records them."""

from dual_skd.evaluation.bootstrap import Intervals, bootstrap_intervals
from dual_skd.evaluation.calibration import fit_temperature, reliability, wilson_interval
from dual_skd.evaluation.delong import (
    AreaDifference,
    auc_interval,
    class_auc_intervals,
    delong_test,
    macro_auc_interval,
)
from dual_skd.evaluation.estimates import Estimate
from dual_skd.evaluation.explain import choose_cases, explain, overlay, panels
from dual_skd.evaluation.mcnemar import McNemar, match_tables, mcnemar_test
from dual_skd.evaluation.measured_images import MeasuredImages, evaluation_name
from dual_skd.evaluation.metrics import area_under_roc, calibration_error, classification_metrics, mean_logits
from dual_skd.evaluation.operating_point import OperatingPoint, choose_operating_point, one_against_rest
from dual_skd.evaluation.paired import Difference, holm, paired_differences
from dual_skd.evaluation.predictions import PredictionTable, read_predictions, write_predictions
from dual_skd.evaluation.recorder import MetricsRecorder, goodness
from dual_skd.evaluation.subgroups import Subgroup, subgroup_metrics
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
    "AreaDifference",
    "Difference",
    "Estimate",
    "Intervals",
    "McNemar",
    "MeasuredImages",
    "MetricsRecorder",
    "OperatingPoint",
    "PredictionTable",
    "Subgroup",
    "area_under_roc",
    "auc_interval",
    "bootstrap_intervals",
    "calibration_error",
    "choose_cases",
    "choose_operating_point",
    "class_auc_intervals",
    "classification_metrics",
    "decompose_entropy",
    "delong_test",
    "disagreement",
    "evaluation_name",
    "explain",
    "fit_conformal",
    "fit_temperature",
    "goodness",
    "holm",
    "macro_auc_interval",
    "match_tables",
    "mcnemar_test",
    "mean_logits",
    "one_against_rest",
    "overlay",
    "paired_differences",
    "panels",
    "prediction_sets",
    "predictive_entropy",
    "read_predictions",
    "reliability",
    "risk_coverage",
    "set_coverage",
    "subgroup_metrics",
    "wilson_interval",
    "write_predictions",
]
