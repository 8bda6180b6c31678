# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from dicom_files import write_ct, write_dicom, write_series
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from pydicom.uid import SecondaryCaptureImageStorage

from dual_skd.data.reading.preprocessing import FITS, image_transforms
from dual_skd.errors import InputError, input_error_behind


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


def test_values_so_large_that_their_mean_is_infinite_are_refused_by_name(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[3e38, 3.1e38], [3.2e38, 3e38]], np.float32))
    message = refused(image_transforms(2, 2, "zscore"), tmp_path / "a.npy")
    assert str(tmp_path / "a.npy") in message and "NaN or infinite after the window" in message


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


def disc(rows: int, columns: int, *, tall: float = 1.0, radius: float = 39.5) -> np.ndarray:
    """A bright disc in the middle of a dark picture, round where pixels are ``tall`` times as high as wide."""
    y, x = np.mgrid[:rows, :columns]
    distance = np.hypot((y - (rows - 1) / 2) * tall, x - (columns - 1) / 2)
    return (20 + 200 * np.clip((radius - distance) / tall + 0.5, 0, 1)).astype(np.uint8)


def sides(image: torch.Tensor) -> tuple[float, float]:
    """Height and width of the bright part in pixels, along the lines through the middle; half bright counts half."""
    bright, (rows, columns) = (image + 1) / 2, (size // 2 for size in image.shape)
    return bright[:, columns - 1 : columns + 1].sum().item() / 2, bright[rows - 1 : rows + 1].sum().item() / 2


def test_a_disc_is_squeezed_by_stretching_and_stays_round_by_padding_and_cropping(tmp_path):
    Image.fromarray(disc(100, 300)).save(tmp_path / "a.png")
    found = {fit: image_transforms(fit=fit)({"image": str(tmp_path / "a.png")})["image"][0] for fit in FITS}
    assert all(image.shape == (96, 96) for image in found.values())
    rows, columns = sides(found["stretch"])
    assert (rows, columns) == (pytest.approx(79 * 96 / 100, abs=1), pytest.approx(79 * 96 / 300, abs=1))
    for fit, scale in (("pad", 96 / 300), ("crop", 96 / 100)):
        rows, columns = sides(found[fit])
        assert abs(rows - columns) < 1 and rows == pytest.approx(79 * scale, abs=1)
        assert all(torch.allclose(found[fit], found[fit].flip(axis), atol=1e-5) for axis in (0, 1))  # centred
    assert (found["pad"][:32] == -1).all() and (found["pad"][64:] == -1).all()


def test_cropping_keeps_the_middle_and_padding_everything(tmp_path):
    values = np.zeros((30, 90), np.uint8)
    values[:, :30], values[:, 30:60], values[:, 60:] = 50, np.arange(30)[None] * 5 + 80, 250
    Image.fromarray(values).save(tmp_path / "a.png")
    cropped, padded = (
        image_transforms(image_size=30, window=[127.5, 255], fit=fit)({"image": str(tmp_path / "a.png")})["image"][0]
        for fit in ("crop", "pad")
    )
    assert torch.allclose(cropped, torch.from_numpy(values[:, 30:60].copy()).float() / 127.5 - 1, atol=1e-6)
    blocks = values.reshape(10, 3, 30, 3).mean((1, 3))
    assert torch.allclose(padded[10:20], torch.from_numpy(blocks).float() / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("size", [16, (24, 40)])
def test_models_from_before_the_choice_and_stretching_resize_each_axis(tmp_path, size):
    values = np.random.default_rng(0).integers(0, 256, (50, 33), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    old, new = (image_transforms(2, size, **more)({"image": str(tmp_path / "a.png")})["image"] for more in
                ({}, {"fit": "stretch"}))  # fmt: skip
    low, high = np.percentile(values, [0.5, 99.5])
    scaled = torch.from_numpy(values).float().sub(low).mul(2 / (high - low)).sub(1).clamp(-1, 1)
    wanted = torch.nn.functional.interpolate(scaled[None, None], new.shape[1:], mode="area")[0]
    assert torch.equal(old, new) and torch.allclose(new, wanted, atol=1e-5)


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("size", [8, 24, 57])  # smaller and larger than the image
def test_a_square_image_is_the_same_whatever_fits_it(tmp_path, fit, size):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24), dtype=np.uint8)).save(tmp_path / "a.png")
    plain, kept = (image_transforms(2, size, fit=one)({"image": str(tmp_path / "a.png")})["image"]
                   for one in ("stretch", fit))  # fmt: skip
    assert torch.equal(plain, kept)


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize(
    "tags", [{"PixelSpacing": [2, 1]}, {"ImagerPixelSpacing": [0.4, 0.2]}, {"PixelAspectRatio": ["2", "1"]}], ids=str
)
def test_a_disc_is_round_in_mm_where_pixels_are_taller_than_wide(tmp_path, fit, tags):
    path = write_dicom(tmp_path / "a.dcm", disc(75, 300, tall=2), **tags)
    rows, columns = sides(image_transforms(fit=fit)({"image": str(path)})["image"][0])
    assert abs(rows - columns) < 1 and rows == pytest.approx(79 * 96 / (300 if fit == "pad" else 150), abs=1)


@pytest.mark.parametrize("turn", [1, 6])  # as it is, or to be turned by 90 degrees
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_a_picture_whose_density_says_that_pixels_are_taller_than_wide_keeps_its_shape(tmp_path, suffix, turn):
    picture = Image.fromarray(disc(75, 300, tall=2))
    exif = picture.getexif()
    exif[0x0112] = turn
    more = {} if suffix == ".bmp" else {"exif": exif}
    picture.save(tmp_path / f"a{suffix}", dpi=(200, 100), **more)
    image = image_transforms(fit="pad")({"image": str(tmp_path / f"a{suffix}")})["image"][0]
    rows, columns = sides(image)
    assert abs(rows - columns) < 1 and rows == pytest.approx(79 * 96 / 300, abs=1)
    margin = image[:20] if turn == 1 or suffix == ".bmp" else image[:, :20]
    assert (margin == -1).all()


@pytest.mark.parametrize(
    "tags",
    [
        {282: (5, 0.0), 283: (5, 72.0)}, {282: (5, 300.0)}, {282: (2, "x"), 283: (5, 72.0)}, {282: (7, b"x")},
        {282: (5, 300.0), 283: (5, 1.0)},
    ],
)  # fmt: skip  # of TIFF: (type, value); 282 is across, 283 down
def test_a_density_without_meaning_counts_for_nothing(tmp_path, tags):
    directory = ImageFileDirectory_v2()
    for tag, (kind, value) in tags.items():
        directory.tagtype[tag], directory[tag] = kind, value
    Image.fromarray(disc(100, 300)).save(tmp_path / "a.tif", tiffinfo=directory)
    rows, columns = sides(image_transforms(fit="pad")({"image": str(tmp_path / "a.tif")})["image"][0])
    assert abs(rows - columns) < 1


def test_a_slice_of_a_volume_keeps_its_shape_in_mm(tmp_path):
    volume = np.repeat(disc(75, 300, tall=2).T[:, :, None], 3, axis=2)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 2.0, 5.0, 1.0])), tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti1Image(volume[:, None, :, 0], np.diag([1.0, 5.0, 2.0, 1.0])), tmp_path / "b.nii")
    series = write_series(tmp_path / "series", volume.transpose(2, 1, 0), spacing=(2.0, 1.0), Modality="MR")
    for path, frame in ((tmp_path / "a.nii", "middle"), (tmp_path / "b.nii", None), (series, 1)):
        rows, columns = sides(image_transforms(fit="pad", frame=frame)({"image": str(path)})["image"][0])
        assert abs(rows - columns) < 1 and rows == pytest.approx(79 * 96 / 300, abs=1)


def test_of_volumes_the_axial_planes_keep_their_shape_and_the_slices_are_resized(tmp_path):
    volume = np.repeat(disc(150, 75, tall=1, radius=30)[:, :, None], 7, axis=2)
    # stored with the axes exchanged: the file's first axis runs to the back
    affine = np.array([[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "a.nii")
    image = image_transforms(3, (48, 48, 14), fit="pad")({"image": str(tmp_path / "a.nii")})["image"][0]
    assert image.shape == (48, 48, 14) and all(sides(part) == sides(image[..., 0]) for part in image.unbind(2))
    rows, columns = sides(image[..., 7])
    assert abs(rows - columns) < 1 and rows == pytest.approx(61 * 48 / 150, abs=1)
    assert (image[:12] == -1).all() and (image[-12:] == -1).all()


def test_a_photograph_is_fitted_as_it_is_viewed(tmp_path):
    picture = Image.fromarray(disc(100, 300))
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = image_transforms(fit="pad")({"image": str(tmp_path / "a.jpg")})["image"][0]
    assert (image[:, :31] == -1).all() and (image[:, 65:] == -1).all() and (image[:, 33:63] > -1).any(1).all()


def test_an_unknown_fit_and_one_beside_a_spacing_are_refused():
    with pytest.raises(InputError, match=r"Unknown fit 'padd' \(did you mean pad\?\); valid: stretch, pad, crop"):
        image_transforms(fit="padd")
    with pytest.raises(InputError, match=r"fit is 'crop' and spacing 1\.5: .* leave one of the two out"):
        image_transforms(spacing=1.5, fit="crop")
