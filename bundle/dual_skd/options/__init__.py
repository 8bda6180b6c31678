# SPDX-License-Identifier: Apache-2.0
"""Every option of training, evaluation and inference, stated once. Needs neither PyTorch nor MONAI."""

from __future__ import annotations

from dual_skd.options.derived import chosen, completed, marks, removed, resolved, settings, weight_files
from dual_skd.options.kinds import Options, choices_of, takes
from dual_skd.options.methods import METHODS, method
from dual_skd.options.reading import evaluation, prediction, read, training
from dual_skd.options.training import Training
from dual_skd.options.use import Evaluation, PerPatient, Prediction, Reporting, Suggestion
from dual_skd.options.words import command, training_command, words_of
from dual_skd.utils.lazy import on_first_use

__all__ = [
    "METHODS",
    "Evaluation",
    "Options",
    "PerPatient",
    "Prediction",
    "Reporting",
    "Suggestion",
    "Training",
    "choices_of",
    "chosen",
    "command",
    "completed",
    "evaluation",
    "marks",
    "method",
    "prediction",
    "read",
    "removed",
    "resolved",
    "settings",
    "takes",
    "training",
    "training_command",
    "weight_files",
    "words_of",
]
__getattr__, _ = on_first_use(__name__, {}, former={"refuse_unknown": "dual_skd.runs.command_line"})
