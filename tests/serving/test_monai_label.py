# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from dual_skd.data.demo import CLASSES_2D
from dual_skd.data.records.data_source import DataSource
from dual_skd.data.records.datalist import Items
from dual_skd.errors import InputError
from dual_skd.runs.model_file import bundle_root
from dual_skd.serving.monai_label import class_in, labelled_data

SCORES = [{"idx": 0, "label": "a", "score": 0.2}, {"idx": 1, "label": "b", "score": 0.7}]
LABELS = {
    "plain.txt": ("b\n", "b"),
    "without_ending": ("b", "b"),
    "name.json": ('"b"', "b"),
    "number.json": ("1", "1"),
    "object.json": ('{"label": "b", "user": "x"}', "b"),
    "answer.json": (json.dumps({"prediction": SCORES, "label_names": {"a": 0, "b": 1}}), "b"),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_label_file_names_a_class(tmp_path, name):
    content, expected = LABELS[name]
    (tmp_path / name).write_text(content)
    assert class_in(str(tmp_path / name)) == expected


def test_a_label_that_is_no_file_is_the_class_itself():
    assert class_in("pneumonia") == "pneumonia" and class_in(2) == "2"


@pytest.mark.parametrize("content", ["[1, 2]", "{", "{}", "null", "true", '""', '{"prediction": []}', "1.5"])
def test_other_label_files_are_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / "label.json").write_text(content)
    with pytest.raises(InputError, match=r"label\.json"):
        class_in(tmp_path / "label.json")


def test_a_mask_is_no_label(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n\xff")
    with pytest.raises(InputError, match=r"mask\.png"):
        class_in(tmp_path / "mask.png")


def test_its_own_records_leave_the_data_as_they_are(tmp_path):
    own = DataSource("mine")
    for given in (None, [], Items([{"image": "a.png", "label": 0}])):
        assert labelled_data(own, given, given, output_dir=tmp_path, bundle_root=tmp_path) is own
    assert not list(tmp_path.iterdir())


def test_both_parts_become_one_list_with_the_classes_of_the_metadata(tmp_path):
    names = sorted(CLASSES_2D)
    (tmp_path / "label.json").write_text(json.dumps({"label": names[1].upper()}))
    images = [tmp_path / f"{place}.png" for place in range(4)]
    for image in images:
        image.write_bytes(b"1")
    given = [
        {"image": str(image), "label": label}
        for image, label in zip(images, (names[0], 2, str(tmp_path / "label.json"), names[0]), strict=True)
    ]
    own = DataSource("demo", val_fraction=0, keep_twins=True, on_bad_file=None, patient_pattern="")
    data = labelled_data(own, given[:2], given[2:], output_dir=tmp_path / "run", bundle_root=bundle_root())
    assert data.class_names == tuple(names) and data.test == data.val == []
    assert {record["image"]: record["label"] for record in data.train} == {
        str(image): label for image, label in zip(images, (0, 2, 1, 0), strict=True)
    }


def test_a_class_that_the_bundle_does_not_know_is_an_error(tmp_path):
    given = [{"image": "a.png", "label": "fracture"}]
    with pytest.raises(InputError, match=r"'fracture'.*interstitial, nodule, normal.*channel_def"):
        labelled_data(DataSource("demo"), given, None, output_dir=tmp_path, bundle_root=bundle_root())
