# SPDX-License-Identifier: Apache-2.0
"""A run as files, without a network: what an analysis and a report are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dual_skd.metrics.predictions import write_predictions

SELECTION = """\
network,name,source,shape,source_shape,kept,norm_share,reason,note,verified
student,conv_stem.weight,conv_stem.weight,4x1x3x3,8x3x3x3,"{""stem"": ""0:4:1""}",0.500000,,,True
student,blocks.0.0.conv.weight,blocks.0.0.conv.weight,4x4x1x1,8x8x1x1,"{}",0.250000,,,True
student,blocks.0.1.conv.weight,blocks.0.1.conv.weight,4x4x1x1,8x8x3x3,"{}",,other kernel,,True
student,classifier.weight,,3x4,,"{}",,the classes are new,,True
"""
NETWORK = {"name": "resnet18", "num_classes": 3, "in_channels": 1, "layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}


def probabilities(labels: np.ndarray, classes: int, *, strength: float = 1.5, seed: int = 0) -> np.ndarray:
    """Probabilities that favour the label."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), classes)) + strength * np.eye(classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.fixture
def run_folder(tmp_path) -> Callable[..., Path]:
    """Writes the files of a run, of three classes and two images per patient unless told otherwise."""

    def write(
        labels: Sequence[int] | np.ndarray = tuple(place % 3 for place in range(60)),
        p: np.ndarray | None = None,
        *,
        class_names: Sequence[str] = ("normal", "nodule", "mass"),
        columns: dict[str, Sequence[str]] | None = None,
        patients: Sequence[str] | None = None,
        validation: bool = True,
        auxiliary: bool = True,
        multi_label: bool = False,
        temperature: float | None = None,
        name: str = "run",
    ) -> Path:
        directory, labels = tmp_path / name, np.asarray(labels)
        directory.mkdir()
        classes = len(class_names)
        p = probabilities(labels, classes) if p is None else np.asarray(p, dtype=float)
        images = [f"/clinic/secret_name_{place}.png" for place in range(len(labels))]
        patients = [f"patient{place // 2}" for place in range(len(labels))] if patients is None else patients
        write_predictions(directory / "predictions_test.csv", images, labels, p, class_names, multi_label=multi_label)
        known = np.arange(10 * classes) % classes
        if validation:
            of_images = [f"/clinic/val_{place}.png" for place in range(len(known))]
            truth = np.eye(classes, dtype=int)[known] if multi_label else known
            write_predictions(
                directory / "predictions_validation.csv", of_images, truth, probabilities(known, classes, seed=1),
                class_names, multi_label=multi_label,
            )  # fmt: skip
        records = [
            {"image": image, "label": label, "patient": patient, "site": ""}
            | {column: values[place] for column, values in (columns or {}).items()}
            for place, (image, label, patient) in enumerate(zip(images, labels.tolist(), patients, strict=True))
        ]
        content: dict[str, Any] = {
            "description": "/clinic of patient0",
            "labels": {str(k): one for k, one in enumerate(class_names)},
            "spatial_dims": 2,
            "training": [{"image": f"/clinic/train_{k}.png", "label": records[0]["label"], "patient": f"t{k // 3}"}
                         for k in range(9)],
            "validation": [],
            "test": records,
            "left_out": [{"image": "/clinic/twin.png", "label": records[0]["label"], "patient": "", "split": "test",
                          "twin": "/clinic/train_0.png", "similarity": 1.0, "exact": True}],
            "twins_searched": True,
            "unusable": [{"image": "/clinic/broken.png", "problem": "damaged", "remedy": "leave out"}],
        }  # fmt: skip
        (directory / "datalist.json").write_text(json.dumps(content))
        number = {"macro_auc": 0.9, "nll": 0.4, "ece": 0.05}
        networks = {"student": number} | ({"auxiliary": number | {"macro_auc": 0.8}} if auxiliary else {})
        test: dict[str, Any] = {"images": len(labels), "student": number}
        if temperature is not None:
            test["calibrated"] = number
        epochs = [{"epoch": epoch, "images": 30, **networks} for epoch in (1, 2)]
        metrics = {"class_names": list(class_names), "key_metric": "macro_auc", "epochs": epochs, "best": epochs[0],
                   "final": epochs[1], "test": test}  # fmt: skip
        (directory / "metrics.json").write_text(json.dumps(metrics))
        run = {
            "versions": {"dual_skd": "0.1.0", "torch": "2.10"}, "seed": 3, "data_hash": "abc", "device": "cpu",
            "config": {"dataset_dir": "/clinic", "output_dir": "/clinic/out", "epochs": 2, "method": "coupled"},
            "networks": {"student": {"architecture": {"name": "small"}, "parameters": 1000, "macs": 5000},
                         "large": {"architecture": NETWORK, "parameters": 10000, "macs": 50000}},
            "input_shape": [1, 32, 32], "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:00:12+00:00",
            "timings": {"epochs": [], "total_seconds": 12.5},
        }  # fmt: skip
        (directory / "run.json").write_text(json.dumps(run))
        (directory / "selection_report.csv").write_text(SELECTION)
        return directory

    return write
