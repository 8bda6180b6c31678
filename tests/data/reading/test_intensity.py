# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from dicom_files import write_ct, write_dicom
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage

from dual_skd.data.reading.intensity import WINDOWS, choose_window, scale_intensity, window_range
from dual_skd.errors import InputError

PHANTOM = np.array([[-1000.0, 0.0], [40.0, 1000.0]])  # air, water, soft tissue, bone


def test_windows_are_centre_and_width_in_hounsfield_units():
    assert window_range("lung") == (-1350.0, 150.0)
    assert window_range("brain") == (0.0, 80.0)
    assert window_range([40, 400]) == window_range("mediastinum") == (-160.0, 240.0)
    for wrong in ("lungs", [40], [40, 0], ["a", "b"]):
        with pytest.raises(InputError):
            window_range(wrong)


@pytest.mark.parametrize(
    ("window", "expected"),
    [  # 2 * (HU - low) / width - 1, clipped
        ("lung", [-0.53333, 0.8, 0.85333, 1.0]),
        ("mediastinum", [-1.0, -0.2, 0.0, 1.0]),
        ("brain", [-1.0, -1.0, 0.0, 1.0]),
        ("bone", [-1.0, -0.5, -0.46, 0.5]),
        ("soft_tissue", [-1.0, -0.285714, -0.0571428, 1.0]),
        ("wide", [-1.0, 0.0, 0.04, 1.0]),
        ([0, 4000], [-0.5, 0.0, 0.02, 0.5]),
    ],
)
def test_known_hounsfield_values_land_where_the_window_says(window, expected):
    scaled = scale_intensity(window)({"image": torch.tensor(PHANTOM).flatten()[None].float()})["image"]
    assert scaled[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_percentiles_file_range_and_z_score():
    values = torch.arange(1001.0)[None]
    by_percentile = scale_intensity("percentile")({"image": values})["image"][0]
    assert by_percentile[5] == pytest.approx(-1) and by_percentile[995] == pytest.approx(1)
    assert by_percentile.min() == -1 and by_percentile.max() == 1 and by_percentile[500] == pytest.approx(0, abs=1e-4)
    by_file = scale_intensity("file")({"image": values})["image"][0]
    assert by_file[0] == -1 and by_file[1000] == 1 and by_file[250] == pytest.approx(-0.5, abs=1e-4)
    standardised = scale_intensity("zscore")({"image": values})["image"]
    assert standardised.mean() == pytest.approx(0, abs=1e-5) and standardised.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("share", [0.004, 0.0])
def test_the_values_stay_in_range_where_little_or_nothing_stands_out(share):
    values = torch.full((1, 1000), 100.0)
    values[0, : round(1000 * share)] = 2059
    scaled = scale_intensity("percentile")({"image": values})["image"][0]
    assert sorted(set(scaled.tolist())) == ([-1, 1] if share else [-1])


def ct(folder: Path, part: str | None = None, count: int = 3) -> list[str]:
    tags = {"BodyPartExamined": part} if part else {}
    return [str(write_ct(folder / f"{part}{place}.dcm", PHANTOM, **tags)) for place in range(count)]


@pytest.mark.parametrize(("part", "name"), [("CHEST", "lung"), ("HEAD", "brain"), (None, "wide"), ("ABDOMEN", "wide")])
def test_a_ct_data_set_gets_the_window_of_its_body_part_and_the_log_says_so(tmp_path, caplog, part, name):
    with caplog.at_level(logging.INFO):
        assert choose_window("auto", ct(tmp_path, part)) == list(WINDOWS[name])
    assert f"{name} window" in caplog.text and "--window" in caplog.text


def test_a_picture_made_of_ct_is_no_ct_but_an_object_with_a_rescale_is(tmp_path):
    grey, tags = np.arange(24, dtype=np.uint8).reshape(4, 6), {"SOPClassUID": SecondaryCaptureImageStorage}
    identity = {"RescaleSlope": 1, "RescaleIntercept": 0}
    pictures = [
        write_dicom(tmp_path / "grey.dcm", grey, BodyPartExamined="CHEST", **tags),
        write_dicom(tmp_path / "identity.dcm", grey, **tags, **identity),
        write_dicom(tmp_path / "colour.dcm", np.dstack([grey] * 3), BodyPartExamined="HEAD"),
    ]
    for picture in pictures:
        assert choose_window("auto", [str(picture)]) == "percentile", picture
    for name, rescale in {"both": identity, "one": {"RescaleIntercept": -1024}}.items():
        path = write_dicom(tmp_path / f"{name}.dcm", grey.astype(np.int16), BodyPartExamined="CHEST", **tags, **rescale)
        assert choose_window("auto", [str(path)]) == list(WINDOWS["lung"]), name


def test_body_parts_that_differ_get_the_wide_window(tmp_path):
    assert choose_window("auto", ct(tmp_path, "CHEST") + ct(tmp_path, "HEAD")) == list(WINDOWS["wide"])


def test_ct_among_other_modalities_is_scaled_by_percentiles(tmp_path, caplog):
    images = [*ct(tmp_path), str(write_ct(tmp_path / "mr.dcm", PHANTOM, Modality="MR"))]
    with caplog.at_level(logging.INFO):
        assert choose_window("auto", images) == "percentile"
    assert "CT, MR" in caplog.text and "percentiles" in caplog.text


def test_a_file_without_header_is_ct_when_it_has_values_of_air(tmp_path):
    for name, offset, expected in (("ct", 0, list(WINDOWS["wide"])), ("mr", 1000, "percentile")):
        volume = np.tile(PHANTOM[..., None], (1, 1, 3)) + offset
        nibabel.save(nibabel.Nifti1Image(volume.astype(np.int16), np.eye(4)), tmp_path / f"{name}.nii.gz")
        assert choose_window("auto", [str(tmp_path / f"{name}.nii.gz")], spatial_dims=3) == expected


def test_pictures_have_no_units(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    assert choose_window("auto", [str(tmp_path / "a.png")]) == "percentile"


def test_what_the_user_asks_for_is_kept_as_numbers_and_no_file_is_opened():
    assert choose_window("lung", ["nowhere.dcm"]) == [-600.0, 1500.0]
    assert choose_window([50, 300], ["nowhere.dcm"]) == [50.0, 300.0]
    assert choose_window(None, ["nowhere.dcm"]) == choose_window("percentile", []) == "percentile"
    assert choose_window("zscore", []) == "zscore" and choose_window("file", []) == "file"
    with pytest.raises(InputError, match="'lungs'; use one of auto, percentile, zscore, file, lung"):
        choose_window("lungs", [])
