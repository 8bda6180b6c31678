# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import refused
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut, convert_color_space
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dual_skd.data.reading import dicom_pixels
from dual_skd.data.reading.dicom_pixels import frame_in_file
from dual_skd.data.reading.grey import read_grey
from dual_skd.data.reading.reader import read_image


@pytest.fixture
def slice_() -> np.ndarray:
    """Twelve bits, without any symmetry, sizes that no two axes share."""
    return np.random.default_rng(0).integers(0, 4096, (36, 48)).astype(np.int16)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4096, (7, 36, 48)).astype(np.int16)


# ---------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("signed", [True, False])
def test_a_phantom_has_the_hounsfield_units_of_air_water_and_bone(tmp_path, dicom_file, signed):
    hounsfield = np.array([[-1000, 0, 1000], [0, 1000, -1000]])
    stored = hounsfield.astype(np.int16) if signed else (hounsfield + 1024).astype(np.uint16)
    tags = {"RescaleSlope": 1, "RescaleIntercept": 0 if signed else -1024, "BitsStored": 12, "HighBit": 11}
    array, meta = read_image(dicom_file(tmp_path / "a.dcm", stored, PixelSpacing=[0.7, 0.5], **tags))
    assert np.array_equal(array, hounsfield.T) and array.dtype == np.float32
    assert (meta["modality"], meta["spacing_known"], meta["00280004"]) == ("CT", True, "MONOCHROME2")
    assert np.array_equal(meta["affine"], np.diag([0.5, 0.7, 1, 1]))
    assert meta["spatial_shape"].tolist() == [3, 2] and np.isnan(meta["original_channel_dim"])


@pytest.mark.parametrize(
    "tags", [{"RescaleSlope": 2}, {"RescaleIntercept": -1024}, {"RescaleIntercept": -9, "RescaleSlope": ""}]
)
def test_half_a_rescale_is_applied(tmp_path, dicom_file, slice_, tags):
    path = dicom_file(tmp_path / "a.dcm", slice_, WindowCenter=40, WindowWidth=400, **tags)
    expected = slice_ * float(tags.get("RescaleSlope") or 1) + tags.get("RescaleIntercept", 0)
    assert np.array_equal(read_image(path)[0].T, expected)
    whole = {"RescaleSlope": 1, "RescaleIntercept": 0} | {name: value for name, value in tags.items() if value}
    complete = dicom_file(tmp_path / "b.dcm", slice_, WindowCenter=40, WindowWidth=400, **whole)
    assert np.array_equal(read_image(path, voi_lut=True)[0], read_image(complete, voi_lut=True)[0])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("kind", ["US", "OW"])
@pytest.mark.parametrize("depth", [8, 12, 16])
def test_a_modality_table_takes_the_place_of_a_rescale(tmp_path, dicom_file, syntax, kind, depth):
    entries = np.random.default_rng(0).integers(0, 2**depth, 100)
    words = entries.astype(">u2" if syntax == ExplicitVRBigEndian else "<u2")
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [100, 20, depth], "US"
    table.LUTData = entries.tolist() if kind == "US" else words.tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", kind
    stored = np.random.default_rng(1).integers(0, 200, (6, 4)).astype(np.uint16)
    tags = {"WindowCenter": 40, "WindowWidth": 90, "Modality": "CR"}
    path = dicom_file(tmp_path / "a.dcm", stored, ModalityLUTSequence=[table], syntax=syntax, **tags)
    expected, dicom = entries[np.clip(stored.astype(int) - 20, 0, 99)], pydicom.dcmread(path)
    if depth != 12:  # which pydicom doesn't know here
        assert np.array_equal(apply_modality_lut(dicom.pixel_array, dicom), expected)
    assert np.array_equal(read_image(path)[0].T, expected)
    assert np.allclose(read_image(path, voi_lut=True)[0].T, apply_voi_lut(expected, dicom))


@pytest.mark.parametrize(
    ("modality", "photometric", "black"),
    [("DX", "MONOCHROME2", -1000), ("DX", "MONOCHROME1", 500), ("CT", "MONOCHROME1", -1000)],
)
def test_padding_becomes_the_black_of_the_image(tmp_path, dicom_file, modality, photometric, black):
    stored = np.array([[-2000, -1000, 0], [500, -2000, -1990]], np.int16)
    tags = {"PhotometricInterpretation": photometric, "RescaleSlope": 1, "RescaleIntercept": 0, "Modality": modality}
    lowest = -1990 if black < 0 else black
    for name, padding in (("signed", -2000), ("as unsigned", 65536 - 2000)):
        dicom = pydicom.dcmread(dicom_file(tmp_path / name, stored, **tags))
        dicom.add_new("PixelPaddingValue", "US" if padding > 0 else "SS", padding)
        dicom.save_as(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name)[0].T, [[lowest, -1000, 0], [500, lowest, -1990]]), name
    path = dicom_file(tmp_path / "range", stored, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990, **tags)
    assert np.array_equal(read_image(path)[0].T, [[black, -1000, 0], [500, black, black]])
    path = dicom_file(tmp_path / "all", np.full((2, 2), -2000, np.int16), PixelPaddingValue=-2000, **tags)
    assert (read_image(path)[0] == -2000).all()


def test_the_window_of_the_file_is_applied_on_request(tmp_path, dicom_file, slice_):
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": [40, 300], "WindowWidth": [400, 1500]}
    path = dicom_file(tmp_path / "a.dcm", slice_, **tags)
    dicom = pydicom.dcmread(path)
    hounsfield = apply_modality_lut(dicom.pixel_array, dicom)
    assert np.array_equal(read_image(path)[0].T, hounsfield)
    assert np.allclose(read_image(path, voi_lut=True)[0].T, apply_voi_lut(hounsfield, dicom))
    message = refused(dicom_file(tmp_path / "b.dcm", slice_), "b.dcm has no VOI LUT and no window", voi_lut=True)
    assert "voi_lut false" in message


@pytest.mark.parametrize("depth", [8, 12, 16])
@pytest.mark.parametrize("kind", ["US", "OW"])
def test_a_table_of_the_file_is_applied_on_request(tmp_path, dicom_file, slice_, depth, kind):
    entries = (np.arange(4096) * (2**depth - 1) // 4095).astype("<u2")
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, depth], entries.tolist() if kind == "US" else entries.tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", kind
    path = dicom_file(tmp_path / "a.dcm", slice_, VOILUTSequence=[table])
    array, meta = read_image(path, voi_lut=True)
    assert np.array_equal(array.T, entries[slice_]) and meta["voi_range"].tolist() == [0, 2**depth - 1]
    assert np.isnan(read_image(path)[1]["voi_range"]).all()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_range_that_a_window_can_give_is_told(tmp_path, dicom_file, slice_, function):
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1024, "BitsStored": 12, "HighBit": 11, "VOILUTFunction": function}
    path = dicom_file(tmp_path / "a.dcm", slice_.astype(np.uint16), WindowCenter=40, WindowWidth=400, **tags)
    assert read_image(path, voi_lut=True)[1]["voi_range"].tolist() == [-1024, 2 * 4095 - 1024]


def test_a_volume_is_windowed_by_its_middle_slice(tmp_path, dicom_series, volume):
    folder = dicom_series(tmp_path / "s", volume, WindowCenter=2000, WindowWidth=1000)
    middle = next(p for p in folder.iterdir() if pydicom.dcmread(p).ImagePositionPatient[2] == 5.0 + 3 * 2.5)
    for path in folder.iterdir():
        dicom = pydicom.dcmread(path)
        dicom.WindowCenter = 1000 if path == middle else 3000
        dicom.save_as(path)
    expected = apply_voi_lut(volume, pydicom.dcmread(middle))
    assert np.allclose(read_image(folder, voi_lut=True)[0], expected.transpose(2, 1, 0))


def test_inverted_and_coloured_images_become_grey(tmp_path, dicom_file, slice_):
    tags = {"PhotometricInterpretation": "MONOCHROME1", "Modality": "DX"}
    inverted = dicom_file(tmp_path / "a.dcm", 4095 - slice_, **tags)
    grey = read_grey(inverted).T
    assert np.array_equal(grey - grey.min(), slice_ - slice_.min())
    colours = np.random.default_rng(2).integers(0, 256, (6, 4, 3)).astype(np.uint8)
    array, meta = read_image(dicom_file(tmp_path / "b.dcm", colours))
    assert meta["original_channel_dim"] == -1 and meta["00280004"] == "RGB"
    assert np.array_equal(array, colours.swapaxes(0, 1))
    ybr = convert_color_space(colours, "RGB", "YBR_FULL")
    array, meta = read_image(dicom_file(tmp_path / "c.dcm", ybr, PhotometricInterpretation="YBR_FULL"))
    assert np.array_equal(array.swapaxes(0, 1), convert_color_space(ybr, "YBR_FULL", "RGB"))
    assert meta["00280004"] == "RGB" and np.abs(array.swapaxes(0, 1) - colours).max() <= 2
    assert np.allclose(read_grey(tmp_path / "b.dcm").T, colours @ [0.299, 0.587, 0.114], atol=1e-3)


@pytest.mark.parametrize(("syntax", "words"), [(ExplicitVRLittleEndian, "<u2"), (ExplicitVRBigEndian, ">u2")])
def test_a_palette_is_looked_up(tmp_path, dicom_file, syntax, words):
    tables = {}
    for name, values in {"Red": [0, 10, 20], "Green": [1, 11, 21], "Blue": [2, 12, 22]}.items():
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        tables[f"{name}PaletteColorLookupTableData"] = np.array(values, words).tobytes()
    stored = np.array([[0, 1], [2, 1]], np.uint16)
    path = dicom_file(tmp_path / "a.dcm", stored, syntax=syntax, PhotometricInterpretation="PALETTE COLOR", **tables)
    array, meta = read_image(path)
    assert meta["00280004"] == "RGB"
    assert array.swapaxes(0, 1).tolist() == [[[0, 1, 2], [10, 11, 12]], [[20, 21, 22], [10, 11, 12]]]


def test_unknown_colours_are_refused(tmp_path, dicom_file, slice_):
    refused(dicom_file(tmp_path / "a.dcm", slice_, PhotometricInterpretation="CMYK"), "'CMYK'", "a.dcm")


def test_floating_point_pixels_are_read(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", np.zeros((2, 3), np.int32))
    dicom = pydicom.dcmread(path)
    del dicom.PixelData
    dicom.FloatPixelData = np.array([[0.5, np.nan, 2], [3, 4, -1]], "<f4").tobytes()
    dicom.save_as(path)
    assert np.array_equal(read_image(path)[0].T, [[0.5, np.nan, 2], [3, 4, -1]], equal_nan=True)


# ------------------------------------------------------------------------------------------------ transfer syntaxes


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_uncompressed_syntaxes_give_the_stored_values(tmp_path, dicom_file, slice_, syntax):
    assert np.array_equal(read_image(dicom_file(tmp_path / "a.dcm", slice_, syntax=syntax))[0], slice_.T)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("kind", ["unsigned", "signed", "coloured"])
def test_lossless_syntaxes_give_the_stored_values(tmp_path, dicom_file, slice_, syntax, kind):
    if kind == "coloured":
        stored = np.random.default_rng(3).integers(0, 256, (40, 36, 3)).astype(np.uint8)
    else:
        stored = slice_ - 2048 if kind == "signed" else slice_.astype(np.uint16)
    path = dicom_file(tmp_path / "a.dcm", stored)
    dicom = pydicom.dcmread(path)
    dicom.compress(syntax)
    dicom.save_as(path)
    assert np.array_equal(read_image(path)[0], stored.swapaxes(0, 1))


def test_lossless_jpeg_written_by_itk_gives_the_stored_values(tmp_path, slice_):
    for name, stored in {"unsigned": slice_.astype(np.uint16), "signed": slice_ - 2048, "bytes": slice_ >> 4}.items():
        stored = stored.astype(np.uint8) if name == "bytes" else stored
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(tmp_path / f"{name}.dcm"))
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(stored))
        assert pydicom.dcmread(tmp_path / f"{name}.dcm").file_meta.TransferSyntaxUID == JPEGLosslessSV1
        assert np.array_equal(read_image(tmp_path / f"{name}.dcm")[0], stored.T), name


def test_lossy_jpeg_gives_what_pillow_decodes(tmp_path, dicom_file):
    smooth = (np.mgrid[:24, :32].sum(0) * 4).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "JPEG", quality=95)
    path = dicom_file(tmp_path / "a.dcm", smooth)
    dicom = pydicom.dcmread(path)
    dicom.PixelData = encapsulate([buffer.getvalue()])
    dicom.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dicom["PixelData"].is_undefined_length = True
    dicom.save_as(path)
    found = read_image(path)[0].T
    assert np.abs(found - np.asarray(Image.open(buffer))).max() <= 1 and np.abs(found - smooth).max() < 8


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEG2000])
def test_a_missing_decoder_is_named_with_its_remedy(tmp_path, dicom_file, slice_, monkeypatch, syntax):
    path = dicom_file(tmp_path / "a.dcm", slice_)
    dicom = pydicom.dcmread(path)
    dicom.compress(JPEG2000Lossless)
    dicom.file_meta.TransferSyntaxUID = syntax
    dicom.save_as(path)
    assert np.array_equal(read_image(path)[0], slice_.T)
    monkeypatch.setattr(pydicom.pixels.get_decoder(syntax), "_available", {})
    refused(path, "a.dcm is compressed as", syntax.name, 'pip install ".[dicom]"')


def test_a_codestream_of_another_size_than_the_header_is_refused_before_it_is_decoded(tmp_path, dicom_file, slice_):
    path = dicom_file(tmp_path / "a.dcm", slice_)
    dicom = pydicom.dcmread(path)
    dicom.compress(JPEG2000Lossless)
    size = dicom.PixelData.index(b"\xff\x4f\xff\x51") + 8
    dicom.PixelData = dicom.PixelData[:size] + (2**30).to_bytes(4, "big") + dicom.PixelData[size + 4 :]
    dicom.save_as(path)
    refused(path, "a.dcm is damaged", "48 x 36", "1073741824 x 36")


def test_video_is_refused(tmp_path, dicom_file, slice_):
    path = dicom_file(tmp_path / "a.dcm", slice_)
    dicom = pydicom.dcmread(path)
    dicom.PixelData = encapsulate([b"\0\0\1\xb3" * 100])
    dicom["PixelData"].is_undefined_length = True
    dicom.file_meta.TransferSyntaxUID = MPEG2MPML
    dicom.save_as(path)
    refused(path, "a.dcm is compressed as MPEG2", "convert it")


# ---------------------------------------------------------------------------------------------------------- frames


def test_a_file_of_frames_is_a_volume_or_one_frame(tmp_path, dicom_file, volume):
    tags = {"NumberOfFrames": 7, "PixelSpacing": [0.7, 0.5], "SpacingBetweenSlices": 2.5}
    path = dicom_file(tmp_path / "a.dcm", volume, **tags)
    for options in ({}, {"spatial_dims": 3}):
        array, meta = read_image(path, **options)
        assert np.array_equal(array, volume.transpose(2, 1, 0))
        assert np.array_equal(meta["affine"], np.diag([-0.5, -0.7, 2.5, 1])) and meta["spacing_known"]
    message = refused(path, "7 frames", "a.dcm", "--frame middle", "--spatial-dims 3", "#frame=0", spatial_dims=2)
    assert message.count(".dcm") == 2
    assert np.array_equal(read_image(path, spatial_dims=2, frame="middle")[0], volume[3].T)
    assert np.array_equal(read_image(path, spatial_dims=2, frame=0)[0], volume[0].T)
    array, meta = read_image(f"{path}#frame=6", spatial_dims=2)
    assert np.array_equal(array, volume[6].T) and np.array_equal(meta["affine"], np.diag([0.5, 0.7, 1, 1]))
    refused(path, "number from 0 to 6, found 7", "a.dcm", frame=7)
    refused(f"{path}#last", "frame=", "'last'", "a.dcm")
    refused(f"{path}#frame=1", "Expected a volume", "a.dcm", spatial_dims=3)


def test_frames_of_a_file_that_states_one_position_are_a_volume_with_its_spacing(tmp_path, dicom_file, volume, caplog):
    dicom_pixels._warn_once.cache_clear()
    place = {"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    tags = {"NumberOfFrames": 7, "PixelSpacing": [0.7, 0.5], "SpacingBetweenSlices": 2.5}
    array, meta = read_image(dicom_file(tmp_path / "a.dcm", volume, **tags, **place))
    assert np.array_equal(array, volume.transpose(2, 1, 0))
    assert np.array_equal(meta["affine"], np.diag([-0.5, -0.7, 2.5, 1])) and meta["spacing_known"]
    read_image(tmp_path / "a.dcm")
    assert caplog.text.count("frames without slice positions are read as a volume in the order of the file") == 1
    place["ImageOrientationPatient"] = [0, 1, 0, 0, 0, -1]  # rows run to the back, columns to the feet
    _, meta = read_image(dicom_file(tmp_path / "b.dcm", volume, **tags, **place))
    assert np.array_equal(meta["affine"], [[0, 0, 2.5, 0], [-0.5, 0, 0, 0], [0, -0.7, 0, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_frames_come_out_in_order(tmp_path, dicom_file, volume, syntax):
    path = dicom_file(tmp_path / "a.dcm", volume, NumberOfFrames=7)
    dicom = pydicom.dcmread(path)
    dicom.compress(syntax)
    dicom.save_as(path)
    assert np.array_equal(read_image(path)[0], volume.transpose(2, 1, 0))
    assert np.array_equal(read_image(path, frame=5)[0], volume[5].T)


def enhanced(positions, rescales=None, **tags) -> dict:
    """Functional groups as enhanced CT and MR have them: the geometry per frame, the rest shared."""
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.5], 5.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    frames = []
    for index, position in enumerate(positions):
        frame, plane, values = Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = list(position)
        values.RescaleSlope, values.RescaleIntercept = rescales[index] if rescales else (1, 0)
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [plane], [values]
        frames.append(frame)
    return {
        "NumberOfFrames": len(frames),
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": frames,
        **tags,
    }


def test_an_enhanced_object_is_sorted_and_rescaled_frame_by_frame(tmp_path, dicom_file, volume):
    heights = [5.0, 0.0, 10.0, 2.5, 7.5, 15.0, 12.5]
    rescales = [(1 + i / 2, -100 * i) for i in range(7)]
    groups = enhanced([(-30, 20, z) for z in heights], rescales)
    array, meta = read_image(dicom_file(tmp_path / "a.dcm", volume, **groups))
    real = (
        volume * np.array([s for s, _ in rescales])[:, None, None] + np.array([i for _, i in rescales])[:, None, None]
    )
    assert np.array_equal(array, real[np.argsort(heights)].transpose(2, 1, 0))
    assert np.allclose(meta["affine"], [[-0.5, 0, 0, 30], [0, -0.7, 0, -20], [0, 0, 2.5, 0], [0, 0, 0, 1]])
    assert meta["spacing_known"]
    assert [frame_in_file(tmp_path / "a.dcm", index) for index in range(7)] == np.argsort(heights).tolist()
    frame, meta = read_image(tmp_path / "a.dcm", frame=2)  # along the stack, as in the volume
    assert np.array_equal(frame, array[:, :, 2]) and np.array_equal(meta["affine"], np.diag([0.5, 0.7, 1, 1]))


def test_an_enhanced_object_that_is_no_volume_is_refused(tmp_path, dicom_file, volume):
    twice = enhanced([(0, 0, z) for z in (0, 1, 2, 0, 1, 2, 3)])
    path = dicom_file(tmp_path / "a.dcm", volume, **twice)
    refused(path, "a.dcm holds 7 frames at 4 positions")
    assert all(np.array_equal(read_image(path, frame=index)[0], volume[index].T) for index in range(7))
    gap = enhanced([(0, 0, z) for z in (0, 1, 2, 3, 4, 8, 9)])
    refused(dicom_file(tmp_path / "b.dcm", volume, **gap), "b.dcm", "3 slices are missing")
    cine = enhanced([(0, 0, 0)] * 7)
    first = cine["PerFrameFunctionalGroupsSequence"][0]
    cine["SharedFunctionalGroupsSequence"][0].PlanePositionSequence = first.PlanePositionSequence
    for frame in cine["PerFrameFunctionalGroupsSequence"]:
        del frame.PlanePositionSequence
    path = dicom_file(tmp_path / "c.dcm", volume, **cine)
    refused(path, "c.dcm", "all 7 images lie at one position, as in a time series")
    assert np.array_equal(read_image(path, frame=2)[0], volume[2].T)


def test_a_frame_has_the_pixel_spacing_of_its_own_group(tmp_path, dicom_file, volume):
    groups = enhanced([(0, 0, 5 * z) for z in range(7)])
    measures = groups["SharedFunctionalGroupsSequence"][0].pop("PixelMeasuresSequence").value
    for frame in groups["PerFrameFunctionalGroupsSequence"]:
        frame.PixelMeasuresSequence = measures
    path = dicom_file(tmp_path / "a.dcm", volume, **groups)
    _, meta = read_image(path, spatial_dims=2, frame=3)
    assert meta["spacing_known"] and np.array_equal(meta["affine"], np.diag([0.5, 0.7, 1, 1]))


# ---------------------------------------------------------------------------------------------------------- series


def itk_volume(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What SimpleITK reads: (X, Y, Z) values and the affine to RAS."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ((1, 0, 0), (0, 1, 0)),
        ((0, 1, 0), (0, 0, -1)),
        ((1, 0, 0), (0, 0, -1)),
        ((0.8, 0.6, 0), (0, 0, -1)),
    ],
    ids=["axial", "sagittal", "coronal", "oblique"],
)
def test_a_series_agrees_with_simpleitk(tmp_path, dicom_series, volume, rows, columns):
    folder = dicom_series(tmp_path / "s", volume, rows=rows, columns=columns, RescaleSlope=2, RescaleIntercept=-1024)
    array, meta = read_image(folder, spatial_dims=3)
    expected, affine = itk_volume(folder)
    assert array.dtype == np.float32 and np.array_equal(array, expected)
    assert np.allclose(meta["affine"], affine, atol=1e-5)
    assert meta["spacing_known"] and meta["spatial_shape"].tolist() == [48, 36, 7]


def test_each_slice_has_its_own_rescale(tmp_path, dicom_series, volume):
    folder = dicom_series(tmp_path / "s", volume)
    for path in folder.iterdir():
        dicom = pydicom.dcmread(path)
        dicom.RescaleSlope, dicom.RescaleIntercept = dicom.ImagePositionPatient[2], 0
        dicom.save_as(path)
    heights = 5.0 + 2.5 * np.arange(7)
    assert np.allclose(read_image(folder)[0], (volume * heights[:, None, None]).transpose(2, 1, 0))


def test_one_of_several_series_is_named_after_the_folder(tmp_path, dicom_series, volume):
    dicom_series(tmp_path / "s", volume)
    for path in list((tmp_path / "s").iterdir()):
        path.rename(path.with_name(f"first {path.name}"))
    dicom_series(tmp_path / "s", volume[::-1] + 1, SeriesInstanceUID="1.2.9")
    assert np.array_equal(read_image(f"{tmp_path}/s#1.2.3")[0], volume.transpose(2, 1, 0))
    assert np.array_equal(read_image(f"{tmp_path}/s#1.2.9")[0], volume[::-1].transpose(2, 1, 0) + 1)
    refused(tmp_path / "s", "found 2", f"{tmp_path}/s#1.2.")
    refused(f"{tmp_path}/s#1.2.4", "Expected a series 1.2.4", "1.2.9")


def test_a_series_in_a_2d_task_needs_a_slice(tmp_path, dicom_series, volume):
    folder = dicom_series(tmp_path / "s", volume)
    refused(folder, "7 frames or slices", str(folder), "--frame middle", spatial_dims=2)
    assert np.array_equal(read_image(folder, spatial_dims=2, frame=1)[0], volume[1].T)


def test_one_slice_is_an_image_and_no_volume(tmp_path, dicom_series, volume):
    folder = dicom_series(tmp_path / "s", volume[:1])
    assert np.array_equal(read_image(folder, spatial_dims=2)[0], volume[0].T)
    for image in (folder, folder / "000.dcm"):
        refused(image, "Expected a volume", "folder", str(image), spatial_dims=3)


def test_what_is_no_slice_does_not_disturb_a_series(tmp_path, dicom_series, dicom_file, volume, caplog):
    folder = dicom_series(tmp_path / "s", volume)
    (folder / ".DS_Store").write_bytes(b"\0" * 100)
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" * 100)
    (folder / "report.txt").write_text("normal")
    report = dicom_file(folder / "report.dcm", volume[0])
    dicom = pydicom.dcmread(report)
    del dicom.Rows, dicom.PixelData
    dicom.SOPClassUID = dicom.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    dicom.save_as(report)
    dicom_file(folder / "scout.dcm", volume[0], ImageOrientationPatient=[0, 1, 0, 0, 0, -1], InstanceNumber=0)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert np.array_equal(read_image(folder)[0], volume.transpose(2, 1, 0))
    told = [record.getMessage() for record in caplog.records if "localisers" in record.getMessage()]
    assert len(told) == 1 and str(folder) in told[0]


@pytest.mark.parametrize("name", ["000.dcm", "IM0001"])
def test_a_damaged_slice_is_an_error_and_not_left_out(tmp_path, dicom_series, volume, name):
    folder = dicom_series(tmp_path / "s", volume)
    (folder / "000.dcm").rename(folder / name)
    content = (folder / name).read_bytes()
    for broken in (b"", content[:140], content[:420], content[: len(content) // 2]):
        (folder / name).write_bytes(broken)
        refused(folder, name)
    (folder / "000.dcm").write_bytes(b"not DICOM")
    (folder / "IM0001").unlink(missing_ok=True)
    refused(folder, "000.dcm")


def test_an_empty_mark_beside_the_slices_is_passed_over(tmp_path, dicom_series, volume):
    folder = dicom_series(tmp_path / "s", volume)
    (folder / "COMPLETE").touch()
    assert np.array_equal(read_image(folder)[0], volume.transpose(2, 1, 0))
    (folder / "slice.dcm").touch()
    folder.touch()  # a file system may keep the time of a change by the tick
    refused(folder, "slice.dcm is empty")


def test_identical_images_of_one_position_are_read_once_and_different_ones_refused(tmp_path, dicom_series, volume):
    folder = dicom_series(tmp_path / "s", volume)
    path = folder / "003.dcm"
    dicom = pydicom.dcmread(path)
    dicom.SOPInstanceUID = dicom.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    dicom.save_as(folder / "again.dcm")
    assert np.array_equal(read_image(folder)[0], volume.transpose(2, 1, 0))
    dicom.PixelData = dicom.PixelData[::-1]
    dicom.save_as(folder / "again.dcm")
    refused(folder, "different images of one position", "003.dcm", "again.dcm", "time points")


@pytest.mark.parametrize("number", [None, 1])
def test_images_of_one_position_are_compared_where_their_instance_tells_nothing(tmp_path, dicom_series, volume, number):
    folder = tmp_path / "s"
    for part, stored in enumerate((volume, volume + 1)):  # two b values
        for path in dicom_series(tmp_path / "part", stored, SOPInstanceUID="1.2.3.4", InstanceNumber=number).iterdir():
            folder.mkdir(exist_ok=True)
            path.rename(folder / f"{part} {path.name}")
    refused(folder, "different images of one position", "time points")


def test_a_series_that_is_no_volume_is_refused_with_its_folder_and_remedy(tmp_path, dicom_series, volume):
    folder = dicom_series(tmp_path / "gap", volume)
    heights = {pydicom.dcmread(path).ImagePositionPatient[2]: path for path in folder.iterdir()}
    heights[10.0].unlink()
    refused(folder, str(folder), "1 slices are missing", "add what is missing")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, "found none in", str(empty))


def test_a_tilted_gantry_is_told_and_its_affine_sheared(tmp_path, dicom_series, volume, caplog):
    folder = dicom_series(tmp_path / "s", volume, step=(0, 0.5, 2.5))
    with caplog.at_level(logging.WARNING):
        array, meta = read_image(folder)
    assert np.array_equal(array, volume.transpose(2, 1, 0))
    assert np.allclose(meta["affine"][:3, 2], [0, -0.5, 2.5])
    assert "tilted by 11.3 degrees" in caplog.text


def test_colour_series_keep_their_channels_last(tmp_path, dicom_series):
    colours = np.random.default_rng(4).integers(0, 256, (4, 6, 5, 3)).astype(np.uint8)
    folder = dicom_series(tmp_path / "s", colours)
    array, meta = read_image(folder, spatial_dims=3)
    assert meta["original_channel_dim"] == -1 and np.array_equal(array, colours.transpose(2, 1, 0, 3))
    assert read_grey(folder).shape == (5, 6, 4)


def test_remarks_on_odd_values_come_once_per_kind(tmp_path, dicom_file, slice_, caplog):
    for index in range(5):
        path = dicom_file(tmp_path / f"{index}.dcm", slice_)
        raw = path.read_bytes().replace(b"1.2.3\0", b"1.02.3"[:6])
        path.write_bytes(raw)
        read_image(path)
    remarks = [record for record in caplog.records if record.name == "pydicom"]
    assert len(remarks) <= 1
