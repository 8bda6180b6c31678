# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from dicom_files import write_ct, write_series
from PIL import Image

import dual_skd
from dual_skd.data import describe, image_transforms, look_at_sample, write_demo
from dual_skd.data.reading.expectation import InputExpectation
from dual_skd.errors import InputError
from dual_skd.runs.model_file import load_model, model_file, save_model
from dual_skd.serving.predictor import load_predictor, predict, predict_iter


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """(H, W), of two sides that differ, so that a turned image isn't the same."""
    return np.random.default_rng(0).integers(0, 255, (40, 24), dtype=np.uint8)


@pytest.fixture
def file(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_probabilities_are_the_networks_on_the_image_prepared_as_in_training(make_model, file):
    path = make_model(temperature=2.0)
    network, info = load_model(path)
    with torch.no_grad():
        logits = network(image_transforms(**info["preprocessing"])({"image": str(file)})["image"][None])[0]
    found = predict(file, model=path)
    assert list(found.probabilities) == ["ill", "well"] and found.image == str(file)
    assert list(found.probabilities.values()) == pytest.approx((logits / 2).softmax(0).tolist(), abs=1e-6)
    assert found.label == max(found.probabilities, key=found.probabilities.get)
    plain = predict(file, model=path, calibrate=False)
    assert list(plain.probabilities.values()) == pytest.approx(logits.softmax(0).tolist(), abs=1e-6)
    assert found.disagreement is None and found.prediction_set is None


def test_an_array_gives_what_its_file_gives(make_model, file, picture):
    path = make_model()
    wanted = predict(file, model=path).probabilities
    for array in (picture, torch.from_numpy(picture), np.stack([picture] * 3, axis=-1)):
        assert predict(array, model=path).probabilities == pytest.approx(wanted, abs=1e-5)
    assert predict(picture[::-1].copy(), model=path).probabilities != pytest.approx(wanted, abs=1e-3)


def test_slices_of_a_series_stacked_in_an_array_give_what_the_folder_gives(make_model, tmp_path):
    path = make_model(spatial_dims=3, image_size=[16, 12, 8], spacing=[2.0, 2.0, 4.0], window=[100.0, 400.0])
    rng = np.random.default_rng(1)
    stored = rng.integers(0, 400, (6, 20, 14)).astype(np.int16)  # slices, rows, columns
    tags = {"RescaleSlope": "1", "RescaleIntercept": "-100", "Modality": "CT"}
    folder = write_series(tmp_path / "series", stored, spacing=(1.5, 2.5), step=(0, 0, 3.0), **tags)
    slices = sorted((pydicom.dcmread(one) for one in folder.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    array = np.stack([one.pixel_array * one.RescaleSlope + one.RescaleIntercept for one in slices], axis=-1)
    wanted = predict(folder, model=path).probabilities
    found = predict(array, model=path, spacing=(1.5, 2.5, 3.0), hu=True).probabilities
    assert found == pytest.approx(wanted, abs=1e-5)
    assert predict(array[:, ::-1], model=path, spacing=(1.5, 2.5, 3.0), hu=True).probabilities != pytest.approx(
        wanted, abs=1e-4
    )


def test_nifti_files_are_read(make_model, tmp_path):
    path = make_model(spatial_dims=3)
    volume = np.random.default_rng(2).normal(size=(10, 12, 8)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([2.0, 2, 3, 1])), tmp_path / "a.nii.gz")
    # NIfTI's x, y, z to the right, front and top are columns from the right, rows from the back
    shown = volume.transpose(1, 0, 2)[::-1, ::-1]
    wanted = predict(tmp_path / "a.nii.gz", model=path).probabilities
    assert predict(shown.copy(), model=path).probabilities == pytest.approx(wanted, abs=1e-5)


def test_an_array_without_its_unit_or_spacing_is_refused_where_the_model_needs_them(make_model, picture):
    with pytest.raises(InputError, match="give hu=True"):
        predict(picture, model=make_model(window=[40.0, 400.0]))
    with pytest.raises(InputError, match="has no pixel spacing"):
        predict(picture, model=make_model(spacing=[1.0, 1.0]))
    path = make_model()
    with pytest.raises(InputError, match="Expected an array of 2 axes"):
        predict(np.zeros((8, 8, 8)), model=path)
    with pytest.raises(InputError, match="must be positive"):
        predict(picture, model=path, spacing=0)
    with pytest.raises(InputError, match="NaN or infinite"):
        predict(np.full((8, 8), np.nan), model=path)


def test_a_list_gives_a_list_in_order_and_the_iterator_reads_no_further_than_a_batch(make_model, file, picture):
    path = make_model()
    images = [file, picture, picture.T.copy()]
    one_by_one = [predict(image, model=path) for image in images]
    together = predict(images, model=path)
    assert [found.image for found in together] == [str(file), "array", "array"]
    for found, wanted in zip(together, one_by_one, strict=True):
        assert found.probabilities == pytest.approx(wanted.probabilities, abs=1e-5)
    taken = []
    answers = predict_iter((taken.append(n) or picture for n in range(9)), model=path, batch_size=3)
    assert not taken
    next(answers)
    assert taken == [0, 1, 2]
    assert len(list(answers)) == 8 and taken[-1] == 8
    assert predict([], model=path) == []


def test_a_bad_file_is_an_error_or_a_prediction_with_a_problem(make_model, file, tmp_path):
    path = make_model()
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="bad.png can't be read"):
        predict([file, tmp_path / "bad.png"], model=path)
    good, bad = predict([file, tmp_path / "bad.png"], model=path, on_bad_file="skip")
    assert good.problem == "" and good.label
    assert "bad.png can't be read" in bad.problem and bad.probabilities == {} and bad.uncertainty is None
    with pytest.raises(InputError, match="on_bad_file is 'never'"):
        predict(file, model=path, on_bad_file="never")


def test_the_auxiliary_beside_the_model_tells_the_disagreement(make_model, file):
    path = make_model()
    assert predict(file, model=path).disagreement is None
    other = make_model(seed=1)
    load_predictor(path)
    network, info = load_model(other)
    save_model(path.parent, network, name="auxiliary", safetensors=False, **info)
    os.utime(path)  # a new run writes both
    found = predict(file, model=path).disagreement
    p, q = (np.array(list(predict(file, model=one).probabilities.values())) for one in (path, other))
    middle = (p + q) / 2
    assert found == pytest.approx(sum((v * np.log2(v / middle)).sum() / 2 for v in (p, q)), abs=1e-5)


def test_a_model_is_loaded_once_until_its_file_changes(make_model, file):
    path = make_model()
    first = load_predictor(path)
    assert load_predictor(path.parent) is first and load_predictor(str(path)) is first
    assert load_predictor(path.with_suffix(".safetensors")) is not first
    before = predict(file, model=path)
    assert predict(file, model=path.with_suffix(".safetensors")).probabilities == before.probabilities
    make_model(seed=3, directory=path.parent)
    os.utime(path, (1, 1))
    assert load_predictor(path) is not first
    assert predict(file, model=path).probabilities != before.probabilities


def test_without_a_model_the_sentence_says_what_to_give(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="No weights file"):
        predict(np.zeros((8, 8)), model=tmp_path / "nowhere")
    monkeypatch.setattr("dual_skd.serving.predictor.bundle_root", lambda: str(tmp_path))
    with pytest.raises(InputError, match="give model: output_dir"):
        predict(np.zeros((8, 8)))


def test_the_packages_own_names_are_the_functions_and_importing_it_stays_light():
    assert dual_skd.predict is predict and dual_skd.predict_iter is predict_iter
    code = "import sys, dual_skd; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_bundles_own_model_answers_for_the_demos_images_and_for_others_by_name_only(tmp_path):
    demo = write_demo(tmp_path / "demo", seed=2, counts={"test": 3})  # plain findings
    images = sorted((demo / "images").iterdir())
    found = predict(images)
    assert [one.label for one in found] == ["interstitial", "normal", "nodule"]
    patient = shutil.copy(images[0], tmp_path / "patient.dcm")
    for others in (patient, [images[1], patient], np.zeros((64, 64))):
        with pytest.raises(InputError, match="Give model: .*knows no patients.*--model demo"):
            predict(others, on_bad_file="skip")
    assert predict(patient, model="demo").probabilities == pytest.approx(found[0].probabilities, abs=1e-6)
    assert model_file(dual_skd.runs.model_file.bundle_root()).name == "model.pt"


def test_an_image_of_another_kind_than_training_had_is_refused_unless_it_is_accepted(make_model, tmp_path, picture):
    write_ct(tmp_path / "ct.dcm", 8.0 * picture - 1000)
    Image.fromarray(picture).save(tmp_path / "ct.png")
    expected = describe(look_at_sample([{"image": tmp_path / "ct.dcm"}])).as_dict()
    path = make_model(window=[-600.0, 1500.0], expected=expected)
    with pytest.raises(InputError, match="ct.png isn't what was trained on: its values aren't Hounsfield units"):
        predict(tmp_path / "ct.png", model=path)
    images = [tmp_path / "ct.dcm", tmp_path / "ct.png"]
    for model in (path, path.with_suffix(".safetensors")):
        good, bad = predict(images, model=model, on_bad_file="skip")
        assert good.label and not good.problem and bad.problem and not bad.probabilities
    old = make_model(window=[-600.0, 1500.0])  # the same network, of a file without an expectation
    accepted, wanted = predict(images, model=path, unexpected_input="accept"), predict(images, model=old)
    assert [one.probabilities for one in accepted] == [one.probabilities for one in wanted]
    assert predict(8.0 * picture - 1000, model=path, hu=True).label  # an array states no format and no modality


def test_arrays_are_compared_by_what_they_tell(make_model, picture):
    grey = InputExpectation(images=24, colour=False, sizes=(30, 40), modalities=("MR",), formats=("DICOM",))
    path = make_model(expected=grey.as_dict())
    assert predict(picture, model=path).label
    photograph = np.stack([picture, picture // 3, picture // 5], axis=-1)
    with pytest.raises(InputError, match="the given array isn't what was trained on: it is in colour"):
        predict(photograph, model=path)


def test_a_folder_is_the_images_in_it(make_model, file, tmp_path):
    path = make_model()
    (tmp_path / "deeper").mkdir()
    shutil.copy(file, tmp_path / "deeper" / "other.png")
    found = predict(tmp_path, model=path)
    assert [one.image for one in found] == [str(tmp_path / "deeper" / "other.png"), str(file)]
    alone = pytest.approx(predict(file, model=path).probabilities, abs=1e-6)  # of a batch of one
    assert [one.probabilities for one in found] == [alone] * 2
