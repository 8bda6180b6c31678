# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from dual_skd.data.checking.outliers import find_oddities, stretching, unusual
from dual_skd.data.reading.inspection import COARSE, FileFacts, inspect


def usual(count: int, **values) -> list[FileFacts]:
    return [FileFacts(image=f"{index}.png", **{"format": "PNG", **values}) for index in range(count)]


def odd(name: str = "odd.png", **values) -> FileFacts:
    return FileFacts(image=name, **{"format": "PNG", **values})


def kinds(facts) -> list[tuple[str, str, str]]:
    return [(one.image, one.kind, one.detail) for one in find_oddities(facts)]


def test_a_set_of_like_images_has_nothing_odd():
    assert kinds(usual(30, shape=(64, 64), spacing=(1.0, 1.0), modality="CT", commonest=0.3, saturated=0.01)) == []


def test_unusual_numbers_are_those_far_from_the_median_on_a_logarithmic_scale():
    values = np.array([[100.0]] * 50 + [[118.0], [122.0], [50.0]])  # 5 % spread at least: exp(0.175) = 1.19
    assert np.flatnonzero(unusual(values)).tolist() == [51, 52]
    assert not unusual(np.array([[100.0]] * 50 + [[200.0]] * 5)).any()  # a tenth of the set is no outlier
    assert not unusual(np.array([[1.0]] * 8 + [[9.0]])).any()  # nine images say nothing about what is usual


@pytest.mark.parametrize(
    ("field", "common", "rare", "kind", "detail"),
    [
        ("shape", (64, 64), (64, 20), "size", "64 x 20 pixels, where 64 x 64 is usual"),
        ("spacing", (1.0, 1.0, 3.0), (1.0, 1.0, 9.0), "spacing", "1 x 1 x 9 mm, where 1 x 1 x 3 is usual"),
        ("spacing", (1.0, 1.0), None, "spacing", "the file gives no pixel spacing, the others do"),
        ("orientation", "RAS", "LPS", "orientation", "axes run LPS, where RAS is usual"),
        ("modality", "CT", "MR", "mixed_modality", "the modality is MR, where CT is usual"),
        (
            "series_problems",
            (),
            ("the gantry is tilted by 12.0 degrees",),
            "series",
            "the gantry is tilted by 12.0 degrees",
        ),
        ("commonest", 0.4, 0.99, "nearly_constant", "99.0 % of the pixels have one value"),
        ("saturated", 0.01, 0.5, "saturated", "50 % of the pixels have the highest value"),
    ],
)
def test_the_image_that_differs_is_named(field, common, rare, kind, detail):
    assert kinds([*usual(40, **{field: common}), odd(**{field: rare})]) == [("odd.png", kind, detail)]


def test_stretching_is_worth_a_note_where_more_than_a_few_images_change_by_a_tenth():
    square, wide, tall = (usual(20, aspect=aspect) for aspect in (1.05, 1.5, 0.8))
    assert stretching(square) == stretching([*square, *wide[:1]]) == stretching(usual(20)) == stretching([]) == ""
    assert "a factor of 1.25 (median; at most 1.50)" in stretching([*wide[:5], *tall, *square[:5]])


def test_a_name_that_contradicts_the_content_is_told(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    expected = (str(path), "wrong_suffix", "the content is PNG, the name ends with .jpg")
    assert kinds([odd(str(path))]) == [expected]


def test_dicom_without_a_photometric_interpretation_is_told():
    good = [odd("a", format="DICOM", photometric=value) for value in ("MONOCHROME1", "RGB", "YBR_FULL_422")]
    ((image, kind, detail),) = kinds([*good, odd("b", format="DICOM", photometric="")])
    assert (image, kind) == ("b", "wrong_photometric") and "nothing as photometric interpretation" in detail


def chest(rng, inverted: bool = False) -> bytes:
    """Dark border, bright middle, and much that differs from image to image."""
    y, x = np.mgrid[-1:1:8j, -1:1:8j]
    picture = np.exp(-2 * (x**2 + y**2)) + 0.2 * rng.normal(size=(COARSE, COARSE))
    picture = -picture if inverted else picture
    return np.rint((picture - picture.min()) / np.ptp(picture) * 255).astype(np.uint8).tobytes()


def test_inverted_images_are_found_whichever_way_the_majority_is():
    rng = np.random.default_rng(0)
    for majority in (False, True):
        facts = [odd(f"{index}.png", coarse=chest(rng, majority)) for index in range(95)]
        facts += [odd(f"bad{index}.png", coarse=chest(rng, not majority)) for index in range(5)]
        found = kinds(facts)
        assert [image for image, kind, _ in found if kind == "inverted"] == [f"bad{index}.png" for index in range(5)]


def test_pictures_of_all_sorts_are_not_called_inverted():
    rng = np.random.default_rng(0)
    facts = [odd(str(index), coarse=rng.integers(0, 256, 64, dtype=np.uint8).tobytes()) for index in range(100)]
    assert kinds(facts) == []


def test_problem_files_are_left_aside():
    broken = inspect("nowhere.png")
    assert kinds([*usual(40, shape=(64, 64)), broken]) == []


def test_values_that_mean_something_else_than_most_are_named():
    ct = usual(60, format="DICOM", modality="CT", photometric="MONOCHROME2", hounsfield=True)
    shots = [odd(f"shot{place}.dcm", format="DICOM", modality="CT") for place in range(3)]
    found = kinds([*ct, *shots, odd("mr.dcm", format="DICOM", modality="MR", photometric="MONOCHROME2")])
    without = "it holds values of DICOM files without a unit, where Hounsfield units are usual"
    assert [one for one in found if one[1] == "mixed_values"] == [(one.image, "mixed_values", without) for one in shots]
    pictures = "it holds values of picture files without a unit, where values of DICOM files without a unit are usual"
    mixed = [*usual(5, format="DICOM", modality="DX", photometric="MONOCHROME2"), odd(format="JPEG")]
    assert ("odd.png", "mixed_values", pictures) in kinds(mixed)
    assert kinds([*usual(5, format="PNG"), odd("a.jpg", format="JPEG"), odd("a.bmp", format="BMP")]) == []
