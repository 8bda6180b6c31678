# SPDX-License-Identifier: Apache-2.0
"""Modules under the names they had before version 0.2, for configs and programs that still say those."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

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
    "prediction.outcome": "serving.prediction",
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
        return spec_from_loader(fullname, self) if present_name(fullname) else None

    def exec_module(self, module: ModuleType) -> None:
        former = module.__name__
        present = present_name(former)
        warnings.warn(_remedy(former, present), FutureWarning, stacklevel=2)
        sys.modules[former] = import_module(present)


def present_name(fullname: str) -> str:
    """The present name of a module by its former one; "" for a name that isn't a former one."""
    package, _, name = fullname.partition(".")
    if package != PACKAGE:
        return ""
    if name in MODULES:
        return f"{PACKAGE}.{MODULES[name]}"
    parent, _, last = name.rpartition(".")
    return f"{PACKAGE}.{MODULES[parent]}.{last}" if parent in MODULES else ""


def install() -> None:
    """Lets imports find the modules by their former names too."""
    if not any(isinstance(finder, _FormerNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, _FormerNames())  # first: a former package's path would give a module a second time


def renamed(module: str, **names: str) -> Callable[[str], Any]:
    """``__getattr__`` of a module: former name of a function or class -> present name, with its module if it moved."""

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, present = names[name].rpartition(".")
        home = home or module
        warnings.warn(_remedy(f"{module}.{name}", f"{home}.{present}"), FutureWarning, stacklevel=2)
        return getattr(import_module(home), present)

    return get


def _remedy(former: str, present: str) -> str:
    return f"{former} is now {present}; the former name goes with version 0.3."
