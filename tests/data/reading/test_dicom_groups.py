# SPDX-License-Identifier: Apache-2.0
"""Functional groups of enhanced objects against what converters leave at the top level (PS3.3, C.7.6.16)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage

from dual_skd.data.reading.dicom_header import read_header
from dual_skd.data.reading.dicom_series import group_series
from dual_skd.data.reading.reader import read_image
from dual_skd.errors import InputError

FRAMES = np.random.default_rng(0).integers(0, 4096, (4, 6, 5)).astype(np.uint16)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # nibabel calls its readers of DICOM experimental
    import nibabel.nicom.dicomwrappers as nicom


def item(**tags) -> Dataset:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(shared: dict | None = None, frames: list[dict] | None = None, *, heights=(0.0, 2.0, 4.0, 6.0)) -> dict:
    """Tags of an object whose shared and per-frame groups are those that every enhanced object has, and others."""
    orientation, measures = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]), item(PixelSpacing=[0.7, 0.5])
    groups = []
    for index, height in enumerate(heights):
        content = item(StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[1, index + 1])
        plane = item(ImagePositionPatient=[-30.0, 20.0, height])
        special = frames[index] if frames else {}
        groups.append(item(FrameContentSequence=[content], PlanePositionSequence=[plane]))
        for keyword, value in special.items():
            setattr(groups[-1], keyword, value)
    common = item(PlaneOrientationSequence=[orientation], PixelMeasuresSequence=[measures])
    for keyword, value in (shared or {}).items():
        setattr(common, keyword, value)
    dimensions = [item(DimensionIndexPointer=0x00209056), item(DimensionIndexPointer=0x00209057)]
    return {
        "NumberOfFrames": len(heights),
        "SharedFunctionalGroupsSequence": [common],
        "PerFrameFunctionalGroupsSequence": groups,
        "DimensionIndexSequence": dimensions,
        "SOPClassUID": EnhancedCTImageStorage,
    }


def rescale(slope, intercept) -> dict:
    return {"PixelValueTransformationSequence": [item(RescaleSlope=slope, RescaleIntercept=intercept)]}


@pytest.mark.parametrize("top", [{}, {"RescaleSlope": 1, "RescaleIntercept": 0}])
def test_the_rescale_of_each_frame_holds_as_nibabel_says(tmp_path, dicom_file, top):
    slopes = np.array([1, 2, 4, 0.5])
    tags = enhanced(frames=[rescale(slope, 10) for slope in slopes]) | {"SOPClassUID": EnhancedMRImageStorage}
    path = dicom_file(tmp_path / "a.dcm", FRAMES, **tags, **top)
    array, _ = read_image(path, spatial_dims=3)
    assert np.array_equal(array, (FRAMES * slopes[:, None, None] + 10).transpose(2, 1, 0))
    read = nicom.wrapper_from_file(path).get_data()  # (rows, columns, slices), the slices from above
    assert np.array_equal(array, read.swapaxes(0, 1)[:, :, ::-1])
    assert np.array_equal(read_image(path, spatial_dims=2, frame=2)[0], FRAMES[2].T * 4.0 + 10)


@pytest.mark.parametrize("top", [{}, {"RescaleSlope": 1, "RescaleIntercept": 0}])
def test_the_rescale_of_all_frames_holds_as_simpleitk_says(tmp_path, dicom_file, top):
    path = dicom_file(tmp_path / "a.dcm", FRAMES, **enhanced(rescale(2, -1024)), **top)
    array, _ = read_image(path, spatial_dims=3)
    assert np.array_equal(array, (FRAMES * 2.0 - 1024).transpose(2, 1, 0))
    read = sitk.GetArrayFromImage(sitk.ReadImage(path, imageIO="GDCMImageIO"))
    assert np.array_equal(array, read.transpose(2, 1, 0))


def test_the_window_of_a_frame_holds(tmp_path, dicom_file):
    def window(centre: int) -> dict:
        return {"FrameVOILUTSequence": [item(WindowCenter=centre, WindowWidth=500)]}

    tags = enhanced(frames=[window(500 * index) for index in range(4)])
    path = dicom_file(tmp_path / "a.dcm", FRAMES, WindowCenter=40, WindowWidth=4000, **tags)
    expected = apply_voi_lut(FRAMES[3], item(**_pixels(), WindowCenter=1500, WindowWidth=500))
    assert np.allclose(read_image(path, frame=3, voi_lut=True)[0], expected.T)
    shared = dicom_file(tmp_path / "b.dcm", FRAMES, WindowCenter=40, WindowWidth=4000, **enhanced(window(700)))
    expected = apply_voi_lut(FRAMES[1], item(**_pixels(), WindowCenter=700, WindowWidth=500))
    assert np.allclose(read_image(shared, frame=1, voi_lut=True)[0], expected.T)


def _pixels() -> dict:
    return {"PhotometricInterpretation": "MONOCHROME2", "BitsStored": 16, "PixelRepresentation": 0}


def test_the_geometry_of_the_groups_holds(tmp_path, dicom_file):
    stale = {
        "PixelSpacing": [9, 9],
        "ImagePositionPatient": [7, 7, 7],
        "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
        "SliceThickness": 9,
        "SpacingBetweenSlices": 9,
    }
    measures = item(PixelSpacing=[0.7, 0.5], SliceThickness=3, SpacingBetweenSlices=2)
    tags = enhanced({"PixelMeasuresSequence": [measures]})
    header = read_header(dicom_file(tmp_path / "a.dcm", FRAMES, **tags, **stale))
    assert header.pixel_spacing == (0.7, 0.5) and header.orientation == (1, 0, 0, 0, 1, 0)
    assert (header.slice_thickness, header.slice_spacing) == (3, 2)
    _, meta = read_image(tmp_path / "a.dcm", spatial_dims=3)
    assert np.allclose(meta["affine"], [[-0.5, 0, 0, 30], [0, -0.7, 0, -20], [0, 0, 2, 0], [0, 0, 0, 1]])
    assert np.array_equal(read_image(tmp_path / "a.dcm", frame=0)[1]["affine"], np.diag([0.5, 0.7, 1, 1]))


def test_a_volume_of_single_frames_is_sorted_by_the_positions_of_the_groups(tmp_path, dicom_file):
    heights = [4.0, 0.0, 6.0, 2.0]
    for index, height in enumerate(heights):
        tags = enhanced(heights=(height,))
        dicom_file(tmp_path / "s" / f"{index}.dcm", FRAMES[index : index + 1], InstanceNumber=index, **tags)
    (series,) = group_series(read_header(path) for path in sorted(Path(tmp_path / "s").iterdir()))
    assert [header.position[2] for header in series.headers] == sorted(heights) and series.problems == ()
    array, meta = read_image(tmp_path / "s", spatial_dims=3)
    assert np.array_equal(array, FRAMES[np.argsort(heights)].transpose(2, 1, 0)) and meta["affine"][2, 2] == 2


def test_frames_of_two_stacks_between_each_other_are_refused(tmp_path, dicom_file):
    frames = [{"FrameContentSequence": [item(StackID=str(1 + index % 2))]} for index in range(8)]
    tags = enhanced(frames=frames, heights=tuple(2.0 * index for index in range(8)))
    path = dicom_file(tmp_path / "a.dcm", np.concatenate([FRAMES, FRAMES]), **tags)
    with pytest.raises(InputError, match="a.dcm.*acquisitions lie between each other .StackID 1 and 2.*split it"):
        read_image(path, spatial_dims=3)


@pytest.mark.parametrize(("kind", "unit"), [("Z_EFF", False), ("MGML", False), ("HU", True), ("", True)])
def test_a_spectral_map_of_a_ct_is_no_hounsfield_units(tmp_path, dicom_file, kind, unit):
    tags = {"RescaleSlope": 0.1, "RescaleIntercept": -10, "RescaleType": kind or None}
    assert read_header(dicom_file(tmp_path / "a.dcm", FRAMES[0], **tags)).hounsfield is unit
    groups = enhanced(
        {"PixelValueTransformationSequence": [item(RescaleSlope=1, RescaleIntercept=0, RescaleType=kind)]}
    )
    assert read_header(dicom_file(tmp_path / "b.dcm", FRAMES, **groups)).hounsfield is unit
