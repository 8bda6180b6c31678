# SPDX-License-Identifier: Apache-2.0
"""Modules under the names they had before version 0.2, for configs and programs that still say those."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType

PACKAGE = "dual_skd"
MODULES = {  # former name -> present name, within the package
    "bad_numbers": "runs.bad_numbers",
    "best_model": "runs.best_model",
    "checkpoints": "runs.checkpoint",
    "deploy": "serving.export",
    "deploy.dicom_sr": "serving.dicom_sr",
    "devices": "runs.devices",
    "distributed": "runs.distributed",
    "evaluation.bootstrap": "metrics.bootstrap",
    "evaluation.calibration": "metrics.calibration",
    "evaluation.delong": "metrics.delong",
    "evaluation.metrics": "metrics.classification",
    "evaluation.paired": "metrics.paired",
    "evaluation.predictions": "metrics.predictions",
    "evaluation.recorder": "runs.recorder",
    "evaluation.subgroups": "metrics.subgroups",
    "evaluation.uncertainty": "metrics.uncertainty",
    "evaluation.weighted": "metrics.weighted",
    "evaluator": "training.evaluator",
    "label_free": "training.label_free",
    "losses": "training.losses",
    "momentum": "training.ema",
    "monai_label": "serving.monai_label",
    "outputs": "runs.model_file",
    "pair": "training.start",
    "prediction": "serving",
    "prediction.predictor": "serving.predictor",
    "prediction.writers": "serving.writers",
    "pretrained": "networks.pretrained",
    "results": "api.results",
    "run_progress": "training.progress",
    "run_record": "runs.record",
    "schedule": "training.schedule",
    "teacher": "training.teacher",
    "trainer": "training.trainer",
    "volumetric": "networks.volumetric",
    "weight_files": "networks.weight_files",
    "workflow": "runs.workflow",
}


class _FormerNames(MetaPathFinder, Loader):
    """Finds a module by its former name, and gives the present one itself: its classes stay the same objects."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return spec_from_loader(fullname, self) if package == PACKAGE and name in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        former = module.__name__
        present = f"{PACKAGE}.{MODULES[former.partition('.')[2]]}"
        warnings.warn(f"{former} is now {present}; the former name goes with version 0.3.", FutureWarning, stacklevel=2)
        sys.modules[former] = import_module(present)


def install() -> None:
    """Lets imports find the modules by their former names too, after everything that exists."""
    if not any(isinstance(finder, _FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(_FormerNames())
