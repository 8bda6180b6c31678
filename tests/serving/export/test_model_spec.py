# SPDX-License-Identifier: Apache-2.0
"""The steps of preprocessing, computed with NumPy as their text says, give what the package's own transforms give."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from dicom_files import write_ct
from PIL import Image
from tiny_run import ARCHITECTURE, PREPROCESSING, picture

from dual_skd.data import image_transforms, read_image
from dual_skd.errors import InputError, input_error_behind
from dual_skd.serving.export.model_spec import model_spec, preprocessing_steps
from dual_skd.serving.export.numpy_preprocessing import can_preprocess, preprocess


def check(path, options, **tolerance):
    """Asserts that the steps give what the transforms give, of a file."""
    expected = image_transforms(**options)({"image": str(path)})["image"].numpy()
    array, meta = read_image(path, spatial_dims=options["spatial_dims"], voi_lut=options["window"] == "file")
    found = preprocess(preprocessing_steps(options), array, meta)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, **{"rtol": 0, "atol": 2e-5} | tolerance)
    return expected


def names(options):
    return [step["step"] for step in preprocessing_steps(options)]


@pytest.mark.parametrize("window", ["percentile", "zscore", "file", [100.0, 120.0]])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_becomes_the_same_input(tmp_path, window, mode):
    path = picture(tmp_path / "a.png", 3, mode=mode)
    check(path, PREPROCESSING | {"image_size": [24, 32], "window": window})


@pytest.mark.parametrize("window", ["percentile", "zscore", "file", [100.0, 120.0]])
def test_a_constant_picture_and_one_where_little_stands_out_become_the_same(tmp_path, window):
    values = np.full((40, 40), 7, np.uint8)
    for name, mark in (("even", 7), ("marked", 90)):
        values[:2, :2] = mark
        Image.fromarray(values).save(tmp_path / f"{name}.png")
        expected = check(tmp_path / f"{name}.png", PREPROCESSING | {"window": window})
    assert window == "zscore" or len(np.unique(expected)) > 1 or expected.max() == -1


def test_an_image_is_resampled_by_rows_and_columns_to_the_same_input(tmp_path):
    values = np.random.default_rng(0).integers(-500, 500, (23, 31)).astype(float)
    path = write_ct(tmp_path / "a.dcm", values)  # rows 0.5 mm apart, columns 1.5 mm
    check(path, PREPROCESSING | {"image_size": [40, 24], "window": [0.0, 2000.0], "spacing": [0.4, 1.1]})


@pytest.mark.parametrize(
    "axes",  # columns: where the volume's own axes lead, in mm
    [
        [[1.5, 0, 0], [0, 1, 0], [0, 0, 3]],
        [[-1.5, 0, 0], [0, 1, 0], [0, 0, -3]],
        [[0, 0, 3], [-1.5, 0, 0], [0, 1, 0]],
        [[1.4, 0.3, 0], [-0.5, 0.9, 0], [0.2, 0, 3]],
    ],
)
def test_a_volume_is_turned_and_becomes_the_same_input(tmp_path, axes):
    values = np.random.default_rng(0).normal(0, 500, (14, 11, 9)).astype(np.float32)
    turned = np.eye(4)
    turned[:3, :3] = axes
    nibabel.save(nibabel.Nifti1Image(values, turned), tmp_path / "a.nii")
    options = {"spatial_dims": 3, "image_size": [12, 16, 10], "window": [0.0, 2000.0]}
    assert names(options) == ["read", "grey", "orient", "scale", "resize"]
    check(tmp_path / "a.nii", options)
    check(tmp_path / "a.nii", options | {"fit": "crop"})


def test_a_volume_is_resampled_cropped_and_padded_to_the_same_input(tmp_path):
    values = np.random.default_rng(0).normal(0, 500, (14, 11, 9)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.5, 1.0, 3.0, 1.0])), tmp_path / "a.nii")
    options = {"spatial_dims": 3, "image_size": [12, 16, 10], "window": [0.0, 2000.0], "spacing": [1.2, 1.0, 2.5]}
    assert names(options) == ["read", "grey", "orient", "resample", "scale", "crop_or_pad"]
    check(tmp_path / "a.nii", options)
    assert not can_preprocess(preprocessing_steps(options)), "of slanted volumes the text says too little"
    assert can_preprocess(preprocessing_steps(options | {"spacing": None})) and can_preprocess(
        preprocessing_steps(PREPROCESSING | {"spacing": [1, 1]})
    )


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("size", [[40, 24], [16, 50]])
def test_an_image_that_keeps_its_shape_becomes_the_same_input(tmp_path, fit, size):
    values = np.random.default_rng(0).integers(-500, 500, (23, 31)).astype(float)
    path = write_ct(tmp_path / "a.dcm", values)  # rows 0.5 mm apart, columns 1.5 mm
    options = PREPROCESSING | {"image_size": size, "window": [0.0, 2000.0], "spacing": None, "fit": fit}
    assert names(options) == ["read", "grey", "scale", "fit", "crop_or_pad"]
    check(path, options)


def test_a_volume_that_keeps_the_shape_of_its_planes_becomes_the_same_input(tmp_path):
    values = np.random.default_rng(0).normal(0, 500, (14, 11, 9)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.5, 1.0, 3.0, 1.0])), tmp_path / "a.nii")
    options = {"spatial_dims": 3, "image_size": [12, 16, 6], "window": [0.0, 2000.0], "fit": "pad"}
    expected = check(tmp_path / "a.nii", options)[0]
    assert (expected[:, :5] == -1).all() and (expected > -1).any((0, 1)).all()


@pytest.mark.parametrize("window", ["percentile", "file", [100.0, 900.0]])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_filled_and_an_inverted_image_mirrored_to_the_same_input(tmp_path, photometric, window):
    values = np.random.default_rng(3).integers(0, 900, (30, 40)).astype(float)
    values[:6] = -1024  # stored as 0
    tags = {
        "PhotometricInterpretation": photometric, "PixelPaddingValue": 0, "Modality": "DX", "WindowCenter": "400",
        "WindowWidth": "500",
    }  # fmt: skip
    check(write_ct(tmp_path / "a.dcm", values, **tags), PREPROCESSING | {"window": window})
    text = preprocessing_steps(PREPROCESSING)[0]["text"]
    assert "PixelPaddingValue" in text and "lowest value of the other pixels" in text and "MONOCHROME1 the high" in text
    assert (
        "then the file's own VOI"
        in preprocessing_steps(PREPROCESSING | {"window": "file"})[0]["text"].split("MONOCHROME1")[1]
    )


def test_an_image_that_no_network_takes_is_refused_in_the_same_words(tmp_path):
    np.save(tmp_path / "a.npy", np.full((8, 8), np.nan))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    for name, options in (("a.npy", PREPROCESSING), ("a.png", PREPROCESSING | {"spacing": [1.0, 1.0]})):
        with pytest.raises(InputError) as found:
            preprocess(preprocessing_steps(options), *read_image(tmp_path / name, spatial_dims=2))
        with pytest.raises(Exception) as expected:
            image_transforms(**options)({"image": str(tmp_path / name)})
        assert str(found.value) == str(input_error_behind(expected.value))


def test_input_and_output_are_described():
    info = {
        "architecture": ARCHITECTURE, "class_names": ["a", "b"], "preprocessing": PREPROCESSING, "multi_label": True,
        "calibration": {"temperature": 2.5},
    }  # fmt: skip
    found = model_spec(info)
    assert found["input"] == {
        "name": "image", "dtype": "float32", "shape": ["batch", 1, 32, 32],
        "axes": ["batch", "channel", "row", "column"],
    }  # fmt: skip
    assert found["output"]["shape"] == ["batch", 2] and found["activation"] == "sigmoid"
    assert found["temperature"] == 2.5 and "above 0.5" in found["output"]["meaning"]
    single = model_spec({**info, "multi_label": False, "calibration": None})
    assert single["activation"] == "softmax" and single["temperature"] == 1.0


def test_the_sidecar_says_which_images_to_refuse():
    expected = {"hounsfield": True, "modalities": ["CT"], "colour": False}
    info = {"architecture": ARCHITECTURE, "class_names": ["a", "b"], "preprocessing": PREPROCESSING}
    found = model_spec(info | {"preprocessing": PREPROCESSING | {"expected": expected}})["preprocessing"]["expected"]
    assert "Hounsfield units" in found.pop("text") and found == expected
    assert "expected" not in model_spec(info)["preprocessing"]  # of a model of before
