# SPDX-License-Identifier: Apache-2.0
"""The steps of a recipe, followed with NumPy as their text says, give what the package's own transforms give."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from dicom_files import write_ct
from PIL import Image
from tiny_run import ARCHITECTURE, PREPROCESSING, picture

from dual_skd.data import image_transforms
from dual_skd.deploy.recipe import recipe, steps


def follow(found, values):
    """Follows the steps after reading; values are (rows, columns[, channels]) or (x, y, z)."""
    for step in found[1:]:
        kind = step["step"]
        if kind == "grey" and values.ndim == 3 and values.shape[-1] == 3:
            values = values @ np.array(step["luma"])
        elif kind == "resample":
            for axis, mm in enumerate(step["spacing"]):
                values = resampled(values, axis, step["given"][axis], mm)
        elif kind in ("scale", "zscore"):
            values = scaled(step, values)
        elif kind == "resize":
            for axis, size in enumerate(step["size"]):
                values = averaged(values, axis, size)
        elif kind == "fit":
            extent = [n * mm for n, mm in zip(values.shape, step.get("given", (1, 1)), strict=False)]
            scales = [size / length for size, length in zip(step["size"], extent, strict=False)]
            scale = {"pad": min, "crop": max}[step["fit"]](scales)
            for axis, size in enumerate([*(round(length * scale) for length in extent), *step["size"][2:]]):
                values = averaged(values, axis, size)
        elif kind == "crop_or_pad":
            for axis, size in enumerate(step["size"]):
                values = cropped(values, axis, size)
    return values


def scaled(step, values):
    if step["step"] == "zscore":
        return (values - values.mean()) / values.std()
    low, high = np.percentile(values, step["percentiles"]) if "percentiles" in step else step["range"]
    return values - low - 1 if high == low else np.clip(2 * (values - low) / (high - low) - 1, -1, 1)


def averaged(values, axis, m):
    n = values.shape[axis]
    edges = [(i * n // m, -((i + 1) * n // -m)) for i in range(m)]
    return np.stack([values.take(range(a, b), axis).mean(axis) for a, b in edges], axis)


def resampled(values, axis, mm, wanted):
    n = values.shape[axis]
    at = np.arange(int(np.round((n - 1) * mm / wanted + 1))) * wanted / mm
    return np.apply_along_axis(lambda line: np.interp(at, np.arange(n), line), axis, values)


def cropped(values, axis, m):
    n = values.shape[axis]
    if n > m:
        return values.take(range(n // 2 - m // 2, n // 2 - m // 2 + m), axis)
    widths = [(0, 0)] * values.ndim
    widths[axis] = ((m - n) // 2, m - n - (m - n) // 2)
    return np.pad(values, widths, constant_values=-1.0)


@pytest.mark.parametrize("window", ["percentile", "zscore", [100.0, 120.0]])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_becomes_the_same_input(tmp_path, window, mode):
    path = picture(tmp_path / "a.png", 3, mode=mode)
    options = PREPROCESSING | {"image_size": [24, 32], "window": window}
    expected = image_transforms(**options)({"image": path})["image"][0].numpy()
    found = follow(steps(options), np.asarray(Image.open(path), np.float64))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_constant_picture_is_minus_one(tmp_path):
    Image.fromarray(np.full((20, 20), 7, np.uint8)).save(tmp_path / "a.png")
    expected = image_transforms(**PREPROCESSING)({"image": str(tmp_path / "a.png")})["image"][0].numpy()
    found = follow(steps(PREPROCESSING), np.full((20, 20), 7.0))
    np.testing.assert_array_equal(found, expected)
    assert expected.max() == -1


def test_an_image_is_resampled_by_rows_and_columns_to_the_same_input(tmp_path):
    values = np.random.default_rng(0).integers(-500, 500, (23, 31)).astype(float)
    path = write_ct(tmp_path / "a.dcm", values)  # rows 0.5 mm apart, columns 1.5 mm
    options = PREPROCESSING | {"image_size": [40, 24], "window": [0.0, 2000.0], "spacing": [0.4, 1.1]}
    expected = image_transforms(**options)({"image": str(path)})["image"][0].numpy()
    found = steps(options)
    next(step for step in found if step["step"] == "resample")["given"] = [0.5, 1.5]
    np.testing.assert_allclose(follow(found, values), expected, atol=2e-5)


def test_a_volume_is_resampled_cropped_and_padded_to_the_same_input(tmp_path):
    values = np.random.default_rng(0).normal(0, 500, (14, 11, 9)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.5, 1.0, 3.0, 1.0])), tmp_path / "a.nii")
    options = {"spatial_dims": 3, "image_size": [12, 16, 10], "window": [0.0, 2000.0], "spacing": [1.2, 1.0, 2.5]}
    expected = image_transforms(**options)({"image": str(tmp_path / "a.nii")})["image"][0].numpy()
    found = steps(options)
    assert [step["step"] for step in found] == ["read", "grey", "orient", "resample", "scale", "crop_or_pad"]
    found[3]["given"] = [1.5, 1.0, 3.0]
    np.testing.assert_allclose(follow(found, values.astype(float)), expected, atol=2e-5)


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("size", [[40, 24], [16, 50]])
def test_an_image_that_keeps_its_shape_becomes_the_same_input(tmp_path, fit, size):
    values = np.random.default_rng(0).integers(-500, 500, (23, 31)).astype(float)
    path = write_ct(tmp_path / "a.dcm", values)  # rows 0.5 mm apart, columns 1.5 mm
    options = PREPROCESSING | {"image_size": size, "window": [0.0, 2000.0], "spacing": None, "fit": fit}
    expected = image_transforms(**options)({"image": str(path)})["image"][0].numpy()
    found = steps(options)
    assert [step["step"] for step in found] == ["read", "grey", "scale", "fit", "crop_or_pad"]
    found[3]["given"] = [0.5, 1.5]
    np.testing.assert_allclose(follow(found, values), expected, atol=2e-5)


def test_a_volume_that_keeps_the_shape_of_its_planes_becomes_the_same_input(tmp_path):
    values = np.random.default_rng(0).normal(0, 500, (14, 11, 9)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.5, 1.0, 3.0, 1.0])), tmp_path / "a.nii")
    options = {"spatial_dims": 3, "image_size": [12, 16, 6], "window": [0.0, 2000.0], "fit": "pad"}
    expected = image_transforms(**options)({"image": str(tmp_path / "a.nii")})["image"][0].numpy()
    found = steps(options)
    found[-2]["given"] = [1.5, 1.0]
    np.testing.assert_allclose(follow(found, values.astype(float)), expected, atol=2e-5)
    assert (expected[:, :5] == -1).all() and (expected > -1).any((0, 1)).all()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_filled_as_the_text_says(tmp_path, photometric):
    values = np.random.default_rng(3).integers(0, 900, (30, 40)).astype(float)
    values[:6] = -1024  # stored as 0
    tags = {"PhotometricInterpretation": photometric, "PixelPaddingValue": 0, "Modality": "DX"}
    path = write_ct(tmp_path / "a.dcm", values, **tags)
    expected = image_transforms(**PREPROCESSING)({"image": str(path)})["image"][0].numpy()
    text = steps(PREPROCESSING)[0]["text"]
    assert "PixelPaddingValue" in text and "lowest value of the other pixels" in text and "MONOCHROME1 the high" in text
    real = values[6:]
    values[:6] = real.max() if photometric == "MONOCHROME1" else real.min()
    if photometric == "MONOCHROME1":
        values = values.max() + values.min() - values
    np.testing.assert_allclose(follow(steps(PREPROCESSING), values), expected, atol=2e-5)
    assert "then the file's own VOI" in steps(PREPROCESSING | {"window": "file"})[0]["text"].split("MONOCHROME1")[1]


def test_input_and_output_are_described():
    info = {
        "architecture": ARCHITECTURE, "class_names": ["a", "b"], "preprocessing": PREPROCESSING, "multi_label": True,
        "calibration": {"temperature": 2.5},
    }  # fmt: skip
    found = recipe(info)
    assert found["input"] == {
        "name": "image", "dtype": "float32", "shape": ["batch", 1, 32, 32],
        "axes": ["batch", "channel", "row", "column"],
    }  # fmt: skip
    assert found["output"]["shape"] == ["batch", 2] and found["activation"] == "sigmoid"
    assert found["temperature"] == 2.5 and "above 0.5" in found["output"]["meaning"]
    single = recipe({**info, "multi_label": False, "calibration": None})
    assert single["activation"] == "softmax" and single["temperature"] == 1.0


def test_the_sidecar_says_which_images_to_refuse():
    expected = {"hounsfield": True, "modalities": ["CT"], "colour": False}
    info = {"architecture": ARCHITECTURE, "class_names": ["a", "b"], "preprocessing": PREPROCESSING}
    found = recipe(info | {"preprocessing": PREPROCESSING | {"expected": expected}})["preprocessing"]["expected"]
    assert "Hounsfield units" in found.pop("text") and found == expected
    assert "expected" not in recipe(info)["preprocessing"]  # of a model of before
