# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from dicom_files import write_ct, write_dicom, write_picture
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage

from dual_skd.data import choose_window, describe, image_transforms, look_at_sample
from dual_skd.data.reading.expectation import InputExpectation, refuse_unexpected
from dual_skd.data.reading.facts import ImageFacts
from dual_skd.errors import InputError, input_error_behind

LUNG = [-600.0, 1500.0]
HU = np.where(np.hypot(*np.mgrid[-32:32, -32:32]) < 25, -650.0, -1000.0)
VIEW = (np.clip((HU + 1350) / 1500, 0, 1) * 255).astype(np.uint8)
CT = ImageFacts("ct.dcm", "DICOM", "CT", hounsfield=True, plane="axial", size=(512, 512))
SHOT = ImageFacts("shot.dcm", "DICOM", "CT", size=(512, 512))
PNG = ImageFacts("a.png", "PNG", size=(300, 200))
OF_CT, OF_PNG = describe([CT, CT]), describe([PNG, replace(PNG, size=(200, 200))])


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """A CT slice, and the same as a secondary capture and as a PNG."""
    write_ct(tmp_path / "ct.dcm", HU, BodyPartExamined="CHEST")
    write_dicom(tmp_path / "shot.dcm", VIEW, SOPClassUID=SecondaryCaptureImageStorage)
    Image.fromarray(VIEW).save(tmp_path / "ct.png")
    return {path.name: str(path) for path in tmp_path.iterdir()}


def refused(transform, image: str) -> str:
    with pytest.raises(Exception) as caught:
        transform({"image": image})
    return str(input_error_behind(caught.value))


def test_the_expectation_is_what_the_training_images_have_in_common():
    mixed = describe([CT, replace(CT, hounsfield=False, modality="OT", plane="", size=(256, 128)), PNG])
    assert mixed == InputExpectation(
        images=3, hounsfield=None, modalities=("", "CT"), formats=("DICOM", "picture"), colour=False,
        planes=("", "axial"), sizes=(256, 512), aspect_ratios=(1.0, 2.0),
    )  # fmt: skip
    assert OF_CT.hounsfield is True and OF_CT.modalities == ("CT",) and describe([]) == InputExpectation(modalities=())


@pytest.mark.parametrize(
    ("facts", "expected", "window", "kinds"),
    [
        (CT, OF_CT, LUNG, []),
        (SHOT, OF_CT, LUNG, ["unit"]),
        (PNG, OF_CT, LUNG, ["unit"]),
        (ImageFacts("a.nii", "NIfTI", hounsfield=True, size=(512, 512)), OF_CT, LUNG, []),
        (ImageFacts("", "", hounsfield=True, size=(512, 512)), OF_CT, LUNG, []),
        (ImageFacts("a.nii", "NIfTI", hounsfield=None, size=(512, 512)), OF_CT, LUNG, ["air"]),
        (ImageFacts("a.nii", "NIfTI", hounsfield=None, size=(9, 9)), InputExpectation(hounsfield=True), LUNG, []),
        (PNG, OF_CT, "percentile", []),  # each image is scaled by itself
        (replace(CT, modality="MR", hounsfield=False), OF_CT, "percentile", ["modality"]),
        (replace(CT, modality="MR", hounsfield=False), OF_CT, LUNG, ["unit", "modality"]),
        (replace(SHOT, modality="OT"), OF_CT, "percentile", []),
        (CT, OF_PNG, "percentile", []),  # pictures state no modality
        (replace(PNG, colour=True), OF_PNG, "percentile", ["colour"]),
        (replace(PNG, colour=True), replace(OF_PNG, colour=None), "percentile", []),
        (PNG, describe([replace(SHOT, modality="MR")]), [300.0, 600.0], ["unit"]),  # of MR in its own numbers
        (PNG, describe([replace(SHOT, modality="MR")]), "file", ["unit"]),
        (replace(PNG, format="JPEG"), OF_PNG, [128.0, 255.0], []),
        (replace(SHOT, modality="CR"), describe([replace(SHOT, modality="DX")]), "percentile", []),
        (PNG, InputExpectation(), LUNG, []),  # nothing is known
    ],
)
def test_what_makes_an_answer_meaningless_is_refused(facts, expected, window, kinds):
    assert list(expected.refusals(facts, window)) == kinds


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({}, []),
        ({"size": (450, 250)}, []),  # 1.5 times the largest, and its ratio within 1.5 times
        ({"size": (451, 300)}, ["size"]),
        ({"size": (150, 230)}, ["aspect ratio"]),  # 0.65, and 1 / 1.5 is 0.67
        ({"size": (134, 134)}, []),
        ({"size": (133, 133)}, ["size"]),
        ({"hounsfield": True}, ["hounsfield"]),
    ],
)
def test_what_may_make_it_worse_is_remarked_on(change, kinds):
    expected = describe([PNG, replace(PNG, size=(200, 200))])  # sides up to 200 and 300, ratios 1 to 1.5
    assert list(expected.remarks(replace(PNG, **change))) == kinds


def test_another_plane_and_missing_colour_are_remarks():
    assert list(OF_CT.remarks(replace(CT, plane="sagittal"))) == ["plane"]
    assert list(OF_CT.remarks(replace(CT, plane=""))) == []
    assert list(describe([replace(PNG, colour=True)]).remarks(PNG)) == ["grey"]


def test_pictures_of_ct_are_refused_where_a_window_in_hu_was_learned(files):
    facts = look_at_sample([{"image": files["ct.dcm"]}])
    window = choose_window("auto", [], facts=facts)
    assert window == LUNG
    prepare = image_transforms(2, 64, window, expected=describe(facts).as_dict())
    assert prepare({"image": files["ct.dcm"]})["image"].min() == pytest.approx(2 * 350 / 1500 - 1)
    for name in ("shot.dcm", "ct.png"):
        said = refused(prepare, files[name])
        assert name in said and "aren't Hounsfield units" in said and "--unexpected-input accept" in said


def test_one_word_takes_them_all_the_same_and_the_log_says_so_once(files, caplog):
    expected = describe(look_at_sample([{"image": files["ct.dcm"]}])).as_dict()
    prepare = image_transforms(2, 64, LUNG, expected=expected, unexpected_input="accept")
    plain = image_transforms(2, 64, LUNG)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for name in ("shot.dcm", "ct.png", "ct.dcm"):
                found, wanted = (one({"image": files[name]})["image"] for one in (prepare, plain))
                assert found.equal(wanted)
    assert [record.message.count("Hounsfield") for record in caplog.records] == [1]
    with pytest.raises(InputError, match="Unknown unexpected_input 'take'"):
        image_transforms(2, 64, LUNG, expected=expected, unexpected_input="take")


def test_colour_that_training_never_had_is_refused_and_grey_stored_as_colour_is_not(tmp_path):
    photograph = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    for name, values in (("grey", photograph[..., 0]), ("rgb", photograph[..., [0, 0, 0]]), ("photo", photograph)):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    expected = describe(look_at_sample([{"image": tmp_path / "grey.png"}])).as_dict()
    prepare = image_transforms(2, 8, expected=expected)
    assert prepare({"image": str(tmp_path / "rgb.png")})["image"].shape == (1, 8, 8)
    assert "it is in colour" in refused(prepare, str(tmp_path / "photo.png"))


@pytest.mark.parametrize("turned", [1, -1])
def test_a_mixture_is_found_wherever_it_stands(files, turned, caplog):
    mixed = ([files["ct.dcm"]] * 25 + [files["ct.png"]] * 20)[::turned]
    assert choose_window("auto", mixed) == "percentile"
    labelled = [{"image": image, "label": image.endswith("png")} for image in mixed]
    with caplog.at_level(logging.WARNING):
        describe(look_at_sample(labelled))
    assert "12 are in Hounsfield units and 12 are in another unit, for example" in caplog.text
    assert "12 are of the kind DICOM and 12 are of the kind picture" in caplog.text


def test_a_data_set_of_one_kind_is_not_remarked_on(files, caplog):
    with caplog.at_level(logging.WARNING):
        describe(look_at_sample([{"image": files["ct.dcm"]}] * 3))
    assert not caplog.records


def test_an_evaluation_is_refused_with_the_count_and_an_example(files):
    trained = {"window": LUNG, "expected": OF_CT.as_dict()}
    images = [files["ct.dcm"]] * 3 + [files["shot.dcm"], files["ct.png"]]
    for own in (False, True):
        with pytest.raises(InputError, match=r"^2 of 5 images aren't .* for example .*shot.dcm: its values"):
            refuse_unexpected(images, trained, own=own)
    assert refuse_unexpected(images, trained, "accept") == {"unexpected_input": "accept", "unexpected_images": 2}
    assert refuse_unexpected(images[:3], trained) == {}
    assert refuse_unexpected(images, {"window": LUNG}) == {}  # a model of before
    with pytest.raises(InputError, match="Unknown unexpected_input 'no'"):
        refuse_unexpected(images[:3], trained, "no")


def test_what_a_sample_may_have_missed_is_said_of_the_runs_own_images(tmp_path, caplog):
    trained = {"window": "percentile", "expected": describe([replace(SHOT, modality="MR")]).as_dict()}
    images = [str(write_picture(tmp_path / f"{name}.dcm", VIEW, Modality=name)) for name in ("MR", "PT")]
    with caplog.at_level(logging.WARNING):
        assert refuse_unexpected(images, trained, own=True) == {}
    assert "1 of 2 images differ from those of training, for example: its modality is PT" in caplog.text
    with pytest.raises(InputError, match="1 of 2 images aren't"):
        refuse_unexpected(images, trained)
