# SPDX-License-Identifier: Apache-2.0
"""Light medical image classifiers by dual-model weight selection and self-knowledge distillation.

The public names below are loaded on first use, so that ``dual_skd.selection`` and the command line stay free of MONAI.
"""

from __future__ import annotations

from dual_skd.utils.former_names import install
from dual_skd.utils.lazy import on_first_use
from dual_skd.utils.telemetry import switch_off_telemetry

__version__ = "0.1.0"

_HOME = {
    "InputError": "errors",
    "SelectionError": "errors",
    "SelectionPlan": "selection",
    "plan_selection": "selection",
    "select_weights": "selection",
    "SelfDistillationLoss": "training.losses",
    "Schedule": "training.schedule",
    "DualModelTask": "training.task",
    "DualModelTrainer": "training.trainer",
    "DualModelEvaluator": "training.evaluator",
    "build_network": "networks.build",
    "allow_network": "networks.allowed",
    "load_records": "data",
    "load_model": "runs.model_file",
    "TrainingResult": "api.results",
    "EvaluationResult": "api.results",
    "InferenceResult": "api.inference_result",
    "propose_students": "evaluation.students",
    "train": "api.functions",
    "evaluate": "api.functions",
    "show_batch": "api.shown_images",
    "suggest": "api.suggestions",
    "SuggestionResult": "api.suggestions",
    "Prediction": "serving.prediction",
    "predict": "serving.predictor",
    "predict_iter": "serving.predictor",
}
__all__ = ["__version__", *_HOME]
__getattr__, __dir__ = on_first_use(__name__, _HOME, beside=["__version__"])
install()
switch_off_telemetry()  # here, because libraries look when they are imported
