# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_files import write_ct, write_dicom, write_picture, write_series
from PIL import Image
from pydicom.pixels import apply_modality_lut
from pydicom.uid import SecondaryCaptureImageStorage

from dual_skd.data.reading.dicom_header import plane_of
from dual_skd.data.reading.facts import (
    MAX_SAMPLE_SIZE,
    SAMPLE_SIZE,
    ImageFacts,
    facts_in,
    facts_of,
    in_colour,
    look_at_sample,
    spread,
)
from dual_skd.data.reading.reader import channels_first, hounsfield_of, image_from_array, read_image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 255, (6, 4), dtype=np.uint8)  # rows, columns
AIR = np.array([[-1000.0, 0.0, 40.0], [40.0, 1000.0, 0.0]])
CORONAL = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}


def png(path: Path, values: np.ndarray = GREY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def nifti(path: Path, values: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda p: png(p / "a.png"), {"format": "PNG", "size": (4, 6)}),
        (
            lambda p: write_ct(p / "a.dcm", AIR, BodyPartExamined="Chest", **CORONAL),
            {"format": "DICOM", "modality": "CT", "body_part": "CHEST", "hounsfield": True, "plane": "coronal",
             "size": (3, 2)},
        ),
        (
            lambda p: write_dicom(p / "screenshot", GREY, SOPClassUID=SecondaryCaptureImageStorage),
            {"format": "DICOM", "modality": "CT", "size": (4, 6)},
        ),
        (
            lambda p: write_picture(p / "colour.dcm", RNG.integers(0, 255, (6, 4, 3)), Modality="US"),
            {"format": "DICOM", "modality": "US", "colour": True, "size": (4, 6)},
        ),
        (lambda p: nifti(p / "ct.nii", np.float32(AIR)), {"format": "NIfTI", "hounsfield": True, "size": (2, 3)}),
        (lambda p: nifti(p / "mr.nii.gz", np.uint8(GREY)), {"format": "NIfTI", "hounsfield": None, "size": (6, 4)}),
    ],
)  # fmt: skip
def test_a_header_or_the_values_tell_what_an_image_is_and_reading_it_tells_the_same(tmp_path, write, expected):
    path = write(tmp_path)
    facts = facts_of(path)
    assert facts == ImageFacts(str(path), **expected)
    array, meta = read_image(path, spatial_dims=2)
    assert facts_in(channels_first(array, meta), meta) == ImageFacts(str(path), **expected | {"body_part": ""})


def test_a_series_is_what_its_slices_are(tmp_path):
    tags = {"RescaleIntercept": "-1024", "RescaleSlope": "1"}
    folder = write_series(tmp_path / "s", RNG.integers(0, 2000, (5, 6, 4)).astype(np.uint16), **tags)
    facts = facts_of(folder, spatial_dims=3)
    assert facts == ImageFacts(str(folder), "DICOM", "CT", hounsfield=True, plane="axial", size=(4, 6))
    array, meta = read_image(folder, spatial_dims=3)
    assert facts_in(channels_first(array, meta), meta) == facts


def test_an_array_has_no_format_and_the_unit_that_it_is_said_to_have():
    for values, said, expected in (
        (AIR, None, True),
        (AIR + 1000, None, None),
        (AIR + 1000, True, True),
        (GREY, None, False),
    ):
        array, meta = image_from_array(values, hounsfield=said)
        facts = facts_in(channels_first(array, meta), meta)
        assert (facts.format, facts.hounsfield) == ("", expected)


def test_values_that_are_not_finite_do_not_hide_air(tmp_path):
    values = np.float32(AIR)
    values[0, 1] = np.nan
    assert facts_of(nifti(tmp_path / "a.nii", values)).hounsfield
    assert not facts_of(nifti(tmp_path / "b.nii", np.full((4, 4), np.nan, np.float32))).hounsfield


def test_grey_that_is_stored_as_colour_is_not_in_colour(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 64), (64, 1))
    Image.fromarray(np.stack([smooth] * 3, axis=-1).astype(np.uint8)).save(tmp_path / "a.jpg", quality=40)
    marked = np.stack([smooth] * 3)
    marked[:, :8, :8] = np.array([255, 0, 0])[:, None, None]  # a red mark
    alpha = np.stack([smooth] * 3 + [255 - smooth])
    assert not facts_of(tmp_path / "a.jpg").colour
    assert not in_colour(marked) and not in_colour(alpha)
    photograph = np.stack([smooth, 0.7 * smooth, 0.5 * smooth])  # the mean difference is 0.25 of the range
    assert in_colour(photograph) and not in_colour(photograph[:1])
    assert not in_colour(np.full((3, 4, 4), 7.0))


@pytest.mark.parametrize(
    ("row", "column", "plane"),
    [((1, 0, 0), (0, 1, 0), "axial"), ((0, 1, 0), (0, 0, -1), "sagittal"), ((1, 0, 0), (0, 0.2, -0.98), "coronal")],
)
def test_the_plane_is_that_of_the_nearest_axis(row, column, plane):
    assert plane_of((*row, *column)) == plane and plane_of(None) == ""


@pytest.mark.parametrize("count", [0, 1, 7, 24, 47, 71, 95, 1000])
def test_places_are_spread_from_the_first_to_the_last(count):
    places = spread(count, 24)
    assert len(places) == len(set(places)) == min(count, 24)
    if count:
        assert places[0] == 0 and places[-1] == count - 1
        assert count == 1 or np.ptp(np.diff(places)) <= 1


def looked_at(monkeypatch, records) -> list[str]:
    monkeypatch.setattr("dual_skd.data.reading.facts.facts_of", lambda image, spatial_dims: image)
    return look_at_sample(records)


def test_a_sample_has_every_class_and_every_format_wherever_they_stand(monkeypatch):
    records = [{"image": f"{place}.dcm", "label": 0} for place in range(500)]
    records[333]["label"] = 1  # one image of its class
    records[420]["image"] = "420.png"  # one of its format
    found = looked_at(monkeypatch, records)
    assert {"333.dcm", "420.png", "0.dcm", "499.dcm"} <= set(found) and len(found) <= SAMPLE_SIZE
    assert found == looked_at(monkeypatch, records)
    assert sorted(found) == sorted(looked_at(monkeypatch, records[::-1]))


def test_a_sample_stays_small_for_many_classes_and_whole_for_few_images(monkeypatch):
    many = [{"image": f"{place}.png", "label": place % 200} for place in range(1000)]
    found = looked_at(monkeypatch, many)
    assert len(found) == MAX_SAMPLE_SIZE and len({int(name[:-4]) // 50 for name in found}) > 1
    assert looked_at(monkeypatch, many[:20]) == [record["image"] for record in many[:20]]
    assert looked_at(monkeypatch, []) == []


@pytest.mark.parametrize("written", ["ct", " CT", "Ct "])
def test_a_modality_in_small_letters_or_with_spaces_is_the_same(tmp_path, written):
    path = write_ct(tmp_path / "a.dcm", AIR)
    meant, values = facts_of(path), pydicom.dcmread(path)
    assert meant.hounsfield is True and meant.modality == "CT"
    values.Modality = written
    values.save_as(path)
    assert facts_of(path) == meant and read_image(path)[1]["modality"] == "CT"


@pytest.mark.parametrize(
    ("stored", "tags", "known"),
    [
        (np.uint16(AIR + 1024), {}, None),
        (np.int16(AIR + 1024), {}, None),
        (np.int16(AIR), {}, True),
        (np.int16(AIR.clip(-100)), {}, True),
        (np.uint16(AIR + 1024), {"RescaleIntercept": 0}, True),
        (np.uint16(AIR + 1024), {"SOPClassUID": SecondaryCaptureImageStorage}, False),
    ],
)
def test_ct_without_a_rescale_is_in_hounsfield_units_where_its_values_are_negative(tmp_path, stored, tags, known):
    path = write_dicom(tmp_path / "a.dcm", stored, BodyPartExamined="HEAD", **tags)
    dicom = pydicom.dcmread(path)
    values = apply_modality_lut(dicom.pixel_array, dicom)
    assert ("RescaleIntercept" in tags or (values < 0).any()) == (known is True)
    facts = facts_of(path)
    assert (facts.hounsfield, facts.modality, facts.body_part) == (known, "CT", "HEAD")
    array, meta = read_image(path)
    assert hounsfield_of(meta) is known and np.array_equal(array.T, values)
    folder = write_series(tmp_path / "s", np.stack([stored, stored + 1]), **tags)
    assert facts_of(folder, spatial_dims=3).hounsfield is known
