# SPDX-License-Identifier: Apache-2.0
"""The MONAI Deploy application. What needs its SDK runs only where DUAL_SKD_MONAI_DEPLOY names a Python that has it.

python -m venv deploy-env
deploy-env/bin/pip install -r scripts/release/monai_deploy_app/requirements.txt
DUAL_SKD_MONAI_DEPLOY=deploy-env/bin/python python -m pytest tests/release/test_monai_deploy_app.py
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from dicom_files import write_ct, write_series
from pydicom import Dataset
from pydicom.uid import CTImageStorage
from pydicom.uid import SecondaryCaptureImageStorage as SC
from torch import nn

from dual_skd.data import image_transforms, read_image
from dual_skd.data.reading.dicom_header import in_hounsfield
from scripts import ROOT

model_spec = pytest.importorskip("dual_skd.serving.export.model_spec").model_spec
APP = ROOT / "scripts" / "release" / "monai_deploy_app"
NAMES = ["a", "b"]
PYTHON = os.environ.get("DUAL_SKD_MONAI_DEPLOY", "")


@pytest.fixture(scope="module")
def app():
    """The module ``classify``, as the application imports it."""
    sys.path.insert(0, str(APP))
    yield import_module("classify")
    sys.path.remove(str(APP))


def about(**preprocessing) -> dict:
    """What export.json holds of a model."""
    info = {
        "architecture": {"name": "any", "in_channels": 1}, "class_names": NAMES, "multi_label": False,
        "preprocessing": {"spatial_dims": 2, "image_size": 16, "window": "percentile"} | preprocessing,
        "calibration": {"temperature": 2.0},
    }  # fmt: skip
    return json.loads(json.dumps(model_spec(info) | {"model": {"file": "model.pt", "sha256": "0" * 64}}))


@pytest.fixture
def exported(tmp_path) -> Path:
    """A traced network of two classes with export.json beside it."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    torch.jit.trace(network.eval(), torch.zeros(1, 1, 16, 16)).save(tmp_path / "model.ts")
    (tmp_path / "export.json").write_text(json.dumps(about() | {"made_with": {"dual-skd": "0.1.0"}}))
    return tmp_path


def test_every_module_parses_and_none_needs_this_package():
    found = set()
    for file in APP.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
    own = {file.stem for file in APP.glob("*.py")}
    listed = {"monai", "torch", "numpy", "nibabel", "pydicom"}
    assert found - own - set(sys.stdlib_module_names) == listed
    assert all(name in (APP / "requirements.txt").read_text() for name in listed)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"window": [40.0, 400.0]}, {"window": "zscore"}, {"image_size": [20, 9]},
        {"spacing": 0.9, "image_size": [40, 10]}, {"spacing": [0.4, 1.1], "image_size": 24},
        {"fit": "pad", "image_size": [40, 10]}, {"fit": "crop", "image_size": 24},
    ],
    ids=str,
)  # fmt: skip
def test_an_image_is_prepared_as_for_training(tmp_path, app, options):
    pixels = np.random.default_rng(0).integers(-1000, 1000, (23, 31))
    file = write_ct(tmp_path / "image.dcm", pixels)
    given = about(**options)
    found = app.prepare(pixels.T.astype(np.float32), given["preprocessing"]["steps"], spacing=(1.5, 0.5, 1.0))
    trained = {"spatial_dims": 2, "image_size": 16, "window": "percentile"} | options
    wanted = image_transforms(**trained)({"image": str(file)})["image"]
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{}, {"spacing": [0.9, 0.8, 2.0], "image_size": [12, 18, 14]}, {"fit": "crop", "image_size": [20, 8, 30]}],
    ids=str,
)
def test_a_volume_is_turned_resampled_and_prepared_as_for_training(tmp_path, app, options):
    values = np.random.default_rng(1).integers(0, 500, (9, 14, 21)).astype(np.int16)
    # sagittal slices, so that every axis is turned
    folder = write_series(
        tmp_path / "s", values, rows=(0.0, 1.0, 0.0), columns=(0.0, 0.0, -1.0), StudyInstanceUID="1.2"
    )
    array, meta = read_image(folder, spatial_dims=3)
    given = about(spatial_dims=3, **options)
    spacing = np.linalg.norm(meta["affine"][:3, :3], axis=0)
    found = app.prepare(array, given["preprocessing"]["steps"], affine=meta["affine"], spacing=spacing)
    trained = {"spatial_dims": 3, "image_size": 16, "window": "percentile"} | options
    torch.testing.assert_close(
        found, image_transforms(**trained)({"image": str(folder)})["image"], rtol=1e-4, atol=1e-4
    )


def test_every_slice_has_the_calibrated_probabilities_of_the_network(app, exported):
    network, given = app.load(exported)
    volume = np.random.default_rng(2).normal(size=(3, 16, 16))
    rows = app.classify(volume, network, given)
    low, high = np.percentile(volume[1], [0.5, 99.5])
    image = torch.tensor(np.clip(2 * (volume[1] - low) / (high - low) - 1, -1, 1), dtype=torch.float32)
    logits = network(image[None, None]).detach() / 2.0
    wanted = logits.softmax(1)[0].tolist()
    assert len(rows) == 3 and [rows[1][name] for name in NAMES] == pytest.approx(wanted, abs=1e-5)
    several = app.classify(volume, network, given | {"activation": "sigmoid"})
    assert several[1]["a"] == pytest.approx(logits.sigmoid()[0, 0].item(), abs=1e-5)


def test_the_report_names_answer_numbers_weights_and_limits(app):
    text = app.report_text([{"a": 0.25, "b": 0.75}, {"a": 0.6, "b": 0.4}], about())
    assert "Image 1 of 2: b (probabilities: a 0.2500, b 0.7500)" in text
    assert "Image 2 of 2: a" in text and "0" * 64 in text and "research use only" in text
    assert app.predicted({"a": 0.6, "b": 0.7}, {"activation": "sigmoid"}) == ["a", "b"]


def test_the_operator_looks_for_padding_and_inversion_before_it_classifies():
    code = (APP / "classifier_operator.py").read_text(encoding="utf-8")
    for refusal in (
        "refuse_padding(headers)",
        "refuse_inverted(headers, self.about)",
        "refuse_oblong(headers, self.about)",
        "refuse_unexpected(headers, self.about)",
    ):
        assert 0 < code.find(refusal) < code.find("rows = classify(")


def test_what_can_not_be_prepared_is_refused(app, exported, tmp_path):
    network, given = app.load(exported)
    for volume in (np.zeros((16, 16)), np.full((1, 16, 16), np.nan)):
        with pytest.raises(ValueError, match="Expected finite grey values"):
            app.classify(volume, network, given)
    with pytest.raises(ValueError, match="no VOI LUT"):
        app.classify(np.zeros((1, 16, 16)), network, about(window="file"))
    with pytest.raises(ValueError, match="no pixel spacing"):
        app.classify(np.zeros((1, 16, 16)), network, about(spacing=1.0))
    app.refuse_padding([Dataset(), Dataset()])
    padded = Dataset()
    padded.add_new("PixelPaddingValue", "SS", -2000)
    with pytest.raises(ValueError, match="has PixelPaddingValue"):
        app.refuse_padding([Dataset(), padded])
    square, oblong = Dataset(), Dataset()
    square.PixelAspectRatio, oblong.PixelAspectRatio = ["3", "3"], ["3", "2"]
    app.refuse_oblong([oblong], about())
    app.refuse_oblong([Dataset(), square], about(fit="pad"))
    with pytest.raises(ValueError, match="has PixelAspectRatio"):
        app.refuse_oblong([square, oblong], about(fit="pad"))
    inverted = Dataset()
    inverted.PhotometricInterpretation, inverted.Modality = "MONOCHROME1", "DX"
    app.refuse_inverted([inverted], about())
    for modality, window in (("DX", [3200, 600]), ("CT", "percentile"), ("ct", "percentile")):
        inverted.Modality = modality
        with pytest.raises(ValueError, match="stored inverted"):
            app.refuse_inverted([Dataset(), inverted], about(window=window))
    with pytest.raises(ValueError, match="no model.ts and no export.json"):
        app.load(tmp_path / "nowhere")


@pytest.mark.parametrize("tags", [
    {}, {"Modality": "MR"}, {"PhotometricInterpretation": "RGB"}, {"SOPClassUID": SC},
    {"SOPClassUID": SC, "BitsStored": 8},
    {"SOPClassUID": SC, "RescaleSlope": 1, "RescaleIntercept": 0, "BitsStored": 8},
    {"SOPClassUID": SC, "RescaleSlope": 1, "RescaleIntercept": 0}, {"SOPClassUID": SC, "RescaleIntercept": -1024},
    {"RescaleIntercept": -1024}, {"RescaleIntercept": -1024, "Modality": "ct"}, {"RescaleSlope": 1, "Modality": " CT "},
    {"RescaleIntercept": 0, "RescaleType": "ed"}, {"RescaleSlope": 1, "PhotometricInterpretation": "monochrome2"},
], ids=str)  # fmt: skip
def test_hounsfield_units_are_known_as_the_reader_knows_them(app, tags):
    header = Dataset()
    of_ct = {"Modality": "CT", "PhotometricInterpretation": "MONOCHROME2", "SOPClassUID": CTImageStorage}
    for name, value in {**of_ct, "BitsStored": 12, **tags}.items():
        setattr(header, name, value)
    assert app.in_hounsfield(header) is in_hounsfield(header)


def test_a_series_of_another_kind_than_training_had_is_refused(app):
    ct, screenshot, mr = Dataset(), Dataset(), Dataset()
    for header, modality, kind in ((ct, "CT", CTImageStorage), (screenshot, "CT", SC), (mr, "MR", SC)):
        header.Modality, header.SOPClassUID, header.PhotometricInterpretation = modality, kind, "MONOCHROME2"
    ct.RescaleIntercept = -1024
    trained = about(window=[40.0, 400.0], expected={"hounsfield": True, "modalities": ["CT"]})
    app.refuse_unexpected([ct, ct], trained)
    app.refuse_unexpected([mr], about())
    for header, words in ((screenshot, "isn't in Hounsfield units"), (mr, "is of modality MR, training had CT")):
        with pytest.raises(ValueError, match=words):
            app.refuse_unexpected([ct, header], trained)
    for mr.Modality in ("CR", " cr"):
        app.refuse_unexpected([mr], about(expected={"hounsfield": False, "modalities": ["X-ray"]}))


@pytest.mark.monaideploy
@pytest.mark.skipif(not PYTHON, reason="DUAL_SKD_MONAI_DEPLOY names no Python with monai-deploy-app-sdk")
def test_the_application_runs_from_a_dicom_folder_to_the_report(exported, tmp_path):
    volume = np.random.default_rng(3).integers(0, 900, (3, 20, 24)).astype(np.uint16)
    tags = {"Modality": "MR", "StudyInstanceUID": "1.2.9", "PatientName": "Doe^Jo", "StudyDate": "20260102"}
    study = write_series(tmp_path / "study", volume, **tags)
    command = [os.path.abspath(PYTHON), APP, "-i", study, "-o", tmp_path / "result", "-m", exported]
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "result" / "classification.json").read_text())["probabilities"]
    network = torch.jit.load(exported / "model.ts")
    trained = image_transforms(spatial_dims=2, image_size=16, window="percentile")
    files = sorted(study.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    images = torch.stack([trained({"image": str(path)})["image"] for path in files])
    wanted = (network(images) / 2.0).softmax(1)
    torch.testing.assert_close(torch.tensor([[row[name] for name in NAMES] for row in rows]), wanted, atol=1e-5, rtol=0)
    (report,) = (pydicom.dcmread(path) for path in (tmp_path / "result").glob("*.dcm"))
    assert (report.Modality, report.StudyInstanceUID, report.PatientName) == ("SR", "1.2.9", "Doe^Jo")
    assert "research use only" in str(report) and report.SoftwareVersions == "0.1.0"
