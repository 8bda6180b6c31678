# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime answers as PyTorch does, and only where the export is of this very model."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from dicom_files import write_ct
from tiny_run import ARCHITECTURE, NAMES, PREPROCESSING, picture, save_tiny

import dual_skd
from dual_skd.data import image_transforms
from dual_skd.errors import InputError
from dual_skd.metrics import write_predictions
from dual_skd.runs.model_file import load_model, save_model
from dual_skd.serving import onnx_predictor
from dual_skd.serving.export import builder
from dual_skd.serving.export import export as module
from dual_skd.serving.export.formats import FORMATS
from dual_skd.serving.export.model_spec import preprocessing_steps
from dual_skd.serving.onnx_predictor import OnnxPredictor, find_export, sidecar_of
from dual_skd.serving.predictor import load_predictor, predict
from dual_skd.serving.torch_predictor import TorchPredictor
from dual_skd.utils.files import sha256_of

pytestmark = pytest.mark.skipif(bool(FORMATS["onnx"].obstacle()), reason=FORMATS["onnx"].obstacle())
EXPECTED = {"images": 24, "colour": False, "modalities": ["CT"]}


@pytest.fixture(scope="module")
def exported_run(tmp_path_factory):
    """A run of a student, an auxiliary and calibrated prediction sets, exported to ONNX."""
    folder = tmp_path_factory.mktemp("exported")
    model = save_tiny(folder)
    network, _ = load_model(model)
    images = [picture(folder / "pictures" / f"{i}.png", i) for i in range(12)]
    labels = np.arange(12) % 2
    prepare = image_transforms(**PREPROCESSING)
    with torch.no_grad():
        logits = network(torch.stack([prepare({"image": image})["image"] for image in images])) / 8  # unsure
    write_predictions(folder / "predictions_validation.csv", images, labels, logits.softmax(1).numpy(), NAMES)
    nll = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item()
    calibration = {"temperature": 3.0, "images": 12, "nll_before": nll, "nll_after": nll}
    about = {"class_names": NAMES, "preprocessing": PREPROCESSING | {"expected": EXPECTED}}
    save_model(model.parent, network, architecture=ARCHITECTURE, calibration=calibration, **about)
    other, _ = load_model(save_tiny(folder / "other", seed=5))
    save_model(
        model.parent, other, architecture=ARCHITECTURE, name="auxiliary", calibration=calibration | {"temperature": 2},
        safetensors=False, **about,
    )  # fmt: skip
    listed = [{"image": image, "label": int(label)} for image, label in zip(images, labels, strict=True)]
    seen = [{"image": picture(folder / "pictures" / f"seen{i}.png", 20 + i), "label": i % 2} for i in range(4)]
    content = {"labels": dict(enumerate(NAMES)), "spatial_dims": 2, "test": [], "training": seen, "validation": listed}
    (folder / "datalist.json").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:  # in this process, which takes a tenth of the time
        patch.setattr(builder, "run_module", lambda name, words, **options: importlib.import_module(name).main(words))
        module.export(folder, formats=["onnx"], seconds=0.01)
    return folder


@pytest.fixture
def run_dir(exported_run, tmp_path):
    return shutil.copytree(exported_run, tmp_path / "run")


def export_of(run_dir: Path):
    return find_export(run_dir / "models" / "model.pt", alpha=0.1)


def test_the_answers_are_those_of_pytorch_whatever_the_format(exported_run, tmp_path):
    values = np.random.default_rng(0).integers(-900, 900, (41, 50)).astype(float)
    np.save(tmp_path / "a.npy", values.astype(np.float32))
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.diag([2.0, 1, 1, 1])), tmp_path / "a.nii.gz")
    (tmp_path / "bad.png").write_bytes(b"cut")
    images = [
        picture(tmp_path / "a.png", 3), picture(tmp_path / "b.png", 9, size=(70, 20)),
        write_ct(tmp_path / "a.dcm", values), write_ct(tmp_path / "b.dcm", values, Modality="MR"),
        tmp_path / "a.npy", tmp_path / "a.nii.gz", tmp_path / "bad.png", tmp_path / "missing.png",
        picture(tmp_path / "colour.png", 3, mode="RGB"), values, np.full((8, 8), np.nan),
    ]  # fmt: skip
    model = exported_run / "models" / "model.pt"
    one, other = load_predictor(exported_run), TorchPredictor(model)
    assert isinstance(one, OnnxPredictor) and one.runtime != other.runtime
    answers, wanted = one(images, on_bad_file="skip"), other(images, on_bad_file="skip")
    assert [bool(found.problem) for found in answers] == [False] * 3 + [True] + [False] * 2 + [True] * 3 + [False, True]
    for found, expected in zip(answers, wanted, strict=True):
        same = ("image", "label", "problem", "prediction_set")
        assert [getattr(found, name) for name in same] == [getattr(expected, name) for name in same]
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        assert found.uncertainty == pytest.approx(expected.uncertainty, abs=1e-4)
        assert found.disagreement == pytest.approx(expected.disagreement, abs=1e-4)
    assert answers[0].prediction_set is not None and answers[0].disagreement > 0.001


def test_what_the_model_refuses_is_accepted_on_demand_by_both(exported_run, tmp_path):
    image = write_ct(tmp_path / "a.dcm", np.arange(900.0).reshape(30, 30), Modality="MR")
    found = predict(image, model=exported_run, unexpected_input="accept")
    wanted = TorchPredictor(exported_run / "models" / "model.pt", unexpected_input="accept")([image])[0]
    assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)


def test_one_image_is_answered_without_pytorch_and_monai(exported_run):
    image = str(exported_run / "pictures" / "3.png")
    words = ["predict", image, "--model", str(exported_run), "--verbose"]
    code = (
        f"import sys; from dual_skd.cli import main; assert main({words!r}) == 0; "
        "print([name for name in ('torch', 'monai', 'timm', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    env = os.environ | {"PYTHONPATH": str(Path(dual_skd.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    line, imported = done.stdout.splitlines()
    assert line.endswith("by ONNX Runtime)") and imported == "[]"


def test_what_an_export_does_not_give_is_answered_by_pytorch(run_dir):
    assert isinstance(load_predictor(run_dir), OnnxPredictor)
    assert isinstance(load_predictor(run_dir, alpha=0.2), TorchPredictor)
    assert isinstance(load_predictor(run_dir, calibrate=False), TorchPredictor)
    assert isinstance(load_predictor(run_dir / "models" / "model.safetensors"), TorchPredictor)
    assert isinstance(load_predictor(run_dir, device="auto"), TorchPredictor)


@pytest.mark.parametrize(
    "changed", ["models/model.pt", "models/auxiliary.pt", "export/model.onnx", "export/auxiliary.onnx"]
)
def test_an_export_of_another_model_or_a_changed_file_is_not_used(run_dir, changed):
    assert export_of(run_dir)
    load_predictor(run_dir)
    with (run_dir / changed).open("ab") as file:
        file.write(b"\0")
    assert export_of(run_dir) is None
    (run_dir / changed).unlink()
    gone = changed == "models/auxiliary.pt"  # a student alone is answered for by its own file
    assert bool(export_of(run_dir)) == gone and (not gone or len(export_of(run_dir).networks) == 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("prediction_sets"),  # as exports of before are
        lambda about: about["artefacts"][0].update(status="refused"),
        lambda about: about.update(artefacts=[]),
        lambda about: about.update(auxiliary=None),
        lambda about: about["preprocessing"].update(steps=preprocessing_steps({"spatial_dims": 3, "spacing": 1.0})),
    ],
)
def test_an_export_that_lacks_something_is_not_used(run_dir, change):
    path = run_dir / "export" / "export.json"
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))
    assert export_of(run_dir) is None


def test_without_onnxruntime_or_an_export_nothing_is_used(run_dir, monkeypatch):
    monkeypatch.setattr(onnx_predictor, "find_spec", lambda name: None)
    assert export_of(run_dir) is None
    monkeypatch.undo()
    shutil.rmtree(run_dir / "export")
    assert export_of(run_dir) is None


def test_a_new_export_is_taken_by_a_process_that_goes_on(run_dir):
    shutil.move(run_dir / "export", run_dir / "later")
    assert isinstance(load_predictor(run_dir), TorchPredictor)
    shutil.move(run_dir / "later", run_dir / "export")
    assert isinstance(load_predictor(run_dir), OnnxPredictor)


def test_a_damaged_onnx_file_is_refused_by_name_or_works(run_dir):
    about = sidecar_of(run_dir / "models" / "model.pt")
    content, file = json.loads(about.read_text()), about.with_name("model.onnx")
    whole, random = file.read_bytes(), np.random.default_rng(27)
    image = picture(run_dir / "other.png", 3)
    outcomes = {"works": 0, "refused": 0}
    for number in range(20):
        changed = bytearray(whole)
        for place in random.integers(0, len(whole), 4):
            changed[place] = random.integers(0, 256)
        file.write_bytes(changed if number % 4 else changed[: random.integers(0, len(whole))])
        row = next(row for row in content["artefacts"] if row["format"] == "onnx")
        row["files"][0]["sha256"] = sha256_of(file)  # as a stranger would
        about.write_text(json.dumps(content))
        try:
            found = predict(image, model=run_dir)
        except InputError as error:
            outcomes["refused"] += "model.onnx" in str(error)
        else:
            outcomes["works"] += found.probabilities.keys() == set(NAMES)
    assert all(outcomes.values()) and sum(outcomes.values()) == 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda about: about["preprocessing"].update(image_size=10**6), "1000000 x 1000000"),
        (lambda about: about.update(temperature=1e308), "temperature"),
        (lambda about: about.update(class_names=["a", "b" * 10**6]), "class_names.1"),
        (lambda about: about.update(artefacts="none"), "isn't what an export writes"),
        (lambda about: about.update(preprocessing=[]), "isn't what an export writes"),
    ],
)
def test_a_strangers_description_of_an_export_is_refused_by_name(run_dir, change, said):
    path = sidecar_of(run_dir / "models" / "model.pt")
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))
    with pytest.raises(InputError, match="export.json") as caught:
        export_of(run_dir)
    assert said in str(caught.value) and len(str(caught.value)) < 1000
