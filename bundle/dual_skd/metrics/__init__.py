# SPDX-License-Identifier: Apache-2.0
"""Numbers from predictions: metrics, intervals, comparisons, calibration, uncertainty. NumPy and PyTorch only.

The public names are loaded on first use, so that nothing pays for what it does not need.
"""

from __future__ import annotations

from dual_skd.utils.lazy import on_first_use

_NAMES = {  # of each module
    "calibration": "fit_temperature",
    "recalibration": "Recalibration fit_recalibration",
    "reliability_diagram": "reliability",
    "risks": "RiskCalibration risk_calibration",
    "estimates": "Estimate",
    "classification": "area_under_roc calibration_error classification_metrics mean_logits",
    "delong": "delong_test",
    "differences": "MetricDifference paired_tests",
    "intervals": "Intervals auc_interval metric_intervals share_interval",
    "likelihood_ratio": "LikelihoodRatios likelihood_ratios",
    "mcnemar": "McNemar match_tables mcnemar_test",
    "net_benefit": "DecisionCurve decision_curve",
    "operating_point": "OperatingPoint choose_operating_point one_against_rest",
    "paired": "Difference holm paired_differences",
    "per_patient": "PatientTable combine_patients",
    "predictions": "PredictionTable read_predictions write_predictions",
    "sample_size": "images_for_auc images_for_share",
    "score_intervals": "area_score_interval mover_interval wilson_interval",
    "subgroup_differences": "GroupDifference group_differences mover_difference",
    "subgroups": "Subgroup subgroup_metrics",
    "uncertainty": "decompose_entropy disagreement fit_conformal prediction_sets predictive_entropy "
    "risk_coverage set_coverage",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = [*_HOME]
__getattr__, __dir__ = on_first_use(__name__, _HOME, former={"bootstrap_intervals": "dual_skd.metrics.intervals"})
