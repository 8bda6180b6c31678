# SPDX-License-Identifier: Apache-2.0
"""Predictions by ONNX Runtime from what ``export`` made and verified, without PyTorch and MONAI."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from dual_skd.data.reading.expectation import ExpectedInput
from dual_skd.data.reading.reader import channels_first, read_image
from dual_skd.metrics.probabilities import probabilities
from dual_skd.metrics.uncertainty import Conformal
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
    sets = about["prediction_sets"]
    if not can_preprocess(about["preprocessing"]["steps"]) or (sets is not None and sets["alpha"] != alpha):
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
            sets = Conformal(**{**sets, "threshold": inf if sets["threshold"] is None else sets["threshold"]})
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
        self.networks = [
            (open_artefact("onnxruntime", file, threads), temperature) for file, temperature in export.networks
        ]

    def prepare(self, image: Image, *, spacing: float | Sequence[float] | None = None, hu: bool = False) -> np.ndarray:
        if isinstance(image, str | Path):
            array, meta = read_image(image, **self.reading)
        else:
            array, meta = self.read_array(image, spacing, hu)
        if self.expected is not None:
            self.expected.judge(channels_first(array, meta), meta)
        return preprocess(self.steps, array, meta)

    def probabilities(self, prepared: Sequence[np.ndarray]) -> list[np.ndarray]:
        batch = np.stack(prepared)
        return [
            probabilities((run(batch) / temperature).astype(float), multi_label=self.rules.multi_label)
            for run, temperature in self.networks
        ]
