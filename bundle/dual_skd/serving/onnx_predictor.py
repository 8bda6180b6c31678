# SPDX-License-Identifier: Apache-2.0
"""Predictions by ONNX Runtime from what ``export`` made and verified, without PyTorch and MONAI."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dual_skd.data.reading.expectation import ExpectedInput
from dual_skd.data.reading.reader import channels_first, read_image
from dual_skd.errors import InputError
from dual_skd.metrics.probabilities import probabilities
from dual_skd.metrics.uncertainty import Conformal
from dual_skd.runs.model_info import require_model_info
from dual_skd.serving.export.numpy_preprocessing import can_preprocess, preprocess
from dual_skd.serving.export.runtimes import open_artefact
from dual_skd.serving.prediction import PredictionRules
from dual_skd.serving.predictor_base import Image, Predictor
from dual_skd.utils.files import read_json, sha256_of


@dataclass(frozen=True)
class OnnxExport:
    """The parts of an export that predictions need.

    Args:
        about: content of ``export.json``, see :func:`dual_skd.serving.export.export.export`.
        networks: ONNX file and temperature of the student, and of the auxiliary where the model has one.
    """

    about: Mapping[str, Any]
    networks: Sequence[tuple[Path, float]]


def sidecar_of(model: Path) -> Path:
    """The file in which ``export`` describes what it made of a run's model file."""
    return model.parent.parent / "export" / "export.json"


def find_export(model: Path, *, alpha: float) -> OnnxExport | None:
    """The ONNX files that give a model's predictions; None unless they give all of them.

    Model and files have to be those of the export, by their SHA-256: the model may have been trained again since. An
    auxiliary has to be exported too, as predictions state the disagreement with it.

    Args:
        model: the model file.
        alpha: of the prediction sets that are wanted.
    """
    about = read_json(sidecar_of(model))
    if "prediction_sets" not in about or find_spec("onnxruntime") is None:  # older exports lack it
        return None
    try:
        return _verified(model, about, alpha)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{sidecar_of(model)} isn't what an export writes ({type(error).__name__}: {error}); export the model "
            "again, or remove the folder."
        ) from error


def _verified(model: Path, about: Mapping[str, Any], alpha: float) -> OnnxExport | None:
    _require_description(sidecar_of(model), about)
    sets = about["prediction_sets"]
    steps, size = about["preprocessing"]["steps"], about["preprocessing"].get("image_size", 96)
    sizes = [step["size"] for step in steps if "size" in step]
    if not can_preprocess(steps) or any(one not in (size, [size] * len(one)) for one in sizes):
        return None
    if sets is not None and sets["alpha"] != alpha:
        return None
    row: dict[str, Any] = next((row for row in about["artefacts"] if row["format"] == "onnx"), {})
    wanted = [(model, {**row, "model": about["model"], "temperature": about["temperature"]})]
    if (auxiliary := model.with_name("auxiliary.pt")).is_file():
        wanted.append((auxiliary, about["auxiliary"] or {}))
    networks = []
    for source, made in wanted:
        if made.get("status") != "passed" or not _has_sum(source, made["model"]):
            return None
        (file,) = made["files"]
        artefact = sidecar_of(model).with_name(file["name"])
        if not _has_sum(artefact, file):
            return None
        networks.append((artefact, made["temperature"]))
    return OnnxExport(about, networks)


def _require_description(path: Path, about: Mapping[str, Any]) -> None:
    """Refuses what no export writes, as of a model's file."""
    preprocessing = {name: value for name, value in about["preprocessing"].items() if name != "steps"}
    if preprocessing.get("expected"):
        preprocessing["expected"] = {k: v for k, v in preprocessing["expected"].items() if k != "text"}
    found = {"class_names": about["class_names"], "preprocessing": preprocessing}
    require_model_info(found | {"calibration": {"temperature": about["temperature"], "images": 0}}, path)


def _has_sum(path: Path, described: Mapping[str, Any]) -> bool:
    return path.is_file() and sha256_of(path) == described["sha256"]


class OnnxPredictor(Predictor):
    """A run's model in ONNX Runtime.

    Args:
        path: the model file.
        export: the ONNX files made of it.
        unexpected_input: see :func:`dual_skd.serving.predictor.predict`.
    """

    runtime = "ONNX Runtime"

    def __init__(self, path: Path, export: OnnxExport, *, unexpected_input: str = "refuse") -> None:
        about = export.about
        preprocessing, sets = dict(about["preprocessing"]), about["prediction_sets"]
        if sets is not None:
            sets = Conformal(**{**sets, "threshold": math.inf if sets["threshold"] is None else sets["threshold"]})
        several = len(export.networks) > 1
        rules = PredictionRules(about["class_names"], about["activation"] == "sigmoid", sets, several)
        super().__init__(path, preprocessing, rules)
        self.steps = preprocessing.pop("steps")
        window, frame = preprocessing.get("window"), preprocessing.get("frame")
        self.reading = {
            "spatial_dims": preprocessing.get("spatial_dims", 2), "frame": None if frame == "all" else frame,
            "voi_lut": window == "file",
        }  # fmt: skip
        expected = {name: value for name, value in (preprocessing.get("expected") or {}).items() if name != "text"}
        self.expected = ExpectedInput(expected, window, unexpected_input) if expected else None
        threads = os.cpu_count() or 1
        self.networks = []
        for file, temperature in export.networks:
            with runtime_failures_named(file):
                self.networks.append((file, open_artefact("onnxruntime", file, threads), temperature))

    def prepare(self, image: Image, *, spacing: float | Sequence[float] | None = None, hu: bool = False) -> np.ndarray:
        if isinstance(image, str | Path):
            array, meta = read_image(image, **self.reading)
        else:
            array, meta = self.read_array(image, spacing, hu)
        if self.expected is not None:
            self.expected.judge(channels_first(array, meta), meta)
        return preprocess(self.steps, array, meta)

    def probabilities(self, prepared: Sequence[np.ndarray]) -> list[np.ndarray]:
        batch, found = np.stack(prepared), []
        for file, run, temperature in self.networks:
            with runtime_failures_named(file):
                logits = (run(batch) / temperature).astype(float)
                if logits.shape != (len(batch), len(self.rules.class_names)):
                    raise ValueError(f"it gives {logits.shape} logits")
            found.append(probabilities(logits, multi_label=self.rules.multi_label))
        return found


@contextlib.contextmanager
def runtime_failures_named(file: Path) -> Iterator[None]:
    """Raises what ONNX Runtime, which has its own kinds of errors, says of a file, as an InputError."""
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"{file} can't be computed ({reason}); export the model again, or remove the folder."
        ) from error
