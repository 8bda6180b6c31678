# SPDX-License-Identifier: Apache-2.0
"""Numbers from predictions: metrics, intervals, comparisons, calibration, uncertainty. NumPy and PyTorch only.

The public names are loaded on first use, so that nothing pays for what it does not need.
"""

from __future__ import annotations

from dual_skd.utils.lazy import on_first_use

_HOME = {
    "Intervals": "bootstrap",
    "bootstrap_intervals": "bootstrap",
    "fit_temperature": "calibration",
    "reliability": "reliability_diagram",
    "wilson_interval": "estimates",
    "area_under_roc": "classification",
    "calibration_error": "classification",
    "classification_metrics": "classification",
    "mean_logits": "classification",
    "AreaDifference": "delong",
    "auc_interval": "delong",
    "class_auc_intervals": "delong",
    "delong_test": "delong",
    "macro_auc_interval": "delong",
    "Estimate": "estimates",
    "McNemar": "mcnemar",
    "match_tables": "mcnemar",
    "mcnemar_test": "mcnemar",
    "OperatingPoint": "operating_point",
    "choose_operating_point": "operating_point",
    "one_against_rest": "operating_point",
    "Difference": "paired",
    "holm": "paired",
    "paired_differences": "paired",
    "PredictionTable": "predictions",
    "read_predictions": "predictions",
    "write_predictions": "predictions",
    "Subgroup": "subgroups",
    "subgroup_metrics": "subgroups",
    "decompose_entropy": "uncertainty",
    "disagreement": "uncertainty",
    "fit_conformal": "uncertainty",
    "prediction_sets": "uncertainty",
    "predictive_entropy": "uncertainty",
    "risk_coverage": "uncertainty",
    "set_coverage": "uncertainty",
}
__all__ = [*_HOME]
__getattr__, __dir__ = on_first_use(__name__, _HOME)
