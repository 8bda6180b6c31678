# SPDX-License-Identifier: Apache-2.0
"""Modules under the names they had before version 0.2, for configs and programs that still say those."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_loader
from types import ModuleType
from typing import Any

PACKAGE = "dual_skd"
MODULES = {  # former name -> present name, within the package
    "bad_numbers": "runs.bad_numbers",
    "best_model": "runs.best_model",
    "checkpoints": "runs.checkpoint",
    "commands": "cli",
    "data.bad_files": "data.records.bad_files",
    "data.caching": "data.cache",
    "data.checking.inspection": "data.reading.inspection",
    "data.reading.dicom": "data.reading.dicom_header",
    "data.reading.dicom_stack": "data.reading.dicom_series",
    "data.reading.loading": "data.reading.refusals",
    "data.reading.monai_reader": "data.reading.preprocessing",
    "data.reading.npz_cache": "data.reading.numpy_files",
    "data.records.spelling": "utils.spelling",
    "data.twins": "data.near_duplicates",
    "data.twins.likeness": "data.near_duplicates.similarity",
    "deploy": "serving.export",
    "deploy.child": "serving.export.worker",
    "deploy.dicom_sr": "serving.dicom_sr",
    "deploy.follow": "serving.export.numpy_preprocessing",
    "deploy.gate": "serving.export.acceptance",
    "deploy.recipe": "serving.export.model_spec",
    "devices": "runs.devices",
    "distributed": "runs.distributed",
    "evaluation.arguments": "metrics.validation",
    "evaluation.bootstrap": "metrics.intervals",
    "evaluation.calibration": "metrics.calibration",
    "evaluation.curves": "metrics.curves",
    "evaluation.delong": "metrics.delong",
    "evaluation.estimates": "metrics.estimates",
    "evaluation.mcnemar": "metrics.mcnemar",
    "evaluation.metrics": "metrics.classification",
    "evaluation.operating_point": "metrics.operating_point",
    "evaluation.paired": "metrics.paired",
    "evaluation.predictions": "metrics.predictions",
    "evaluation.recorder": "runs.recorder",
    "evaluation.resampling": "metrics.resampling",
    "evaluation.subgroups": "metrics.subgroups",
    "evaluation.uncertainty": "metrics.uncertainty",
    "evaluation.weighted": "metrics.weighted",
    "evaluator": "training.evaluator",
    "files": "utils.files",
    "label_free": "training.label_free",
    "lazy": "utils.lazy",
    "learning_curve": "cli.learning_curve",
    "log": "utils.log",
    "losses": "training.losses",
    "momentum": "training.ema",
    "monai_label": "serving.monai_label",
    "metrics.bootstrap": "metrics.intervals",
    "networks.wheels": "networks.pretrained",
    "outputs": "runs.model_file",
    "own_networks": "networks.allowed",
    "pair": "training.start",
    "places": "runs.places",
    "prediction": "serving",
    "prediction.answering": "serving.predictor_base",
    "prediction.exported": "serving.onnx_predictor",
    "prediction.outcome": "serving.prediction",
    "prediction.pytorch": "serving.torch_predictor",
    "prediction.result": "api.inference_result",
    "pretrained": "networks.pretrained",
    "progress": "utils.progress",
    "results": "api.results",
    "run_progress": "training.progress",
    "run_record": "runs.record",
    "schedule": "training.schedule",
    "shown_images": "api.shown_images",
    "teacher": "training.teacher",
    "trainer": "training.trainer",
    "volumetric": "networks.volumetric",
    "weight_files": "networks.weight_files",
    "wheels": "networks.pretrained",
    "wording": "utils.wording",
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
    present = f"{PACKAGE}.{MODULES.get(parent, '')}.{last}"
    return present if parent in MODULES and find_spec(present) else ""


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
