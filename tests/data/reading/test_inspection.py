# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from dual_skd.data.checking.outliers import find_oddities
from dual_skd.data.reading.inspection import REMEDIES, inspect, inspect_all, quick_facts, quick_facts_of_all

NOISE = np.random.default_rng(0).integers(1, 255, (40, 30), dtype=np.uint8)


def write_dicom(path: Path, pixels: np.ndarray = NOISE, **tags) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dicom = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dicom.SOPClassUID, dicom.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dicom.Modality, dicom.Manufacturer, dicom.InstitutionName = "CT", "ACME", "Clinic"
    dicom.SeriesInstanceUID, dicom.StudyInstanceUID, dicom.PatientID = "1.2.3", "1.2", "p"
    dicom.SamplesPerPixel, dicom.PhotometricInterpretation, dicom.PixelRepresentation = 1, "MONOCHROME2", 0
    dicom.Rows, dicom.Columns = pixels.shape
    dicom.BitsAllocated, dicom.BitsStored, dicom.HighBit, dicom.PixelSpacing = 8, 8, 7, [0.5, 0.25]
    for name, value in tags.items():
        setattr(dicom, name, value)
    dicom.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dicom.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, heights) -> Path:
    for index, height in enumerate(heights):
        write_dicom(
            folder / f"{index}.dcm",
            np.roll(NOISE, index),
            InstanceNumber=index,
            ImagePositionPatient=[0, 0, float(height)],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
    return folder


def write_png(path: Path, pixels: np.ndarray = NOISE) -> Path:
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def write_volume(path: Path, values: np.ndarray, affine=None) -> Path:
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine), path)
    return path


def test_facts_of_a_picture(tmp_path):
    pixels = np.full((40, 30), 10, dtype=np.uint8)
    pixels[:10], pixels[0, :6] = 50, 200
    facts = inspect(str(write_png(tmp_path / "a.png", pixels)))
    assert (facts.problem, facts.format, facts.mode, facts.bits, facts.shape) == ("", "PNG", "L", 8, (30, 40))
    assert (facts.minimum, facts.maximum) == (10, 200) and facts.jpeg_quality is None
    assert facts.mean == pytest.approx(pixels.mean()) and facts.std == pytest.approx(pixels.std())
    assert facts.commonest == 0.75 and facts.saturated == pytest.approx(6 / 1200)
    assert facts.spacing is None and len(facts.coarse) == 64


@pytest.mark.parametrize(("mode", "bits"), [("RGB", 8), ("RGBA", 8), ("I;16", 16)])
def test_the_mode_is_that_of_the_file(tmp_path, mode, bits):
    Image.fromarray(NOISE).convert(mode if bits == 8 else "I").convert(mode).save(tmp_path / "a.png")
    facts = inspect(str(tmp_path / "a.png"))
    assert (facts.problem, facts.mode, facts.bits) == ("", mode, bits)


def test_grey_stored_as_colour_has_the_same_values(tmp_path):
    grey = inspect(str(write_png(tmp_path / "grey.png")))
    colour = inspect(str(write_png(tmp_path / "colour.png", np.stack([NOISE] * 3, axis=-1))))
    assert colour.commonest == grey.commonest and colour.mean == pytest.approx(grey.mean)


def test_small_values_are_not_taken_for_whole_numbers(tmp_path):
    np.save(tmp_path / "adc.npy", (NOISE / 255 * 9e-4).astype(np.float32))
    assert inspect(str(tmp_path / "adc.npy")).commonest == inspect(str(write_png(tmp_path / "a.png"))).commonest < 0.1


def test_facts_of_a_dicom_file(tmp_path):
    facts = inspect(str(write_dicom(tmp_path / "a.dcm")))
    assert (facts.problem, facts.format, facts.mode, facts.bits) == ("", "DICOM", "MONOCHROME2", 8)
    assert (facts.modality, facts.manufacturer, facts.institution) == ("CT", "ACME", "Clinic")
    assert facts.shape == (30, 40) and facts.spacing == (0.25, 0.5)  # (W, H): columns are 0.25 mm apart
    assert facts.transfer_syntax == "1.2.840.10008.1.2.1"


def test_a_dicom_file_may_begin_like_a_tiff_file(tmp_path):
    path = write_dicom(tmp_path / "a.dcm")
    path.write_bytes(b"II*\0\x08\0\0\0".ljust(128, b"\0") + path.read_bytes()[128:])
    for facts in (quick_facts(str(path)), inspect(str(path))):
        assert (facts.problem, facts.format) == ("", "DICOM")


def test_facts_of_a_volume(tmp_path):
    values = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    facts = inspect(str(write_volume(tmp_path / "a.nii.gz", values)), 3)
    assert (facts.problem, facts.format, facts.mode, facts.bits) == ("", "NIfTI", "float32", 32)
    assert facts.shape == (5, 6, 7) and facts.spacing == (2, 3, 4) and facts.orientation == "RAS"


def test_facts_of_a_dicom_series_and_its_missing_slices(tmp_path):
    whole = inspect(str(write_series(tmp_path / "whole", [0, 2, 4, 6, 8])), 3)
    assert (whole.problem, whole.shape, whole.frames, whole.modality) == ("", (30, 40, 5), 5, "CT")
    assert whole.spacing == (0.25, 0.5, 2.0) and whole.series_problems == ()
    torn = inspect(str(write_series(tmp_path / "torn", [0, 2, 4, 8, 10, 12])), 3)
    assert torn.problem == "missing_slices" and "1 slices are missing" in torn.detail
    assert inspect(str(tmp_path / "whole") + "#1.2.3", 3).shape == (30, 40, 5)
    assert inspect(str(tmp_path / "whole") + "#1.2.99", 3).problem == "unreadable"


def test_the_aspect_of_a_volume_is_that_of_its_axial_planes_in_mm(tmp_path):
    values = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    sagittal = np.array([[0, 0, 4.0, 0], [2.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])  # back, up, right
    nib.save(nib.Nifti1Image(values, sagittal), tmp_path / "a.nii")
    assert inspect(str(tmp_path / "a.nii"), 3).aspect == pytest.approx(7 * 4 / (5 * 2))


def test_how_a_slice_lies_in_the_patient_is_a_fact_of_it(tmp_path):
    for orientation, codes in (([1, 0, 0, 0, 1, 0], "LP"), ([0, 1, 0, 0, 0, -1], "PI"), ([-1, 0, 0, 0, 1, 0], "RP")):
        path = write_dicom(tmp_path / "a.dcm", ImageOrientationPatient=orientation)
        assert inspect(str(path)).orientation == codes
    values = np.random.default_rng(0).normal(size=(1, 6, 7)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 3, 4, 1])), tmp_path / "b.nii")  # a sagittal slice
    facts = inspect(str(tmp_path / "b.nii"))
    assert facts.orientation == "AS" and facts.aspect == pytest.approx(6 * 3 / (7 * 4))


def test_facts_of_one_image_of_an_archive(tmp_path):
    images = np.stack([NOISE, NOISE[::-1], np.zeros_like(NOISE)])
    np.savez(tmp_path / "set.npz", train_images=images, train_labels=np.zeros((3, 1)))
    facts = inspect(f"{tmp_path}/set.npz#train/1")
    assert (facts.problem, facts.format, facts.mode, facts.bits) == ("", "NPZ", "uint8", 8)
    assert inspect(f"{tmp_path}/set.npz#train/2").problem == "constant"
    assert inspect(f"{tmp_path}/set.npz#train/3").problem == "unreadable"


def damaged(tmp_path: Path) -> dict[str, tuple[Path, int]]:
    """kind of problem -> (a file made for it, spatial_dims)."""
    png = write_png(tmp_path / "good.png").read_bytes()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "not_an_image.jpg").write_bytes(b"<!DOCTYPE html><html>404 not found</html>")
    (tmp_path / "truncated.png").write_bytes(png[:300])
    (tmp_path / "unreadable.png").write_bytes(png[:60] + bytes(200) + png[260:])
    (tmp_path / "program.dcm").write_bytes(b"MZ".ljust(128, b"\0") + b"DICM")
    holes = np.ones((4, 4, 4), np.float32)
    holes[0, 0, :2] = np.nan, np.inf
    return {
        "missing": (tmp_path / "missing.png", 2),
        "empty": (tmp_path / "empty.png", 2),
        "not_an_image": (tmp_path / "not_an_image.jpg", 2),
        "program": (tmp_path / "program.dcm", 2),
        "truncated": (tmp_path / "truncated.png", 2),
        "unreadable": (tmp_path / "unreadable.png", 2),
        "wrong_dims": (tmp_path / "good.png", 3),
        "missing_slices": (write_series(tmp_path / "series", [0, 1, 2, 3, 5, 6]), 3),
        "not_finite": (write_volume(tmp_path / "holes.nii", holes), 3),
        "constant": (write_png(tmp_path / "black.png", np.zeros((8, 8), np.uint8)), 2),
    }


@pytest.mark.parametrize("kind", REMEDIES)
def test_every_kind_of_problem_is_told_with_a_remedy(tmp_path, kind):
    path, spatial_dims = damaged(tmp_path)[kind]
    facts = inspect(str(path), spatial_dims)
    assert facts.problem == kind and facts.detail and facts.remedy
    assert str(tmp_path) not in facts.detail and "\n" not in facts.detail


def test_details_say_what_was_found(tmp_path):
    files = damaged(tmp_path)
    details = {kind: inspect(str(path), dims).detail for kind, (path, dims) in files.items()}
    assert details["not_an_image"] == "the content is a web page, which isn't read"
    assert details["not_finite"] == "2 of 64 values are NaN or infinite"
    assert details["constant"] == "every pixel has the value 0"
    assert "about 1 slices are missing" in details["missing_slices"]


def test_the_quick_look_names_only_problems_that_decoding_confirms(tmp_path):
    quick = {kind: quick_facts(str(path), dims).problem for kind, (path, dims) in damaged(tmp_path).items()}
    seen = {"missing", "empty", "not_an_image", "program", "truncated", "wrong_dims"}
    assert {kind for kind, problem in quick.items() if problem == kind} >= seen
    assert all(problem in ("", kind) for kind, problem in quick.items())
    # a JPEG with something behind its end is suspicious and good
    Image.fromarray(NOISE).save(tmp_path / "tail.jpg")
    (tmp_path / "tail.jpg").write_bytes((tmp_path / "tail.jpg").read_bytes() + bytes(5000))
    assert quick_facts(str(tmp_path / "tail.jpg")).problem == ""


def test_the_quick_look_sees_cut_dicom_and_volumes(tmp_path):
    dicom = write_dicom(tmp_path / "a.dcm")
    assert quick_facts(str(dicom)).problem == ""
    dicom.write_bytes(dicom.read_bytes()[:-200])
    assert quick_facts(str(dicom)).problem == "truncated"
    values = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    for name in ("a.nii", "a.nii.gz"):
        volume = write_volume(tmp_path / name, values)
        assert quick_facts(str(volume), 3).problem == ""
        assert quick_facts(str(volume), 2).problem == "wrong_dims"
        volume.write_bytes(volume.read_bytes()[:-1000])
        assert quick_facts(str(volume), 3).problem == "truncated", name
    series = write_series(tmp_path / "series", [0, 1, 2, 3])
    assert quick_facts(str(series), 3).problem == ""
    (series / "1.dcm").write_bytes((series / "1.dcm").read_bytes()[:-200])
    assert quick_facts(str(series), 3).problem == "truncated"


def test_a_dicom_file_named_png_is_found_by_the_quick_look_too(tmp_path):
    path = write_dicom(tmp_path / "a.png")
    assert quick_facts(str(path)).problem == inspect(str(path)).problem != ""


def test_an_archive_is_looked_at_once(tmp_path):
    np.savez(tmp_path / "set.npz", train_images=np.stack([NOISE] * 50))
    assert len(quick_facts_of_all([f"{tmp_path}/set.npz#train/{index}" for index in range(50)])) == 1


def test_all_images_come_back_in_order_and_once(tmp_path):
    paths = [str(write_png(tmp_path / f"{index}.png", np.roll(NOISE, index))) for index in range(5)]
    facts = inspect_all([*paths, paths[0]], workers=2)
    assert list(facts) == paths and all(one.image == path and not one.problem for path, one in facts.items())


def test_the_quick_look_takes_less_than_a_millisecond_a_file(tmp_path):
    path = str(write_png(tmp_path / "a.png"))
    start = time.perf_counter()
    for _ in range(200):
        quick_facts(path)
    assert time.perf_counter() - start < 0.2


@pytest.mark.filterwarnings("ignore")  # pydicom says what it stumbles over
def test_damaged_files_are_told_and_never_end_the_check(tmp_path):
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 99, (9, 9, 9)).astype(np.int16)
    files = [
        (write_png(tmp_path / "a.png"), 2),
        (write_dicom(tmp_path / "a.dcm"), 2),
        (write_volume(tmp_path / "a.nii", volume), 3),
        (write_volume(tmp_path / "a.nii.gz", volume), 3),
    ]
    for path, spatial_dims in files:
        good = path.read_bytes()
        for mutant in range(60):
            content = bytearray(good)
            for place in rng.integers(0, min(len(good), 400), 1 + mutant % 5):
                content[place] ^= 1 << int(rng.integers(0, 8))
            path.write_bytes(content[: rng.integers(0, len(good))] if mutant % 3 == 0 else content)
            quick, full = quick_facts(str(path), spatial_dims), inspect(str(path), spatial_dims)
            assert quick.problem in ("", full.problem) and (not full.problem or (full.detail and full.remedy))


def test_the_name_of_a_file_says_nothing_of_its_problem(tmp_path):
    path = write_dicom(tmp_path / "plan_truncated_incomplete.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.481.5")
    facts = inspect(str(path))
    assert facts.problem == "unreadable" and "RT Plan Storage" in facts.detail


def test_a_siemens_mosaic_is_a_finding(tmp_path):
    mosaic = write_dicom(tmp_path / "a.dcm", ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    facts = [inspect(str(mosaic)), inspect(str(write_dicom(tmp_path / "b.dcm")))]
    assert not facts[0].problem
    assert [(one.image, one.kind) for one in find_oddities(facts)] == [(str(mosaic), "mosaic")]


@pytest.mark.parametrize("quality", [25, 50, 75, 90, 95, 100])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_quality_of_a_jpeg_is_that_of_libjpeg(tmp_path, quality, mode):
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).resize((40, 40)).convert(mode)
    picture.save(tmp_path / "a.jpg", quality=quality)
    picture.save(tmp_path / "a.png")
    assert abs(inspect(str(tmp_path / "a.jpg")).jpeg_quality - quality) <= 1
    assert inspect(str(tmp_path / "a.png")).jpeg_quality is None


def test_the_unit_of_the_values_is_told(tmp_path):
    shot = {"SOPClassUID": SecondaryCaptureImageStorage}
    assert inspect(str(write_dicom(tmp_path / "ct.dcm", RescaleSlope=1, RescaleIntercept=-1024))).hounsfield
    assert inspect(str(write_dicom(tmp_path / "unstated.dcm"))).hounsfield is None
    assert not inspect(str(write_dicom(tmp_path / "shot.dcm", **shot))).hounsfield


def test_the_commonest_value_of_a_volume_is_looked_for_in_all_of_its_slices(tmp_path):
    volume = np.random.default_rng(0).normal(size=(64, 64, 64)).astype(np.float32)
    volume[..., 0] = 0.25  # of each slice in 64 all values: a quarter of every sixteenth value
    volume = np.tile(volume, (1, 1, 4))
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii")
    assert inspect(str(tmp_path / "a.nii"), 3).commonest == pytest.approx(1 / 64, rel=0.1)
