# SPDX-License-Identifier: Apache-2.0
"""Light medical image classifiers by dual-model weight selection and self-knowledge distillation.

The public names below are loaded on first use, so that ``dual_skd.selection`` and the command line stay free of MONAI.
"""

from __future__ import annotations

from dual_skd.lazy import on_first_use

__version__ = "0.1.0"

_HOME = {
    "InputError": "errors",
    "SelectionError": "errors",
    "SelectionPlan": "selection",
    "plan_selection": "selection",
    "select_weights": "selection",
    "SelfDistillationLoss": "losses",
    "Schedule": "schedule",
    "DualModelTrainer": "trainer",
    "DualModelEvaluator": "evaluator",
    "build_network": "networks",
    "allow_network": "own_networks",
    "load_records": "data",
    "load_model": "outputs",
    "TrainingResult": "results",
    "EvaluationResult": "results",
    "InferenceResult": "prediction.result",
    "train": "api",
    "evaluate": "api",
    "show_batch": "shown_images",
    "Prediction": "prediction.outcome",
    "predict": "prediction.predictor",
    "predict_iter": "prediction.predictor",
}
# submodules that the configs' expressions reach after one "$import dual_skd"
_MODULES = (
    "bad_numbers",
    "checkpoints",
    "data",
    "devices",
    "distributed",
    "errors",
    "evaluation",
    "label_free",
    "losses",
    "teacher",
    "monai_label",
    "networks",
    "options",
    "outputs",
    "pair",
    "pretrained",
    "results",
    "selection",
)
__all__ = ["__version__", *_HOME]
__getattr__, __dir__ = on_first_use(__name__, _HOME, _MODULES, beside=["__version__"])
