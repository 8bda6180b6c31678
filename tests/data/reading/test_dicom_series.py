# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dual_skd.data.reading.dicom_header import Header, read_header, read_headers
from dual_skd.data.reading.dicom_series import group_series, stack_of, volume_affine
from dual_skd.data.reading.reader import read_image
from dual_skd.errors import InputError

PIXELS = np.arange(6 * 4, dtype=np.int16).reshape(6, 4)


def stack(count: int = 5, *, step=(0.0, 0.0, 2.5), **same) -> list[Header]:
    """Headers of parallel axial slices."""
    common = {
        "series": "1.2",
        "rows": 6,
        "columns": 4,
        "orientation": (1.0, 0, 0, 0, 1, 0),
        "pixel_spacing": (0.7, 0.5),
    }
    return [
        Header(
            f"{index}.dcm",
            instance=f"9.{index}",
            instance_number=index,
            position=tuple(float(v) for v in np.multiply(step, index)),
            **{**common, **same},
        )
        for index in range(count)
    ]


def test_a_header_has_what_the_file_states(tmp_path, dicom_file):
    path = dicom_file(
        tmp_path / "a",
        PIXELS,
        StudyInstanceUID="1.5",
        Manufacturer="Maker",
        InstitutionName="Clinic",
        BodyPartExamined="CHEST",
        SeriesDescription="thin",
        InstanceNumber=7,
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
        ImagePositionPatient=[1.5, -2, 3],
        PixelSpacing=[0.7, 0.5],
        SliceThickness=3,
        SpacingBetweenSlices=2.5,
        BitsStored=12,
    )
    header = read_header(path)
    assert (header.path, header.patient, header.study, header.series) == (str(path), "p", "1.5", "1.2.3")
    assert (header.modality, header.manufacturer, header.institution) == ("CT", "Maker", "Clinic")
    assert (header.body_part, header.series_description, header.photometric) == ("CHEST", "thin", "MONOCHROME2")
    assert (header.bits_stored, header.rows, header.columns, header.frames) == (12, 6, 4, 1)
    assert (header.instance_number, header.slice_thickness, header.slice_spacing) == (7, 3.0, 2.5)
    assert header.orientation == (0, 1, 0, 0, 0, -1) and header.position == (1.5, -2, 3)
    assert header.pixel_spacing == (0.7, 0.5) and header.transfer_syntax == "1.2.840.10008.1.2.1"


def test_what_a_file_does_not_state_or_states_badly_is_empty(tmp_path, dicom_file):
    bare = read_header(dicom_file(tmp_path / "a", PIXELS, Modality=None, PatientID=None, SeriesInstanceUID=None))
    assert (bare.modality, bare.patient, bare.series) == ("", "", "")
    assert bare.orientation is bare.position is bare.pixel_spacing is bare.instance_number is None
    bad = dicom_file(
        tmp_path / "b",
        PIXELS,
        ImageOrientationPatient=[1, 0, 0, 1, 0, 0],
        PixelSpacing=[0, 0],
        ImagePositionPatient=[1, 2],
        SliceThickness="",
    )
    header = read_header(bad)
    assert header.orientation is header.position is header.pixel_spacing is header.slice_thickness is None
    zero = read_header(dicom_file(tmp_path / "d", PIXELS, SpacingBetweenSlices=0, ImagePositionPatient=[0, 0, 0]))
    assert zero.slice_spacing is None and zero.position == (0, 0, 0)
    detector = read_header(dicom_file(tmp_path / "c", PIXELS, ImagerPixelSpacing=[0.2, 0.1]))
    assert detector.pixel_spacing == (0.2, 0.1)


def test_many_headers_come_in_order_with_errors_in_the_place_of_their_files(tmp_path, dicom_file):
    paths = [dicom_file(tmp_path / f"{index}", PIXELS, InstanceNumber=index) for index in range(9)]
    paths[4].write_bytes(b"")
    found = list(read_headers(paths, workers=3))
    assert isinstance(found.pop(4), InputError)
    assert [header.instance_number for header in found] == [0, 1, 2, 3, 5, 6, 7, 8]


# -------------------------------------------------------------------------------------------------------- geometry


def test_slices_are_sorted_by_position_whatever_their_numbers_and_names():
    headers = stack(6)
    shuffled = [replace(headers[i], instance_number=9 - k) for k, i in enumerate((3, 0, 5, 1, 4, 2))]
    (series,) = group_series(shuffled)
    assert [header.path for header in series.headers] == [f"{i}.dcm" for i in range(6)]
    assert (series.uid, series.problems, series.refusal, series.left_out) == ("1.2", (), "", ())


def test_series_are_told_apart_by_their_uid_and_without_one_by_folder():
    other = stack(3, series="1.9")
    nameless = [Header(f"{folder}/{i}", rows=6, columns=4) for folder in ("a", "b") for i in range(2)]
    found = group_series([*stack(2), *other, *nameless, *stack(4)[2:]])
    assert [(series.uid, len(series.headers)) for series in found] == [("1.2", 4), ("1.9", 3), ("", 2), ("", 2)]


@pytest.mark.parametrize(("angle", "told"), [(0.5, False), (15.0, True), (-3.0, True)])
def test_a_tilted_gantry_is_told_from_one_degree_on_and_never_refused(angle, told):
    step = (0.0, 2.5 * np.tan(np.radians(angle)), 2.5)
    series = stack_of(stack(step=step))
    assert series.refusal == ""
    assert series.problems == ((f"the gantry is tilted by {abs(angle):.1f} degrees",) if told else ())
    affine, known = volume_affine(series.headers)
    # the third axis is the way from slice to slice, so that resampling straightens the volume
    assert known and np.allclose(affine[:3, 2], [0, -step[1], 2.5])


def test_missing_slices_are_refused_with_their_number_and_gap():
    headers = stack(9)
    series = stack_of(headers[:4] + headers[6:])
    assert series.refusal == "about 2 slices are missing (gap of 7.5 mm, usually 2.5 mm)"
    assert series.problems == (series.refusal,)


def test_uneven_distances_below_a_missing_slice_are_told():
    headers = stack(5)
    headers[2] = replace(headers[2], position=(0.0, 0.0, 5.8))
    series = stack_of(headers)
    assert series.refusal == "" and series.problems == ("slice distances are uneven (1.7 to 3.3 mm)",)


def test_two_images_at_one_position_are_told_and_all_at_one_position_refused():
    again = replace(stack(3)[1], path="again.dcm", instance="9.99")
    series = stack_of([*stack(3), again])
    assert series.refusal == "" and series.problems == ("1 of 4 images lie at the position of another one",)
    assert "all 4 images lie at one position" in stack_of(stack(4, step=(0, 0, 0))).refusal


def test_copies_of_a_file_are_left_out():
    copy = replace(stack(3)[1], path="copy of 1.dcm")
    series = stack_of([*stack(3), copy])
    assert series.left_out == (copy,) and len(series.headers) == 3
    assert series.refusal == "" and series.problems == ("1 files are copies of others",)


def test_a_localiser_in_a_series_is_left_out_and_told():
    localiser = replace(stack(1)[0], path="scout", instance="9.99", orientation=(0.0, 1, 0, 0, 0, -1))
    larger = replace(stack(1)[0], path="large", instance="9.98", rows=60)
    series = stack_of([localiser, larger, *stack(8)])
    assert len(series.headers) == 8 and {header.path for header in series.left_out} == {"scout", "large"}
    assert series.refusal == "" and series.problems[0].startswith(
        "2 images of another size or orientation are left out"
    )


def test_a_series_of_equal_parts_in_different_directions_or_spacings_is_refused():
    sagittal = [replace(h, orientation=(0.0, 1, 0, 0, 0, -1), instance=f"8.{i}") for i, h in enumerate(stack(4))]
    assert stack_of([*stack(4), *sagittal]).refusal.startswith("images of different sizes or orientations (4 of 4 x 6")
    headers = stack(4)
    headers[1] = replace(headers[1], pixel_spacing=(0.9, 0.5))
    assert stack_of(headers).refusal == "different pixel spacings ((0.7, 0.5), (0.9, 0.5) mm)"


def test_slices_that_leave_the_line_of_the_others_are_refused():
    headers = stack(5)
    headers[2] = replace(headers[2], position=(4.0, 3.0, 5.0))
    assert stack_of(headers).refusal == "slices are shifted against each other by up to 5.0 mm"


def test_images_without_positions_are_sorted_by_number_and_told():
    headers = [replace(header, position=None) for header in stack(4)]
    series = stack_of(headers[::-1])
    assert [header.instance_number for header in series.headers] == [0, 1, 2, 3]
    assert series.problems == ("no slice positions: sorted by InstanceNumber",)
    for number in (None, 1):  # a number that all share is as good as none
        named = [replace(headers[0], path=f"IM{index}", instance_number=number) for index in (10, 2, 11, 1)]
        series = stack_of(named)
        assert [header.path for header in series.headers] == ["IM1", "IM2", "IM10", "IM11"]
        assert series.problems == ("no slice positions: sorted by file name",)


def test_the_affine_of_a_sagittal_stack_is_the_hand_computed_one():
    orientation = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)  # rows run to the back, columns to the feet
    headers = stack_of(stack(3, step=(-2.0, 0, 0), orientation=orientation)).headers
    affine, known = volume_affine(headers)
    # normal (-1, 0, 0): already sorted; columns are 0.5 mm apart, rows 0.7
    expected = [[0, 0, 2.0, 0], [-0.5, 0, 0, 0], [0, -0.7, 0, 0], [0, 0, 0, 1]]
    assert known and np.allclose(affine, expected)


def test_without_positions_the_affine_has_what_spacing_there_is():
    header = Header("a", pixel_spacing=(0.7, 0.5), slice_thickness=3.0, slice_spacing=2.5)
    affine, known = volume_affine((header, header))
    assert known and np.allclose(affine, np.diag([-0.5, -0.7, 2.5, 1]))
    affine, known = volume_affine((replace(header, slice_spacing=None),) * 2)
    assert not known and affine[2, 2] == 3.0
    affine, known = volume_affine((Header("a"),) * 2)
    assert not known and np.array_equal(affine, np.diag([-1, -1, 1, 1]))


def test_a_series_on_disk_agrees_with_its_files(tmp_path, dicom_series):
    dicom_series(tmp_path / "s", np.stack([PIXELS + i for i in range(5)]))
    (series,) = group_series(read_header(path) for path in sorted(Path(tmp_path / "s").iterdir()))
    assert [header.position[2] for header in series.headers] == [5.0, 7.5, 10.0, 12.5, 15.0]
    assert series.problems == ()


def test_an_empty_path_is_no_folder_without_series(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"Expected the path of an image, found an empty one; .* MONAI Label"):
        read_image("")
