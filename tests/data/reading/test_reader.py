# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import math
import struct
import sys
import zlib
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

from dual_skd.data.reading.codestreams import png_bytes
from dual_skd.data.reading.grey import read_grey, to_grey
from dual_skd.data.reading.preprocessing import MedicalReader
from dual_skd.data.reading.reader import read_image
from dual_skd.data.records.frames import frames_of
from dual_skd.errors import InputError, input_error_behind

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


def refused(image, *words: str, **options) -> None:
    with pytest.raises(InputError) as caught:
        read_image(image, **options)
    for word in words:
        assert word in str(caught.value)


def save(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


# ---------------------------------------------------------------------------------------------------------- pictures


def test_deep_and_floating_point_pictures_keep_their_values(tmp_path, picture):
    deep = picture.astype(np.uint16) * 257
    real = picture.astype(np.float32) / 7 - 3
    for name, values in {
        "a.png": deep,
        "a.tif": deep,
        "b.tif": real,
        "c.tif": picture.astype(np.int32) * 70000,
    }.items():
        array, meta = read_image(save(tmp_path / name, Image.fromarray(values)), spatial_dims=2)
        assert np.array_equal(array, values.T), name
        assert np.isnan(meta["original_channel_dim"]) and not meta["spacing_known"]
        assert np.array_equal(meta["affine"], np.eye(4)) and meta["modality"] == ""


def write_tiff(path: Path, values: np.ndarray, *, sample_format: int) -> Path:
    """A plain TIFF of kinds that Pillow doesn't write."""
    rows, columns = values.shape
    entries = [
        (256, 4, columns), (257, 4, rows), (258, 3, 8 * values.itemsize), (259, 3, 1), (262, 3, 1), (273, 4, 8),
        (277, 3, 1), (278, 4, rows), (279, 4, values.nbytes), (339, 3, sample_format),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    head = b"II*\0" + struct.pack("<I", 8 + values.nbytes)
    path.write_bytes(head + values.tobytes() + struct.pack("<H", len(entries)) + directory + bytes(4))
    return path


def test_tiff_values_of_32_bits_keep_their_range_and_signed_8_bits_are_refused(tmp_path):
    values = np.array([[0, 1, 2**31], [2**32 - 1, 7, 2**31 - 1]], np.uint32)
    assert np.array_equal(read_image(write_tiff(tmp_path / "a.tif", values, sample_format=1))[0], values.T)
    signed = values.view(np.int32)
    assert np.array_equal(read_image(write_tiff(tmp_path / "b.tif", signed, sample_format=2))[0], signed.T)
    refused(write_tiff(tmp_path / "c.tif", signed.astype(np.int8), sample_format=2), "c.tif has signed", "16 bits")


def test_bilevel_cmyk_and_palettes_with_transparency_become_grey_or_rgb(tmp_path, picture):
    bilevel = Image.fromarray(picture > 60)
    assert set(np.unique(read_image(save(tmp_path / "a.png", bilevel))[0])) == {0, 255}
    grey = Image.fromarray(picture)
    array, meta = read_image(save(tmp_path / "b.jpg", Image.merge("RGB", [grey] * 3).convert("CMYK"), quality=95))
    assert array.shape == (*SHAPE[::-1], 3) and meta["original_channel_dim"] == -1
    palette = grey.convert("P")
    array, _ = read_image(save(tmp_path / "c.png", palette, transparency=3))
    assert np.array_equal(array, np.asarray(palette.convert("RGB")).swapaxes(0, 1))


def test_the_orientation_that_a_camera_notes_is_applied(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    turned = save(tmp_path / "a.png", Image.fromarray(picture), exif=exif)
    assert np.array_equal(read_image(turned)[0].T, np.rot90(picture, -1))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, -1), (8, 1)])
def test_the_orientation_of_a_tiff_is_applied(tmp_path, picture, kind, orientation, turns):
    path = save(tmp_path / "a.tif", Image.fromarray(picture.astype(kind)), tiffinfo={274: orientation})
    assert np.array_equal(read_image(path)[0].T, np.rot90(picture, turns))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_whose_white_is_zero_is_bright_where_its_viewer_shows_it_bright(tmp_path, picture, bits):
    stored = picture.astype(f"uint{bits}")
    path = save(tmp_path / "a.tif", Image.fromarray(stored))
    content = path.read_bytes()
    black_is_zero = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert content.count(black_is_zero) == 1
    path.write_bytes(content.replace(black_is_zero, struct.pack("<HHIHH", 262, 3, 1, 0, 0)))
    assert np.array_equal(read_image(path)[0].T, 2**bits - 1 - stored)


def test_the_pages_of_a_tiff_are_frames(tmp_path, picture):
    pages = [Image.fromarray(picture + index) for index in range(4)]
    path = save(tmp_path / "a.tif", pages[0], save_all=True, append_images=pages[1:])
    array, meta = read_image(path)
    assert np.array_equal(array, np.stack([picture.T + index for index in range(4)], axis=-1))
    assert np.isnan(meta["original_channel_dim"]) and meta["spatial_shape"].tolist() == [*SHAPE[::-1], 4]
    refused(path, "4 frames", "a.tif", "--frame middle", spatial_dims=2)
    assert np.array_equal(read_image(path, spatial_dims=2, frame="middle")[0], picture.T + 2)
    assert np.array_equal(read_image(f"{path}#frame=1", spatial_dims=2)[0], picture.T + 1)
    uneven = save(tmp_path / "b.tif", pages[0], save_all=True, append_images=[pages[1].resize((9, 9))])
    refused(uneven, "b.tif has pages of different sizes")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp"])
def test_pictures_cut_short_are_refused_by_name(tmp_path, picture, name):
    path = save(tmp_path / name, Image.fromarray(picture))
    content = path.read_bytes()
    for length in (0, 1, 20, len(content) // 2, len(content) - 150):
        path.write_bytes(content[:length])
        refused(path, str(path), "leave it out")


def test_a_picture_whose_header_declares_more_than_the_file_can_hold_is_refused(tmp_path, picture):
    content = save(tmp_path / "a.png", Image.fromarray(picture)).read_bytes()
    for size, words in (((8000, 8000), "cut short"), ((60000, 60000), "DecompressionBomb")):
        header = b"IHDR" + size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big") + content[24:29]
        bomb = content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]
        (tmp_path / "a.png").write_bytes(bomb)
        refused(tmp_path / "a.png", "a.png", words)


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


@pytest.mark.parametrize("missing", [0, 1, 19])  # of 20; Pillow itself refuses none at all
def test_a_png_whose_data_end_before_its_last_row_is_refused(tmp_path, picture, missing):
    content = save(tmp_path / "a.png", Image.fromarray(picture)).read_bytes()
    rows = [b"\0" + row.tobytes() for row in picture[: len(picture) - missing]]
    data = zlib.compress(b"".join(rows))
    whole = chunk(b"IDAT", data[:50]) + chunk(b"IDAT", data[50:])
    (tmp_path / "a.png").write_bytes(content[:33] + whole + chunk(b"IEND", b""))
    if missing:
        refused(tmp_path / "a.png", "a.png is cut short or damaged", "copy the file again")
    else:
        assert np.array_equal(read_image(tmp_path / "a.png")[0].squeeze().T, picture)


@pytest.mark.parametrize("mode, depth", [("1", 1), ("L", 8), ("LA", 8), ("RGB", 8), ("RGBA", 8), ("I;16", 16)])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (13, 9), (40, 33)])
def test_the_bytes_of_a_png_are_those_of_its_header(tmp_path, mode, depth, size):
    path = save(tmp_path / "a.png", Image.new(mode, size, 0))
    declared, stored = png_bytes(path.read_bytes())
    values = {"LA": 2, "RGB": 3, "RGBA": 4}.get(mode, 1)
    assert declared == stored == size[1] * (1 + math.ceil(size[0] * values * depth / 8))


def test_the_passes_of_an_interlaced_png_have_every_pixel_once():
    # ISO/IEC 15948, 8.2: of 8 x 8 pixels the passes have 1, 1, 2, 4, 8, 16 and 32, in 1, 1, 1, 2, 2, 4 and 4 rows
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes([0, 0, 0, 8, 0, 0, 0, 8, 8, 0, 0, 0, 1]))
    assert png_bytes(header + chunk(b"IDAT", zlib.compress(bytes(99)))) == (64 + 15, 64 + 15)
    assert png_bytes(header + chunk(b"IDAT", zlib.compress(bytes(70)))) == (64 + 15, 70)


def test_a_picture_in_a_3d_task_and_a_wrong_name_are_refused(tmp_path, picture):
    path = save(tmp_path / "a.png", Image.fromarray(picture))
    refused(path, "Expected a volume (spatial_dims 3)", "a.png", "give --spatial-dims 2", spatial_dims=3)
    refused(tmp_path / "gone.png", "gone.png does not exist", "correct the path")
    (tmp_path / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    refused(tmp_path / "eps.png", "eps.png", "a PostScript document")


# ------------------------------------------------------------------------------------------------------------- NIfTI


def nifti(path: Path, values: np.ndarray, affine=None, **header) -> Path:
    image = nibabel.Nifti1Image(values, np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_a_nifti_volume_has_the_values_and_the_affine_that_nibabel_gives(tmp_path, suffix, dtype):
    values = np.random.default_rng(0).integers(0, 200, (9, 7, 5)).astype(dtype)
    affine = np.array([[0, -2.0, 0, 16], [0, 0, 3.0, 5], [4.0, 0, 0, -1], [0, 0, 0, 1]])
    path = nifti(tmp_path / f"a{suffix}", values, affine)
    array, meta = read_image(path, spatial_dims=3)
    assert array.dtype == np.float32 and np.array_equal(array, nibabel.load(path).get_fdata())
    assert np.array_equal(meta["affine"], affine) and meta["spacing_known"]
    assert np.isnan(meta["original_channel_dim"])


@pytest.mark.parametrize(("unit", "mm"), [("micron", 0.001), ("meter", 1000), ("mm", 1), ("unknown", 1)])
def test_the_affine_of_a_nifti_file_is_in_mm_whatever_its_unit(tmp_path, unit, mm):
    affine = np.array([[0, -2.0, 0, 16], [0, 0, 3.0, 5], [4.0, 0, 0, -1], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.int16), affine)
    image.header.set_xyzt_units(unit, "sec")
    nibabel.save(image, tmp_path / "a.nii")
    assert np.allclose(read_image(tmp_path / "a.nii")[1]["affine"], np.diag([mm, mm, mm, 1]) @ affine)


def test_slope_and_intercept_of_a_nifti_file_are_applied(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2.5, -1024)
    image.header.set_data_dtype(np.int16)
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([2.5, -1024], "<f4").tobytes()
    content[352:] = np.arange(24, dtype="<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    expected = np.arange(24).reshape(2, 3, 4, order="F") * 2.5 - 1024
    assert np.array_equal(read_image(tmp_path / "a.nii")[0], expected)
    assert np.array_equal(nibabel.load(tmp_path / "a.nii").get_fdata(), expected)


def test_last_axes_of_one_are_dropped_and_other_axes_refused(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(4, 6, 1, 1)
    flat = nifti(tmp_path / "a.nii", values)
    array, meta = read_image(flat, spatial_dims=2)
    assert np.array_equal(array, values[..., 0, 0]) and np.array_equal(meta["affine"], np.diag([2, 3, 1, 1]))
    assert read_image(flat, spatial_dims=3)[0].shape == (4, 6, 1)
    refused(
        nifti(tmp_path / "b.nii", np.zeros((4, 4, 4, 3), np.int16)), "4 axes (4 x 4 x 4 x 3)", "b.nii", "time point"
    )
    volume = nifti(tmp_path / "c.nii", np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    refused(volume, "5 frames or slices", "c.nii", spatial_dims=2)
    assert np.array_equal(read_image(volume, spatial_dims=2, frame="middle")[0], np.arange(60).reshape(3, 4, 5)[..., 2])
    refused(nifti(tmp_path / "d.nii", np.zeros((2, 2, 2), np.complex64)), "complex", "d.nii")


@pytest.mark.parametrize(("axis", "spacing"), [(0, (3, 4)), (1, (2, 4)), (2, (2, 3))])
@pytest.mark.parametrize("frame", [None, "middle"])
def test_a_slice_stored_along_any_axis_is_an_image(tmp_path, axis, spacing, frame):
    values = np.arange(30, dtype=np.int16).reshape(5, 6)
    path = nifti(tmp_path / "a.nii", np.expand_dims(values, axis))
    array, meta = read_image(path, spatial_dims=2, frame=frame)
    assert np.array_equal(array, values) and np.array_equal(meta["affine"], np.diag([*spacing, 1, 1]))
    assert frames_of([str(path)], "all") == [[str(path)]]


def test_colours_of_a_nifti_file_are_channels(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (4, 3, 2, 3)).astype(np.uint8)
    records = np.ascontiguousarray(values).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    array, meta = read_image(nifti(tmp_path / "a.nii", records), spatial_dims=3)
    assert meta["original_channel_dim"] == -1 and np.array_equal(array, values)


def test_the_spacing_of_a_nifti_file_without_geometry_is_not_known(tmp_path):
    path = nifti(tmp_path / "a.nii", np.zeros((4, 4, 4), np.int16), np.eye(4))
    content = bytearray(path.read_bytes())
    assert read_image(path)[1]["spacing_known"]
    content[252:256] = bytes(4)  # qform_code, sform_code
    path.write_bytes(content)
    assert not read_image(path)[1]["spacing_known"]
    content[252:256], content[280:328] = b"\0\0\1\0", bytes(48)  # sform_code, the rows of the sform
    path.write_bytes(content)
    refused(path, "a.nii has an affine that can't be inverted", "sform")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_file_cut_short_or_declaring_too_much_is_refused_by_name(tmp_path, suffix):
    path = nifti(tmp_path / f"a{suffix}", np.random.default_rng(0).integers(0, 99, (9, 7, 5)).astype(np.int16))
    content = path.read_bytes()
    for length in (0, 100, len(content) // 2, len(content) - 9):
        path.write_bytes(content[:length])
        refused(path, str(path))
    plain = bytearray(gzip.decompress(content) if suffix == ".nii.gz" else content)
    for sizes, words in (((900, 300, 300), "cut short"), ((30000, 30000, 300), "GiB"), ((-9, 7, 5), "a.nii")):
        plain[42:48] = np.array(sizes, "<i2").tobytes()
        path.write_bytes(gzip.compress(plain) if suffix == ".nii.gz" else plain)
        refused(path, str(path), words)


def test_a_flipped_bit_of_a_compressed_volume_is_found_by_its_checksum(tmp_path):
    values = np.random.default_rng(0).integers(0, 2**16, (9, 7, 5)).astype(np.uint16)  # deflate stores noise as it is
    path = nifti(tmp_path / "a.nii.gz", values)
    content = bytearray(path.read_bytes())
    content[-100] ^= 16
    path.write_bytes(content)
    refused(path, "a.nii.gz", "damaged")


# ------------------------------------------------------------------------------------------------------------- NumPy


def test_numpy_arrays_stay_as_they_are(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    for options in ({"spatial_dims": 3}, {}):
        array, meta = read_image(tmp_path / "a.npy", **options)
        assert np.array_equal(array, values) and array.flags.writeable
        assert (meta["original_channel_dim"] == -1) == (not options)  # four values along the last axis: colours
    np.save(tmp_path / "b.npy", values[..., :1])
    assert np.array_equal(read_image(tmp_path / "b.npy", spatial_dims=2)[0], values[..., 0])
    np.save(tmp_path / "c.npy", values > 0)
    assert read_image(tmp_path / "c.npy", spatial_dims=3)[0].dtype == np.uint8


def test_arrays_that_are_no_images_are_refused_and_pickles_never_opened(tmp_path):
    np.save(tmp_path / "object.npy", np.array([{"a": 1}, None], dtype=object))
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    np.save(tmp_path / "line.npy", np.arange(9.0))
    np.save(tmp_path / "none.npy", np.zeros((0, 4)))
    np.save(tmp_path / "short.npy", np.zeros((9, 9)))
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-99])
    (tmp_path / "empty.npy").touch()
    for name in ("object", "text", "line", "none", "short", "empty"):
        refused(tmp_path / f"{name}.npy", f"{name}.npy")


def test_values_that_are_not_finite_are_left_in(tmp_path):
    values = np.array([[np.nan, 1.0], [np.inf, 2.0]], np.float32)
    np.save(tmp_path / "a.npy", values)
    assert np.array_equal(read_image(tmp_path / "a.npy")[0], values, equal_nan=True)
    assert np.array_equal(read_grey(tmp_path / "a.npy").numpy(), values, equal_nan=True)


def test_images_of_a_medmnist_file_come_out_like_pictures(tmp_path, picture, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    grey = np.stack([picture, picture[::-1]])
    colours = np.stack([np.dstack([picture, picture // 2, picture // 3])] * 2)
    volumes = np.random.default_rng(0).integers(0, 255, (2, 6, 5, 4)).astype(np.uint8)
    for name, images in {"grey": grey, "colour": colours, "volume": volumes}.items():
        np.savez_compressed(tmp_path / f"{name}.npz", train_images=images, train_labels=np.zeros((2, 1)))
    assert np.array_equal(read_image(f"{tmp_path}/grey.npz#train/1", spatial_dims=2)[0], picture[::-1].T)
    array, meta = read_image(f"{tmp_path}/colour.npz#train/0", spatial_dims=2)
    assert meta["original_channel_dim"] == -1 and np.array_equal(array, colours[0].swapaxes(0, 1))
    array, meta = read_image(f"{tmp_path}/volume.npz#train/1", spatial_dims=3)
    assert np.isnan(meta["original_channel_dim"]) and np.array_equal(array, volumes[1].transpose(2, 1, 0))
    save(tmp_path / "same.png", Image.fromarray(picture))
    assert torch.equal(read_grey(f"{tmp_path}/grey.npz#train/0"), read_grey(tmp_path / "same.png"))
    for locator in ("grey.npz#train/2", "grey.npz#test/0", "grey.npz", "grey.npz#frame=1"):
        refused(f"{tmp_path}/{locator}", "grey.npz", spatial_dims=2)


# --------------------------------------------------------------------------------------------------------- in MONAI


def test_monai_passes_on_what_the_reader_says(tmp_path, picture):
    save(tmp_path / "a.png", Image.fromarray(picture))
    chain = Compose([LoadImaged("image", reader=MedicalReader(spatial_dims=3))])
    with pytest.raises(RuntimeError) as caught:
        chain({"image": str(tmp_path / "a.png")})
    assert "give --spatial-dims 2" in str(input_error_behind(caught.value))
    with pytest.raises(InputError, match="one file or folder per image, found 2: .*a.png"):
        MedicalReader().get_data(MedicalReader().read([tmp_path / "a.png"] * 2))


def test_the_meta_data_of_every_format_can_be_collated(tmp_path, picture):
    save(tmp_path / "a.png", Image.fromarray(picture))
    write_dicom(tmp_path / "b.dcm", picture.astype(np.uint16), position=[0, 0, 0])
    np.save(tmp_path / "c.npy", picture.T)
    nifti(tmp_path / "d.nii", picture.T.astype(np.int16))
    chain = loaded(Resized("image", [16, 16], mode="area"))
    records = [{"image": str(tmp_path / name)} for name in ("a.png", "b.dcm", "c.npy", "d.nii")]
    batch = next(iter(DataLoader(Dataset(records, chain), batch_size=4)))
    assert batch["image"].meta["spacing_known"].tolist() == [False, True, False, True]


def test_beside_pydicom_2_all_but_dicom_is_read(tmp_path, picture, monkeypatch):
    Image.fromarray(picture).save(tmp_path / "a.png")
    dicom = write_dicom(tmp_path / "a.dcm", picture)
    assert np.array_equal(read_image(dicom)[0], read_image(tmp_path / "a.png")[0])
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)  # what pydicom 3 brought
    monkeypatch.delitem(sys.modules, "dual_skd.data.reading.dicom_pixels")
    monkeypatch.delattr("dual_skd.data.reading.dicom_pixels")
    assert np.array_equal(read_image(tmp_path / "a.png")[0], picture.T)
    with pytest.raises(InputError, match=r"need pydicom 3.*found .*NIfTI or PNG"):
        read_image(dicom)
