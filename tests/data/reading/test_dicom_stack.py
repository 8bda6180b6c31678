# SPDX-License-Identifier: Apache-2.0
"""Series whose slices are no even grid: several acquisitions, other distances, mosaics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from dual_skd.data.reading import dicom_pixels
from dual_skd.data.reading.dicom_header import ACQUISITION, Header
from dual_skd.data.reading.dicom_series import stack_of, volume_affine
from dual_skd.data.reading.reader import read_image
from dual_skd.data.records.image_files import find_image_files
from dual_skd.errors import InputError


def slices(heights, *, values=None, keyword="AcquisitionNumber", **same) -> list[Header]:
    """Headers at heights, with values of one of the keywords that tell acquisitions apart."""
    headers = []
    for index, height in enumerate(heights):
        acquisition = tuple(str(values[index]) if values and name == keyword else "" for name in ACQUISITION)
        place = {"position": (0.0, 0.0, float(height)), "orientation": (1.0, 0, 0, 0, 1, 0)}
        known = {"rows": 6, "columns": 4, "pixel_spacing": (0.7, 0.5), "acquisition": acquisition}
        headers.append(Header(f"{index}.dcm", series="1.2", instance=f"9.{index}", **{**known, **place, **same}))
    return headers


# ---------------------------------------------------------------------------------------------------- acquisitions


@pytest.mark.parametrize(
    "keyword", ["AcquisitionNumber", "EchoTime", "TemporalPositionIdentifier", "ConvolutionKernel"]
)
def test_two_acquisitions_with_slices_between_each_other_are_no_volume(keyword):
    heights, values = [0, 5, 10, 15, 2.5, 7.5, 12.5, 17.5], [1, 1, 1, 1, 2, 2, 2, 2]
    series = stack_of(slices(heights, values=values, keyword=keyword))
    assert f"({keyword} 1 and 2)" in series.refusal and series.remedy == "split it into one series per stack"


def test_stripes_of_two_acquisitions_are_refused_by_their_folder(tmp_path, dicom_series):
    for number, origin in ((1, 0.0), (2, 2.5)):
        volume = np.full((5, 6, 4), 900 * number, np.int16) + np.arange(24, dtype=np.int16).reshape(6, 4)
        dicom_series(tmp_path / str(number), volume, origin=(0, 0, origin), step=(0, 0, 5), AcquisitionNumber=number)
        for path in (tmp_path / str(number)).iterdir():
            (tmp_path / "s").mkdir(exist_ok=True)
            path.rename(tmp_path / "s" / f"{number} {path.name}")
    with pytest.raises(InputError, match="acquisitions lie between each other .AcquisitionNumber 1 and 2.*split it"):
        read_image(tmp_path / "s", spatial_dims=3)


@pytest.mark.parametrize(
    "values",
    [
        [1, 1, 1, 1, 2, 2, 2, 2],  # blocks that follow each other
        [1, 2, 3, 4, 5, 6, 7, 8],  # one per slice
        [1, 1, 2, 2, 3, 3, 4, 4],
        [1, 1, 1, 2, 1, 1, 1, 1],  # one slice was taken again
        [1, 1, 2, 1, 1, 1, 2, 1],
    ],
)
def test_acquisitions_that_make_one_stack_stay_one(values):
    series = stack_of(slices(2.5 * np.arange(8), values=values))
    assert series.refusal == "" and series.problems == () and len(series.headers) == 8


def test_passes_whose_common_distance_is_the_stated_one_stay_one():
    values = [1, 2] * 4
    assert stack_of(slices(2.5 * np.arange(8), values=values, slice_spacing=2.5)).refusal == ""
    assert stack_of(slices(2.5 * np.arange(8), values=values, slice_spacing=5.0)).refusal != ""


@pytest.mark.parametrize(
    ("keyword", "values"),
    [("AcquisitionNumber", [1, 2]), ("ImageType", ["['M', 'ND']", "['M', 'NORM']"]), ("EchoTime", ["2.4", "2.5"])],
)
def test_without_a_stated_distance_the_thickness_tells_passes_from_overlapping_stacks(keyword, values):
    heights = 5.0 * np.arange(8)
    for thickness in (4.0, 5.0, 5.4):
        one = stack_of(slices(heights, values=values * 4, keyword=keyword, slice_thickness=thickness))
        assert (one.refusal, one.problems, len(one.headers)) == ("", (), 8)
    for thickness in (10.0, 1.0, None):  # overlapping, or sparse samples of which nothing tells
        assert (
            keyword in stack_of(slices(heights, values=values * 4, keyword=keyword, slice_thickness=thickness)).refusal
        )
    assert stack_of(slices(heights / 2, values=values * 4, keyword=keyword, slice_thickness=5.0)).refusal
    several = {"slice_spacing": 10.0, "slice_thickness": 5.0}  # which counts more
    assert stack_of(slices(heights, values=values * 4, keyword=keyword, **several)).refusal


@pytest.mark.parametrize(
    ("keyword", "values"),
    [("EchoTime", ["2.46", "2.460"]), ("KVP", ["120", "120.0"]), ("InversionTime", ["9e2", "900"])],
)
def test_one_number_written_in_two_ways_is_one_acquisition(keyword, values):
    assert stack_of(slices(5.0 * np.arange(8), values=values * 4, keyword=keyword)).refusal == ""
    assert keyword in stack_of(slices(5.0 * np.arange(8), values=[values[0], "77"] * 4, keyword=keyword)).refusal


def test_uids_are_no_numbers():
    series = stack_of(slices(5.0 * np.arange(8), values=["1.2", "1.20"] * 4, keyword="FrameOfReferenceUID"))
    assert "(FrameOfReferenceUID 1.2 and 1.20)" in series.refusal


def test_two_passes_on_disk_are_the_volume_that_simpleitk_reads(tmp_path):
    dicom = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
    dicom.ImageOrientationPatient, dicom.SliceThickness = [1, 0, 0, 0, 1, 0], 5
    dicom.pop("SpacingBetweenSlices", None)
    for index in range(8):
        dicom.SOPInstanceUID = dicom.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dicom.AcquisitionNumber, dicom.EchoTime = 1 + index % 2, ["2.46", "2.460"][index % 2]
        dicom.InstanceNumber, dicom.ImagePositionPatient = index + 1, [0, 0, 5.0 * index]
        dicom.PixelData = (dicom.pixel_array * 0 + index).astype(np.int16).tobytes()
        dicom.save_as(tmp_path / f"{index}.dcm")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    whole = sitk.ReadImage(names)
    array, meta = read_image(tmp_path, spatial_dims=3)
    assert np.array_equal(array.T, sitk.GetArrayFromImage(whole)) and meta["affine"][2, 2] == whole.GetSpacing()[2] == 5


def test_two_echoes_at_the_same_positions_are_left_to_the_comparison_of_their_pixels():
    series = stack_of(slices([0, 5, 10, 0, 5, 10], values=[1, 1, 1, 2, 2, 2], keyword="EchoTime"))
    assert series.refusal == "" and series.problems == ("3 of 6 images lie at the position of another one",)


# ----------------------------------------------------------------------------------------------------- differences


@pytest.mark.parametrize(
    ("tag", "word"),
    [
        ("PatientID", "2 patients"),
        ("StudyInstanceUID", "2 examinations"),
        ("FrameOfReferenceUID", "2 frames of reference"),
    ],
)
@pytest.mark.parametrize("run", [1, 10])
def test_a_volume_is_of_one_patient_examination_and_frame_of_reference(tmp_path, dicom_file, tag, word, run):
    values, positions = ("1.2.1", "1.2.2"), {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    for index in range(20):
        stated = {tag: values[index // run % 2], "ImagePositionPatient": [0, 0, 5 * index], "SliceThickness": 5}
        dicom_file(tmp_path / "s" / f"{index}.dcm", np.full((8, 8), index, np.int16), **positions, **stated)
    assert {str(pydicom.dcmread(path)[tag].value) for path in (tmp_path / "s").iterdir()} == set(values)
    with pytest.raises(InputError, match=rf"does not make a volume: its slices are of {word}.*one series for each"):
        read_image(tmp_path / "s", spatial_dims=3)


@pytest.mark.parametrize(
    ("usual", "odd", "word"),
    [
        ({"Modality": "MR"}, {"PhotometricInterpretation": "MONOCHROME1"}, "2 kinds of grey"),
        ({"RescaleIntercept": -1024}, {"RescaleType": "ED"}, "2 units"),
        ({"RescaleIntercept": -1024}, {"RescaleIntercept": None}, "2 units"),
        ({"Modality": "MR"}, {"Modality": "PT"}, "2 modalities"),
    ],
)
@pytest.mark.parametrize("place", [0, 5])
def test_a_slice_whose_values_mean_something_else_is_no_part_of_a_volume(tmp_path, dicom_file, usual, odd, word, place):
    for index in range(8):
        tags = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 5 * index], **usual}
        tags |= odd if index == place else {}
        dicom_file(tmp_path / "s" / f"{index}.dcm", np.full((8, 8), 100 + index, np.int16), **tags)
    with pytest.raises(InputError, match=f"does not make a volume: its slices are of {word}"):
        read_image(tmp_path / "s", spatial_dims=3)


def test_ct_in_hounsfield_units_and_one_modality_in_two_spellings_are_one_volume(tmp_path, dicom_file):
    for index in range(8):
        tags = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 5 * index]}
        tags |= {"PhotometricInterpretation": f"MONOCHROME{1 + index % 2}", "Modality": ["ct", "CT"][index % 2]}
        tags["RescaleIntercept"] = -1024
        dicom_file(tmp_path / "s" / f"{index}.dcm", np.full((8, 8), 100 + index, np.int16), **tags)
    array, meta = read_image(tmp_path / "s", spatial_dims=3)
    stored = [pydicom.dcmread(tmp_path / "s" / f"{index}.dcm").pixel_array - 1024.0 for index in range(8)]
    assert np.array_equal(array.T, stored) and meta["modality"] == "CT"


def test_what_some_slices_do_not_state_is_no_difference():
    one, *others = slices(5.0 * np.arange(8), patient="p", study="1.5")
    assert stack_of([replace(one, patient="", study=""), *others]).refusal == ""


# ------------------------------------------------------------------------------------------------------- distances


@pytest.mark.parametrize(
    ("thin", "thick", "low", "high"), [(14, 14, 4, 7), (12, 14, 4, 7), (14, 6, 4, 7), (30, 32, 1, 5), (9, 9, 2, 2.8)]
)
def test_distances_that_change_are_refused_by_what_an_even_grid_would_misplace(thin, thick, low, high):
    heights = np.cumsum([0, *[low] * (thin - 1), *[high] * thick])
    series = stack_of(slices(heights))
    affine, _ = volume_affine(series.headers)
    astray = max(abs(affine[2, 2] * index - header.position[2]) for index, header in enumerate(series.headers))
    assert f"change from {low:g} to {high:g} mm" in series.refusal and f"by up to {astray:.1f} mm" in series.refusal
    assert "resample it to even distances" in series.remedy


def test_a_thickness_that_changes_with_the_distance_is_told_from_missing_slices():
    headers = slices([0, 4, 8, 12, 16, 23, 30])
    assert stack_of(headers).refusal.startswith("about 2 slices are missing")
    headers = [replace(one, slice_thickness=7.0 if index > 4 else 4.0) for index, one in enumerate(headers)]
    assert stack_of(headers).refusal.startswith("slice distances change from 4 to 7 mm")


def test_what_is_less_than_half_a_step_astray_is_told():
    series = stack_of(slices([0, 2.5, 5.8, 7.5, 10]))
    assert (series.refusal, series.problems) == ("", ("slice distances are uneven (1.7 to 3.3 mm)",))


def test_missing_slices_keep_their_own_remedy():
    series = stack_of(slices([0, 1, 2, 3, 6, 7, 8]))
    assert series.refusal == "about 2 slices are missing (gap of 3 mm, usually 1 mm)"
    assert series.remedy == "add what is missing"


def test_a_series_of_two_distances_on_disk_is_refused_with_the_remedy(tmp_path):
    dicom = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dicom.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    for index, height in enumerate(np.cumsum([0, *[4] * 11, *[7] * 14])):
        dicom.SOPInstanceUID = dicom.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dicom.InstanceNumber, dicom.ImagePositionPatient = index + 1, [0, 0, float(height)]
        dicom.save_as(tmp_path / f"{index:03d}.dcm")
    with pytest.raises(InputError, match="from 4 to 7 mm.*up to .* mm; split it into one series per distance or resam"):
        read_image(tmp_path, spatial_dims=3)


# --------------------------------------------------------------------------------------------------------- mosaics


def test_mosaics_are_named_in_3d_and_told_once_in_2d(tmp_path, dicom_file, caplog):
    stored = np.arange(64, dtype=np.uint16).reshape(8, 8)
    tags = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "Modality": "MR"}
    paths = [dicom_file(tmp_path / "s" / f"{index}.dcm", stored, InstanceNumber=index, **tags) for index in range(2)]
    dicom_pixels._warn_once.cache_clear()
    for path in paths:
        assert np.array_equal(read_image(path, spatial_dims=2)[0], stored.T)
        with pytest.raises(InputError, match=rf"{path.name}.*Siemens mosaic.*dcm2niix"):
            read_image(path, spatial_dims=3)
    assert caplog.text.count("Siemens mosaic") == 1
    with pytest.raises(InputError, match="Siemens mosaic.*dcm2niix"):
        read_image(tmp_path / "s", spatial_dims=3)
    paths[1].unlink()
    assert [image.image for image in find_image_files(tmp_path, 3).images] == [str(tmp_path / "s")]
    with pytest.raises(InputError, match="Siemens mosaic"):
        read_image(tmp_path / "s", spatial_dims=3)


def test_a_series_with_one_slice_in_two_is_told_by_its_stated_distance_and_numbers():
    def told(step: int, stated: float) -> tuple[str, ...]:
        headers = slices(range(0, 60, 10), slice_spacing=stated)
        numbered = [replace(header, instance_number=1 + step * place) for place, header in enumerate(headers)]
        series = stack_of(numbered)
        assert series.refusal == ""
        return series.problems

    assert told(2, 5.0) == ("one slice in 2 is there: they lie 10 mm apart, the header states 5 mm",)
    assert told(1, 5.0) == told(2, 10.0) == told(3, 5.0) == told(2, 4.0) == ()
