# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    Lambdad,
    LoadImaged,
    Orientationd,
    Resized,
    ScaleIntensityRangePercentilesd,
    Transposed,
)
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from dual_skd.data.reader import MedicalReader, read_grey
from dual_skd.data.transforms import to_grey

SHAPE = (20, 32)  # rows, columns


@pytest.fixture
def picture() -> np.ndarray:
    """A picture without any symmetry: rows and columns can't be confused, nor a flip be missed."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (rows * 7 + columns * 3 + (rows > 12) * (columns < 9) * 40).astype(np.uint8)


def write_dicom(
    path: Path, stored: np.ndarray, *, photometric="MONOCHROME2", slope=1, intercept=0, number=1, position=None
) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = SecondaryCaptureImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dicom = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dicom.SOPClassUID, dicom.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dicom.Modality, dicom.PatientID, dicom.InstanceNumber = "OT", "p", number
    dicom.SamplesPerPixel, dicom.PhotometricInterpretation, dicom.PixelRepresentation = 1, photometric, 0
    dicom.Rows, dicom.Columns = stored.shape
    dicom.BitsAllocated, dicom.BitsStored, dicom.HighBit = 16, 12, 11
    dicom.RescaleSlope, dicom.RescaleIntercept = str(slope), str(intercept)
    if position is not None:
        dicom.ImageOrientationPatient, dicom.ImagePositionPatient = [1, 0, 0, 0, 1, 0], position
        dicom.PixelSpacing, dicom.SliceThickness = [2.0, 1.0], 3.0
    dicom.PixelData = stored.astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dicom.save_as(path, enforce_file_format=True)
    return path


def loaded(*more) -> Compose:
    return Compose(
        [
            LoadImaged("image", reader=MedicalReader()),
            EnsureChannelFirstd("image"),
            Lambdad("image", to_grey),
            Transposed("image", [0, 2, 1]),
            *more,
        ]
    )


def upright(path: Path) -> np.ndarray:
    return np.asarray(loaded()({"image": str(path)})["image"])


def test_a_picture_comes_out_upright_and_equal_from_every_format(tmp_path, picture):
    grey = Image.fromarray(picture)
    alpha = Image.fromarray((picture // 2).astype(np.uint8))
    variants = {
        "l.png": grey,
        "rgb.png": Image.merge("RGB", [grey] * 3),
        "rgba.png": Image.merge("RGBA", [grey] * 3 + [alpha]),
        "la.png": Image.merge("LA", [grey, alpha]),
        "l.bmp": grey,
        "l.tif": grey,
        "sixteen.png": Image.fromarray(picture.astype(np.uint16) * 256),
    }
    for name, image in variants.items():
        image.save(tmp_path / name)
        found = upright(tmp_path / name)
        assert found.shape == (1, *SHAPE) and found.dtype == np.float32
        scale = 256 if name == "sixteen.png" else 1
        assert np.allclose(found[0] / scale, picture, atol=1e-3), name
    grey.save(tmp_path / "l.jpg", quality=95)
    assert np.abs(upright(tmp_path / "l.jpg")[0] - picture).mean() < 3


def test_a_palette_png_is_read_as_colours_not_as_indices(tmp_path, picture):
    image = Image.fromarray(picture).convert("P")
    image.putpalette([value for index in range(256) for value in (255 - index,) * 3])
    image.save(tmp_path / "p.png")
    assert np.allclose(upright(tmp_path / "p.png")[0], 255.0 - picture, atol=1e-3)


def test_dicom_and_png_of_one_picture_agree_in_orientation_and_values(tmp_path, picture):
    stored = picture.astype(np.uint16) * 16
    plain = write_dicom(tmp_path / "plain.dcm", stored)
    hounsfield = write_dicom(tmp_path / "hu.dcm", stored, slope=2, intercept=-1024)
    inverted = write_dicom(tmp_path / "inverted.dcm", 4095 - stored, photometric="MONOCHROME1")
    no_suffix = write_dicom(tmp_path / "IM0001", stored)
    assert np.allclose(upright(plain)[0], stored)
    assert np.allclose(upright(hounsfield)[0], stored * 2.0 - 1024)
    assert np.allclose(upright(no_suffix)[0], stored)
    mirrored = upright(inverted)[0]
    assert np.allclose(mirrored - mirrored.min(), stored.astype(float) - stored.min())
    Image.fromarray(picture).save(tmp_path / "same.png")
    scale = ScaleIntensityRangePercentilesd("image", 0, 100, 0, 1)
    from_png, *from_dicom = (
        loaded(scale)({"image": str(p)})["image"] for p in (tmp_path / "same.png", plain, inverted)
    )
    for image in from_dicom:
        assert torch.allclose(from_png.as_tensor(), image.as_tensor(), atol=1e-4)


def test_the_2d_chain_collates_files_of_all_kinds_into_one_batch(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    write_dicom(tmp_path / "b.dcm", picture.astype(np.uint16), photometric="MONOCHROME1")
    write_dicom(tmp_path / "c.dcm", picture.astype(np.uint16), position=[0, 0, 0])
    chain = loaded(
        ScaleIntensityRangePercentilesd("image", 0.5, 99.5, -1, 1, clip=True),
        Resized("image", [16, 16], mode="area"),
        EnsureTyped("image", track_meta=False),
    )
    records = [
        {"image": str(tmp_path / name), "label": i, "patient": ""} for i, name in enumerate(["a.png", "b.dcm", "c.dcm"])
    ]
    # the inverted one differs by its own range only, so the scaled values are mirrored
    batch = next(iter(DataLoader(Dataset(records, chain), batch_size=3)))
    assert batch["image"].shape == (3, 1, 16, 16) and type(batch["image"]) is torch.Tensor
    assert -1 <= batch["image"].min() < -0.95 and 0.95 < batch["image"].max() <= 1
    assert batch["label"].tolist() == [0, 1, 2]
    assert torch.allclose(batch["image"][0], batch["image"][2], atol=1e-4)
    assert torch.allclose(batch["image"][0], -batch["image"][1], atol=1e-4)


def test_a_nifti_volume_of_any_orientation_is_turned_to_ras(tmp_path):
    volume = np.random.default_rng(0).integers(0, 900, (9, 7, 5)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([2.0, 3.0, 4.0, 1.0])), tmp_path / "ras.nii.gz")
    turned = np.ascontiguousarray(volume.transpose(2, 0, 1)[:, ::-1])
    affine = np.array([[0, -2.0, 0, 16], [0, 0, 3.0, 0], [4.0, 0, 0, 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(turned, affine), tmp_path / "turned.nii")
    chain = Compose(
        [
            LoadImaged("image", reader=MedicalReader()),
            EnsureChannelFirstd("image"),
            Lambdad("image", to_grey),
            Orientationd("image", axcodes="RAS", labels=None),
        ]
    )
    for name in ("ras.nii.gz", "turned.nii"):
        found = chain({"image": str(tmp_path / name)})["image"]
        assert np.array_equal(np.asarray(found)[0], volume), name


def test_a_folder_of_dicom_slices_is_a_volume_that_agrees_with_its_nifti(tmp_path):
    rng = np.random.default_rng(1)
    slices = rng.integers(0, 4000, (5, *SHAPE)).astype(np.uint16)
    for number, pixels in enumerate(slices):
        # file names in the wrong order: the instance number counts
        write_dicom(tmp_path / "s" / f"{9 - number}.dcm", pixels, number=number + 1, position=[0, 0, 3.0 * number])
    loaded_volume = LoadImaged("image", reader=MedicalReader())({"image": str(tmp_path / "s")})
    chain = Compose(
        [EnsureChannelFirstd("image"), Lambdad("image", to_grey), Orientationd("image", axcodes="RAS", labels=None)]
    )
    found = np.asarray(chain(loaded_volume)["image"])[0]
    # DICOM columns run to the left and rows to the back; RAS turns both round
    assert np.array_equal(found, slices.transpose(2, 1, 0)[::-1, ::-1])


def test_one_reader_object_serves_many_threads(tmp_path, picture):
    paths = []
    for index in range(24):
        pixels = ((picture.astype(int) + index) % 256).astype(np.uint8)
        if index % 2:
            paths.append(write_dicom(tmp_path / f"{index}.dcm", pixels.astype(np.uint16)))
        else:
            paths.append(tmp_path / f"{index}.png")
            Image.fromarray(pixels).save(paths[-1])
    chain = loaded()
    with ThreadPoolExecutor(8) as pool:
        for index, found in enumerate(pool.map(lambda path: chain({"image": str(path)})["image"], paths)):
            assert np.allclose(np.asarray(found)[0], (picture.astype(int) + index) % 256)


def test_read_grey_gives_what_the_chain_gives(tmp_path, picture):
    Image.merge("RGB", [Image.fromarray(picture)] * 3).save(tmp_path / "a.png")
    write_dicom(tmp_path / "b.dcm", picture.astype(np.uint16), photometric="MONOCHROME1")
    for name in ("a.png", "b.dcm"):
        assert np.allclose(read_grey(tmp_path / name).T, upright(tmp_path / name)[0])
