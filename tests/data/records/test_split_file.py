# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dual_skd.data import DataList, load_records, load_split, save_split
from dual_skd.data.records.record import LeftOut, Record
from dual_skd.errors import InputError


def images(directory: Path, number: int) -> list[str]:
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"{place:02}.png" for place in range(number)]
    for place, path in enumerate(paths):
        Image.new("L", (4, 4), place * 10).save(path)
    return [str(path) for path in paths]


def data(directory: Path, *, multi_label: bool = False) -> DataList:
    labels = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 1.0]] if multi_label else [0, 1, 0, 1]
    records = [
        Record(path, label, f"p{place:02}", "AB"[place % 2], (("sex", "fm"[place // 8]),))
        for place, (path, label) in enumerate(zip(images(directory / "images", 16), labels * 4, strict=True))
    ]
    gone = replace(records[0], image="/gone.png")
    left_out = [LeftOut(**vars(gone), twin="/t.png", similarity=0.9, exact=False, split="test")]
    return DataList(
        root=directory, class_names=("well", "ill"), source="a folder", notes=["carved"], multi_label=multi_label,
        splits={"train": records[:10], "val": records[10:13], "test": records[13:]}, left_out=left_out,
    )  # fmt: skip


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_division_comes_back_as_it_was(tmp_path, multi_label):
    before = data(tmp_path, multi_label=multi_label)
    after = load_split(save_split(before, tmp_path / "run" / "datalist.json"))
    assert after.splits == before.splits and after.left_out == before.left_out
    assert after.class_names == ("well", "ill") and after.multi_label is multi_label and after.spatial_dims == 2


@pytest.mark.parametrize("names", [("1", "2"), ("1", "0")])
def test_names_that_are_numbers_are_not_taken_for_places(tmp_path, names):
    before = replace(data(tmp_path), class_names=names)
    after = load_split(save_split(before, tmp_path / "datalist.json"))
    assert after.class_names == names and after.splits == before.splits


def test_the_file_is_a_decathlon_data_list(tmp_path):
    content = json.loads(save_split(data(tmp_path), tmp_path / "datalist.json").read_text())
    assert content["labels"] == {"0": "well", "1": "ill"} and content["description"] == "a folder carved"
    assert {key: len(content[key]) for key in ("training", "validation", "test")} == {
        "training": 10, "validation": 3, "test": 3,
    }  # fmt: skip
    assert Path(content["training"][0]["image"]).is_absolute()


@pytest.mark.parametrize("empty", [["test"], ["val", "test"]])
def test_what_had_no_images_has_none_later(tmp_path, empty):
    before = data(tmp_path)
    for split in empty:
        before.splits[split].clear()
    assert load_split(save_split(before, tmp_path / "datalist.json")).splits == before.splits


def test_the_file_can_be_given_back_as_a_data_set(tmp_path):
    before = data(tmp_path)
    again = load_records(save_split(before, tmp_path / "datalist.json"), keep_twins=True)
    assert again.splits == before.splits and again.left_out == before.left_out


@pytest.mark.parametrize("searched", [False, True])
def test_a_search_for_twins_is_remembered_as_long_as_the_division_is_kept(tmp_path, searched):
    path = save_split(replace(data(tmp_path), twins_searched=searched), tmp_path / "datalist.json")
    assert load_split(path).twins_searched is searched
    assert load_records(path, keep_twins=True).twins_searched is searched
    assert load_records(path, keep_twins=True, train_fraction=0.5, patient_pattern="").twins_searched is searched
    assert not load_records(path, keep_twins=True, folds=3).twins_searched
    content = json.loads(path.read_text())
    content["training"] += content.pop("validation")
    path.write_text(json.dumps(content))
    assert not load_records(path, keep_twins=True, val_fraction=0.3).twins_searched


def test_images_of_one_patient_in_two_splits_are_refused(tmp_path):
    before = data(tmp_path)
    before.test[0] = replace(before.test[0], patient=before.train[3].patient)
    with pytest.raises(InputError, match="1 patient has images in both train and test .for example p03."):
        load_split(save_split(before, tmp_path / "datalist.json"))


def test_no_dicom_header_is_read_again(tmp_path, monkeypatch):
    from dual_skd.data.records import patients

    monkeypatch.setattr(patients, "_by_header", lambda rows: pytest.fail("looked for patients"))
    before = data(tmp_path)
    before.splits["train"] = [replace(record, patient="") for record in before.train]
    load_split(save_split(before, tmp_path / "datalist.json"))


@pytest.mark.parametrize("content", ["{broken", "[]", "{}", "3"])
def test_a_file_of_another_kind_is_said(tmp_path, content):
    (tmp_path / "datalist.json").write_text(content)
    with pytest.raises(InputError, match="is not the division that a training run wrote"):
        load_split(tmp_path / "datalist.json")


def test_a_missing_file_or_image_is_said(tmp_path):
    with pytest.raises(InputError, match="images that this model was trained on aren't known"):
        load_split(tmp_path / "datalist.json")
    path = save_split(data(tmp_path), tmp_path / "datalist.json")
    (tmp_path / "images" / "00.png").unlink()
    with pytest.raises(InputError, match="00.png does not exist"):
        load_split(path)
