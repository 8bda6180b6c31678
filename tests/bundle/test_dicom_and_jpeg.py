# SPDX-License-Identifier: Apache-2.0
"""The same pictures as JPEG and as DICOM files train alike and get the same predictions.

The second test does it with real chest X-rays: DUAL_SKD_DATA=FOLDER, which holds chest_xray/train and chest_xray/test.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_files import write_picture
from PIL import Image

from dual_skd.data.demo import chest_xray
from dual_skd.runs.model_file import load_model

REAL = Path(os.environ.get("DUAL_SKD_DATA", "nowhere")) / "chest_xray"


def convert(source: Path, target: Path) -> Path:
    """Every JPEG of a folder tree as a DICOM file, every other one stored with inverted grey values."""
    for place, path in enumerate(sorted(source.rglob("*.jp*g"))):
        grey = np.asarray(Image.open(path).convert("L"))
        inverted = place % 2 == 1
        write_picture(
            (target / path.relative_to(source)).with_suffix(".dcm"),
            255 - grey if inverted else grey,
            PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
            PatientID=path.stem,
        )
    return target


def predictions(run, model: Path, images: Path) -> dict[str, list[float]]:
    run("inference.json", output_dir=str(model), dataset_dir=str(images))
    with (model / "predictions.csv").open() as file:
        return {
            Path(row["image"]).stem: [float(row[column]) for column in row if column.startswith("p_")]
            for row in csv.DictReader(file)
        }


def compare(run, tiny, jpeg: Path, dicom: Path, output: Path, **options) -> None:
    for kind, data in (("jpeg", jpeg), ("dicom", dicom)):
        run("train.json", **tiny | {"dataset_dir": str(data), "output_dir": str(output / kind), **options})
    for model in (output / "jpeg", output / "dicom"):
        first, second = (predictions(run, model, data / "test") for data in (jpeg, dicom))
        assert first.keys() == second.keys() and len(first) >= 6
        for name, probabilities in first.items():
            assert probabilities == pytest.approx(second[name], abs=1e-5), name


def test_generated_pictures_as_jpeg_and_as_dicom(tmp_path, run, tiny):
    for split, count in (("train", 8), ("val", 3), ("test", 3)):
        for label in ("normal", "nodule"):
            (tmp_path / "jpeg" / split / label).mkdir(parents=True)
            for _ in range(count):
                seed = len(list(tmp_path.rglob("*.jpg")))
                picture = (chest_xray(label, anatomy_seed=seed, view_seed=0) // 16).astype(np.uint8)
                Image.fromarray(picture).save(tmp_path / "jpeg" / split / label / f"{label}{seed}.jpg")
    compare(run, tiny, tmp_path / "jpeg", convert(tmp_path / "jpeg", tmp_path / "dicom"), tmp_path)
    # one epoch is too short for rounding to grow: both trainings end in the same weights
    first, second = (load_model(tmp_path / kind)[0].state_dict() for kind in ("jpeg", "dicom"))
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


@pytest.mark.skipif(
    not REAL.is_dir(), reason="needs real chest X-rays; set DUAL_SKD_DATA to the folder above chest_xray"
)
def test_real_chest_x_rays_as_jpeg_and_as_dicom(tmp_path, run, tiny):
    for split, of, first, last in (("train", "train", 0, 45), ("val", "train", 45, 60), ("test", "test", 0, 20)):
        for folder in sorted((REAL / of).iterdir()):
            (tmp_path / "jpeg" / split / folder.name).mkdir(parents=True)
            for path in sorted(folder.glob("*.jpeg"))[first:last]:
                (tmp_path / "jpeg" / split / folder.name / path.name).symlink_to(path)
    dicom = convert(tmp_path / "jpeg", tmp_path / "dicom")
    compare(run, tiny, tmp_path / "jpeg", dicom, tmp_path, image_size=64, epochs=2)
