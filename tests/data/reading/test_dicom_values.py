# SPDX-License-Identifier: Apache-2.0
"""Which bits, colours, tables and windows of a DICOM file count, against pydicom, SimpleITK and Pillow."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import refused
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.pixels import apply_voi_lut, pixel_array
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dual_skd.data.reading import dicom_decoders
from dual_skd.data.reading.reader import read_image

TEXT = np.zeros((36, 48), bool)
TEXT[10:14, 8:40] = True


def twelve_bits(signed: bool) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 4096, (36, 48))
    return (values - 2048).astype(np.int16) if signed else values.astype(np.uint16)


# -------------------------------------------------------------------------------------------------------------- bits


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("signed", [False, True])
def test_an_overlay_in_unused_bits_does_not_count_after_any_codec(tmp_path, dicom_file, syntax, signed):
    values = twelve_bits(signed)
    stored = (values & 0x0FFF) | (TEXT.astype(values.dtype) << 12)  # and without the bits of the sign
    path = dicom_file(tmp_path / "a.dcm", stored)
    dicom = pydicom.dcmread(path)
    if syntax != ExplicitVRLittleEndian:
        dicom.compress(syntax)
    dicom.BitsStored, dicom.HighBit = 12, 11
    dicom.save_as(path)
    assert np.array_equal(read_image(path)[0].T, values)
    if syntax != JPEG2000Lossless:  # GDCM doesn't mask it either
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(path, imageIO="GDCMImageIO"))[0], values)


def test_what_a_lossy_code_adds_beyond_the_brightest_value_does_not_wrap(tmp_path, dicom_file):
    values = twelve_bits(False) // 8 * 8
    values[:, ::3] = 4095
    path = dicom_file(tmp_path / "a.dcm", values)
    dicom = pydicom.dcmread(path)
    dicom.compress(JPEGLSNearLossless, jls_error=4)
    dicom.BitsStored, dicom.HighBit = 12, 11
    dicom.save_as(path)
    assert dicom.pixel_array.max() > 4095
    assert np.abs(read_image(path)[0].T - values).max() <= 4


@pytest.mark.parametrize("signed", [False, True])
def test_values_in_the_upper_bits_of_a_word_are_shifted(tmp_path, dicom_file, signed):
    values = twelve_bits(signed)
    tags = {"BitsStored": 12, "HighBit": 15}
    assert np.array_equal(read_image(dicom_file(tmp_path / "upper.dcm", values << 4, **tags))[0].T, values)
    # a HighBit that nothing agrees with is an error of the header
    assert np.array_equal(read_image(dicom_file(tmp_path / "lower.dcm", values, **tags))[0].T, values)
    refused(dicom_file(tmp_path / "both.dcm", (values << 4) + 1, **tags), "both.dcm", "bit 15", "correct BitsStored")


def test_a_high_bit_below_the_stored_ones_is_refused_where_it_makes_a_difference(tmp_path, dicom_file):
    values = twelve_bits(False)
    assert np.array_equal(read_image(dicom_file(tmp_path / "a.dcm", values, HighBit=11))[0].T, values)
    values[3, 4] = 5000
    refused(dicom_file(tmp_path / "b.dcm", values, HighBit=11), "b.dcm", "16 bits", "bit 11")


# ------------------------------------------------------------------------------------------------------------ colour


def jpeg(case: str) -> bytes:
    """A JPEG picture as some devices write it, with other markers and component ids than Pillow writes."""
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    picture = Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    kind, adobe, ids = CASES[case]
    picture.save(buffer, "JPEG", quality=95, **({"keep_rgb": True} if kind == "RGB" else {"subsampling": kind}))
    data = buffer.getvalue()
    out, at = data[:2], 2
    if adobe is not None:
        out += b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([adobe])
    while True:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big") + 2
        segment = bytearray(data[at : at + length])
        for component, identity in enumerate(ids or ()):
            if marker == 0xC0:  # start of frame
                segment[10 + 3 * component] = identity
            if marker == 0xDA:  # start of scan
                segment[5 + 2 * component] = identity
        if marker not in (0xE0, 0xEE):  # JFIF, Adobe
            out += segment
        at += length
        if marker == 0xDA:
            return out + data[at:]


# kind -> (RGB, or how chroma is subsampled, transform of Adobe's marker, component ids)
CASES = {
    "ids 1, 2, 3": (0, None, None),
    "subsampled": (2, None, None),
    "subsampled, other ids": (2, None, (0, 1, 2)),
    "Adobe YCbCr": (0, 1, None),
    "Adobe RGB": ("RGB", 0, (1, 2, 3)),
    "ids R, G, B": ("RGB", None, None),
}


def write_jpeg(path: Path, dicom_file, data: bytes, photometric: str) -> Path:
    dicom_file(path, np.zeros((48, 64, 3), np.uint8), PhotometricInterpretation=photometric)
    dicom = pydicom.dcmread(path)
    dicom.PixelData = encapsulate([data])
    dicom["PixelData"].is_undefined_length = True
    dicom.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dicom.save_as(path)
    return path


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL_422", "YBR_FULL"])
def test_the_colours_of_a_jpeg_image_are_those_that_pillow_sees(tmp_path, dicom_file, case, photometric):
    path = write_jpeg(tmp_path / "a.dcm", dicom_file, jpeg(case), photometric)
    expected = np.asarray(Image.open(io.BytesIO(jpeg(case))).convert("RGB")).astype(float)
    assert np.abs(read_image(path)[0].swapaxes(0, 1) - expected).max() <= 1


def test_where_a_jpeg_image_says_nothing_of_its_colours_the_header_holds(tmp_path, dicom_file, monkeypatch):
    monkeypatch.setitem(CASES, "nothing", ("RGB", None, (0, 1, 2)))
    path = write_jpeg(tmp_path / "a.dcm", dicom_file, jpeg("nothing"), "RGB")
    expected = np.asarray(Image.open(io.BytesIO(jpeg("ids R, G, B"))))
    assert np.array_equal(read_image(path)[0].swapaxes(0, 1), expected)


@pytest.mark.parametrize(("written", "meant"), [("monochrome2", "MONOCHROME2"), ("Monochrome1 ", "MONOCHROME1")])
def test_small_letters_of_a_photometric_interpretation_do_not_matter(tmp_path, dicom_file, written, meant):
    tags = {"WindowCenter": 2000, "WindowWidth": 1000, "Modality": "DX"}
    path = dicom_file(tmp_path / "a.dcm", twelve_bits(False), PhotometricInterpretation=written, **tags)
    other = dicom_file(tmp_path / "b.dcm", twelve_bits(False), PhotometricInterpretation=meant, **tags)
    for voi_lut in (False, True):
        (array, meta), (expected, _) = read_image(path, voi_lut=voi_lut), read_image(other, voi_lut=voi_lut)
        assert np.array_equal(array, expected) and meta["00280004"] == meant


def test_an_empty_photometric_interpretation_has_a_remedy(tmp_path, dicom_file):
    path = dicom_file(tmp_path / "a.dcm", twelve_bits(False), PhotometricInterpretation="")
    refused(path, "PhotometricInterpretation '' in", "a.dcm; set it to MONOCHROME2")


@pytest.mark.parametrize(
    ("shape", "photometric"),
    [((6, 4), "RGB"), ((6, 4), "YBR_FULL"), ((6, 4, 3), "MONOCHROME2"), ((6, 4, 3), "PALETTE COLOR")],
)
@pytest.mark.parametrize("dims", [None, 2, 3])
def test_samples_that_contradict_the_colours_are_named(tmp_path, dicom_file, shape, photometric, dims):
    path = dicom_file(tmp_path / "a.dcm", np.zeros(shape, np.uint8), PhotometricInterpretation=photometric)
    dicom = pydicom.dcmread(path)
    assert pixel_array(path, raw=True).shape == shape  # which pydicom decodes without a word
    words = f"of a {photometric} image", f"found SamplesPerPixel {dicom.SamplesPerPixel}", "a.dcm", "contradicts itself"
    refused(path, *words, spatial_dims=dims)


def test_every_frame_of_a_big_endian_file_has_the_palette_of_the_file(tmp_path, dicom_file):
    stored = np.tile(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), (3, 1, 1))
    tables = {}
    for colour in ("Red", "Green", "Blue"):
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tables[f"{colour}PaletteColorLookupTableData"] = (np.arange(256) * 256).astype(">u2").tobytes()
    tags = {"NumberOfFrames": 3, "PhotometricInterpretation": "PALETTE COLOR", **tables}
    path = dicom_file(tmp_path / "a.dcm", stored, syntax=ExplicitVRBigEndian, **tags)
    dicom = pydicom.dcmread(path)
    dicom["PixelData"].VR = "OB"
    dicom.save_as(path)
    volume = read_image(path, spatial_dims=3)[0]
    for frame in range(3):
        assert np.array_equal(volume[:, :, frame, 0], stored[0].T * 256.0)
        assert np.array_equal(read_image(path, spatial_dims=2, frame=frame)[0], volume[:, :, frame])


# ----------------------------------------------------------------------------------------------- tables and windows


def placeholder(*keywords: str) -> Dataset:
    dataset = Dataset()
    for keyword in keywords:
        dataset.add_new(keyword, "US", None)
    return dataset


@pytest.mark.parametrize("keywords", [("LUTDescriptor", "LUTData"), ("LUTData",), ()])
@pytest.mark.parametrize("tags", [{}, {"RescaleSlope": 2, "RescaleIntercept": -5}])
def test_an_item_without_a_table_counts_as_none(tmp_path, dicom_file, keywords, tags):
    values = twelve_bits(False)
    path = dicom_file(tmp_path / "a.dcm", values, ModalityLUTSequence=[placeholder(*keywords)], **tags)
    expected = values * float(tags.get("RescaleSlope", 1)) + tags.get("RescaleIntercept", 0)
    assert np.array_equal(read_image(path)[0].T, expected)
    window = {"WindowCenter": 900, "WindowWidth": 1500, "BitsStored": 12, "HighBit": 11}
    path = dicom_file(tmp_path / "b.dcm", values, VOILUTSequence=[placeholder(*keywords)], **window)
    dicom = pydicom.dcmread(path)
    del dicom.VOILUTSequence
    assert np.allclose(read_image(path, voi_lut=True)[0].T, apply_voi_lut(values, dicom))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"WindowWidth": 0}, "is 0 wide"),
        ({"WindowWidth": -400}, "is -400 wide"),
        ({"WindowWidth": 0.5}, "is 0.5 wide"),
        ({"WindowWidth": "wide"}, "is no number"),
        ({"WindowWidth": 400, "VOILUTFunction": "GAMMA"}, "unknown function GAMMA"),
        ({"WindowWidth": ""}, "no window to apply;"),
    ],
)
def test_a_window_that_can_not_be_applied_leaves_the_file_good(tmp_path, dicom_file, monkeypatch, tags, words):
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    path = dicom_file(tmp_path / "a.dcm", twelve_bits(False), WindowCenter=40)
    dicom = pydicom.dcmread(path)
    for keyword, value in tags.items():
        dicom.add_new(keyword, "LO" if value == "wide" else pydicom.datadict.dictionary_VR(keyword), value)
    if tags["WindowWidth"] == "wide":  # as text under the VR of a number
        dicom.save_as(path)
        path.write_bytes(path.read_bytes().replace(b"\x28\0\x51\x10LO", b"\x28\0\x51\x10DS"))
    else:
        dicom.save_as(path)
    message = refused(path, "a.dcm", words, "voi_lut false", voi_lut=True)
    assert "damaged" not in message
    assert np.array_equal(read_image(path)[0].T, twelve_bits(False))


def test_a_narrow_window_of_another_function_than_the_linear_one_is_applied(tmp_path, dicom_file):
    tags = {"WindowCenter": 900, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT", "BitsStored": 12, "HighBit": 11}
    path = dicom_file(tmp_path / "a.dcm", twelve_bits(False), **tags)
    expected = apply_voi_lut(twelve_bits(False), pydicom.dcmread(path))
    assert np.allclose(read_image(path, voi_lut=True)[0].T, expected)


# ---------------------------------------------------------------------------------------------------------- decoders


def test_what_one_decoder_can_not_decode_is_left_to_the_next(tmp_path, dicom_file, monkeypatch, caplog):
    frames = np.random.default_rng(1).integers(0, 4096, (3, 36, 48)).astype(np.uint16)
    path = dicom_file(tmp_path / "a.dcm", frames, NumberOfFrames=3)
    dicom = pydicom.dcmread(path)
    dicom.compress(JPEGLSLossless)
    dicom.save_as(path)
    decoder = pydicom.pixels.get_decoder(JPEGLSLossless)
    assert set(decoder.available_plugins) >= {"pyjpegls", "simpleitk"}
    decode, calls = decoder._available["pyjpegls"], []

    def choosy(src, runner):
        calls.append(len(src))
        if len(calls) == 2:
            raise RuntimeError("Invalid JPEG-LS stream")
        return decode(src, runner)

    monkeypatch.setitem(decoder._available, "pyjpegls", choosy)
    assert np.array_equal(read_image(path, spatial_dims=3)[0], frames.transpose(2, 1, 0))
    assert len(calls) == 2 and not caplog.records  # the second frame and those after it by SimpleITK
    monkeypatch.setitem(decoder._available, "simpleitk", lambda src, runner: 1 / 0)
    calls.clear()
    refused(path, "a.dcm", "damaged", "Invalid JPEG-LS stream", spatial_dims=3)


@pytest.mark.parametrize("signed", [False, True])
def test_jpeg_ls_is_decoded_by_simpleitk_alone(tmp_path, dicom_file, monkeypatch, signed):
    path = dicom_file(tmp_path / "a.dcm", twelve_bits(signed))
    dicom = pydicom.dcmread(path)
    dicom.compress(JPEGLSLossless)
    dicom.save_as(path)
    monkeypatch.setattr(dicom_decoders, "DECODERS", ("simpleitk",))
    assert np.array_equal(read_image(path)[0].T, twelve_bits(signed))


def test_the_table_of_compressions_says_which_are_read_without_the_extra():
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    rows = [row for row in page.split("### Compressed DICOM")[1].split("\n## ")[0].splitlines() if row[:1] == "|"]
    told = {}
    for row in rows:
        for end in re.findall(r"\.1\.2((?:\.\d+)*)(?=[, ])", row.replace("1.2.840.10008.1.2,", ".1.2,")):
            told[f"1.2.840.10008.1.2{end}"] = "extra" if "the extra (" in row else "plain"
    found = {}
    for syntax in pydicom.uid.AllTransferSyntaxes:
        try:
            decoder = pydicom.pixels.get_decoder(syntax)
        except NotImplementedError:
            continue
        plugins = {*decoder.available_plugins} & {*dicom_decoders.DECODERS}
        found[str(syntax)] = "plain" if decoder.is_native or plugins - {*dicom_decoders.OF_EXTRA} else "extra"
    assert told == found


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_what_no_decoder_reads_is_said_in_a_sentence_without_places_of_other_machines(tmp_path, syntax):
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "whole.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(twelve_bits(False)))
    dicom = pydicom.dcmread(tmp_path / "whole.dcm")
    dicom.file_meta.TransferSyntaxUID = syntax
    dicom.save_as(tmp_path / "whole.dcm")
    assert np.array_equal(read_image(tmp_path / "whole.dcm")[0].T, twelve_bits(False))
    *_, stream = generate_fragments(dicom.PixelData)
    dicom.PixelData = encapsulate([stream[:40] + b"\xff\xd8" * 40])
    dicom.save_as(tmp_path / "a.dcm")
    message = refused(tmp_path / "a.dcm", "can't be decoded: its JPEG Lossless, ", "(simpleitk: Failed to ")
    assert message.endswith("); copy the file again, or export it uncompressed.")
    assert "/" not in message.replace(str(tmp_path / "a.dcm"), "") and "ITK ERROR" not in message


def test_a_syntax_that_pydicom_does_not_know_is_named(tmp_path):
    raw = Path(get_testdata_file("CT_small.dcm")).read_bytes()
    jpeg_xl = b"1.2.840.10008.1.2.4.111\0"
    path = tmp_path / "a.dcm"
    path.write_bytes(raw.replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x18\0" + jpeg_xl))
    message = refused(path, "a.dcm is compressed as 1.2.840.10008.1.2.4.111", "convert it")
    assert "damaged" not in message


# ------------------------------------------------------------------------------------------------------------ aspect


def test_pixels_that_are_not_square_are_told_by_the_affine(tmp_path, dicom_file):
    _, meta = read_image(dicom_file(tmp_path / "a.dcm", twelve_bits(False), PixelAspectRatio=[4, 3]))
    assert np.allclose(meta["affine"], np.diag([1, 4 / 3, 1, 1])) and not meta["spacing_known"]
    spaced = dicom_file(tmp_path / "b.dcm", twelve_bits(False), PixelAspectRatio=[4, 3], PixelSpacing=[0.7, 0.5])
    _, meta = read_image(spaced)
    assert np.array_equal(meta["affine"], np.diag([0.5, 0.7, 1, 1])) and meta["spacing_known"]
    bad = dicom_file(tmp_path / "c.dcm", twelve_bits(False), PixelAspectRatio=[0, 3])
    assert np.array_equal(read_image(bad)[1]["affine"], np.eye(4))
