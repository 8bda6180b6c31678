# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from dicom_files import write_ct, write_dicom
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage

from dual_skd.data.reading.preprocessing import image_transforms
from dual_skd.errors import input_error_behind


def refused(transforms, path) -> str:
    with pytest.raises(Exception) as caught:
        transforms({"image": str(path)})
    return str(input_error_behind(caught.value))


def test_a_ct_slice_comes_out_upright_and_windowed(tmp_path):
    hounsfield = np.full((8, 6), -1000.0)
    hounsfield[:2], hounsfield[:, 5] = 0.0, 400.0  # water on top, bone to the right
    path = write_ct(tmp_path / "a.dcm", hounsfield)
    image = image_transforms(2, (8, 6), [0, 2000], with_label=True)({"image": str(path), "label": 1, "patient": "p"})
    assert image.keys() == {"image", "label"} and image["label"] == 1
    assert type(image["image"]) is torch.Tensor and image["image"].dtype == torch.float32
    assert torch.allclose(image["image"][0], torch.tensor(hounsfield / 1000).float(), atol=1e-5)


@pytest.mark.parametrize("window", [[3200, 600], "percentile", "zscore", "file"])
def test_an_inverted_image_is_the_negative_of_the_other_whatever_scales_it(tmp_path, window):
    tags = {"Modality": "DX", "BitsStored": 12, "HighBit": 11, "WindowCenter": 3200, "WindowWidth": 600}
    stored = np.array([[500, 3000], [3400, 4095]], np.uint16)
    chain, found = image_transforms(2, 2, window), []
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        path = write_dicom(tmp_path / photometric, stored, PhotometricInterpretation=photometric, **tags)
        found.append(chain({"image": str(path)})["image"][0])
    assert torch.allclose(found[0], -found[1], atol=1e-4)
    if window == [3200, 600]:
        assert torch.allclose(found[1], torch.tensor([[1, 2 / 3], [-2 / 3, -1]]), atol=1e-4)


def test_ct_in_hounsfield_units_is_never_inverted(tmp_path):
    hounsfield = np.array([[-1000.0, 40.0], [80.0, 1500.0]])
    for tags in ({}, {"SOPClassUID": SecondaryCaptureImageStorage}):
        path = write_ct(tmp_path / "a.dcm", hounsfield, PhotometricInterpretation="MONOCHROME1", **tags)
        image = image_transforms(2, 2, [40, 80])({"image": str(path)})["image"][0]
        assert image.tolist() == [[-1, 0], [1, 1]]


def test_colour_and_alpha_are_the_same_picture(tmp_path):
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 24), dtype=np.uint8))
    grey.save(tmp_path / "grey.png")
    grey.convert("RGB").save(tmp_path / "rgb.png")
    grey.convert("RGBA").save(tmp_path / "rgba.png")
    grey.convert("LA").save(tmp_path / "la.png")
    first, *others = (
        image_transforms(2, 16)({"image": str(tmp_path / name)})["image"]
        for name in ("grey.png", "rgb.png", "rgba.png", "la.png")
    )
    assert all(torch.allclose(first, other, atol=1e-5) for other in others)


def test_pixels_of_a_slice_are_resampled_to_the_spacing_and_cropped_or_padded(tmp_path):
    rows, columns = np.mgrid[:40, :20]
    path = write_ct(tmp_path / "a.dcm", rows * 0.5 * 10 + columns * 1.5 * 10)  # 10 HU per mm both ways
    image = image_transforms(2, (16, 12), [0, 2000], 1.0)({"image": str(path)})["image"][0] * 1000
    assert image.shape == (16, 12)
    assert torch.allclose(image.diff(dim=0), torch.tensor(10.0), atol=1e-2)
    assert torch.allclose(image.diff(dim=1), torch.tensor(10.0), atol=1e-2)
    padded = image_transforms(2, (40, 40), [0, 2000], 1.0)({"image": str(path)})["image"][0]
    assert (padded[:9] == -1).all() and (padded[-9:] == -1).all() and (padded[12:28, 8:32] > -1).all()


def test_the_spacing_of_a_slice_runs_as_its_size_does_rows_first(tmp_path):
    path = write_ct(tmp_path / "a.dcm", np.full((100, 200), 500.0), PixelSpacing=[1.0, 1.0])
    image = image_transforms(2, (100, 200), [0, 2000], [2.0, 1.0])({"image": str(path)})["image"][0]
    inside = image > -1
    assert (inside.any(1).sum(), inside.any(0).sum()) == (50, 200)


def test_the_plane_of_a_slice_does_not_change_its_resampling(tmp_path):
    rows, columns = np.mgrid[:40, :20]
    hounsfield = rows * 5.0 + columns * 15.0
    plain = write_ct(tmp_path / "a.dcm", hounsfield)
    sagittal = write_ct(
        tmp_path / "b.dcm",
        hounsfield,
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        ImagePositionPatient=[10, -20, 30],
    )
    chain = image_transforms(2, (16, 12), [0, 2000], 1.0)
    first, second = (chain({"image": str(path)})["image"] for path in (plain, sagittal))
    assert torch.allclose(first, second, atol=1e-5)


def test_a_volume_is_turned_to_ras_resampled_and_padded(tmp_path):
    x = np.arange(10.0)
    volume = np.broadcast_to((x * 2 * 10)[:, None, None], (10, 8, 6))[::-1]  # stored right to left, 10 per mm
    affine = np.diag([-2.0, 3.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), affine), tmp_path / "a.nii.gz")
    image = image_transforms(3, (8, 20, 20), [0, 2000], (1, 1, 2))({"image": str(tmp_path / "a.nii.gz")})["image"][0]
    assert image.shape == (8, 20, 20)
    assert torch.allclose(image[:, 8:12, 8:11].diff(dim=0) * 1000, torch.tensor(10.0), atol=1e-2)
    resized = image_transforms(3, 8, [0, 2000])({"image": str(tmp_path / "a.nii.gz")})["image"]
    assert resized.shape == (1, 8, 8, 8) and resized[0, 0, 0, 0] < resized[0, -1, 0, 0]


def test_a_file_without_spacing_can_not_be_resampled_to_one(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    message = refused(image_transforms(2, 8, spacing=1.0), tmp_path / "a.png")
    assert "a.png has no pixel spacing" in message and "--spacing" in message


def test_values_that_are_not_finite_are_refused_by_name(tmp_path):
    values = np.ones((8, 8), np.float32)
    values[3, 3] = np.nan
    np.save(tmp_path / "a.npy", values)
    assert "a.npy has values that are NaN" in refused(image_transforms(2, 8), tmp_path / "a.npy")


def test_the_window_inside_the_file_is_used_when_asked_for(tmp_path):
    hounsfield = np.tile(np.linspace(-1000, 1000, 50), (20, 1))
    path = write_ct(tmp_path / "a.dcm", hounsfield, WindowCenter=0, WindowWidth=200)
    image = image_transforms(2, (20, 50), "file")({"image": str(path)})["image"][0, 0]
    stored = pydicom.dcmread(path).pixel_array[0] - 1024.0
    assert (image[stored < -101] == -1).all() and (image[stored > 101] == 1).all()
    inside = abs(stored) < 99
    assert np.allclose(image.numpy()[inside], stored[inside] / 100, atol=0.02)
    narrow = write_ct(tmp_path / "c.dcm", np.array([[0.0, 50.0]] * 2), WindowCenter=0.5, WindowWidth=201)
    image = image_transforms(2, 2, "file")({"image": str(narrow)})["image"][0]  # a part of the window stays one
    assert image[0].tolist() == pytest.approx([0, 0.5], abs=1e-4)
    without = write_ct(tmp_path / "b.dcm", hounsfield)
    assert "b.dcm" in refused(image_transforms(2, 8, "file"), without)
