# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
from PIL import Image

from dual_skd.data.checking.salvage import load_for_check


def load(path, **options):
    return load_for_check(path, **{"spatial_dims": 2, "label_column": "label", "patient_pattern": None, **options})


def write_images(folder, count: int = 4) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


def test_a_good_set_comes_back_as_given_without_carving(tmp_path):
    write_images(tmp_path / "a"), write_images(tmp_path / "b")
    data, found = load(tmp_path)
    assert found == [] and [len(data.splits[split]) for split in ("train", "val", "test")] == [8, 0, 0]


def test_every_missing_image_of_a_table_is_named_and_the_others_are_kept(tmp_path):
    write_images(tmp_path)
    (tmp_path / "datalist.csv").write_text("image,label\n0.png,a\nlost.png,b\n1.png,b\ngone/2.png,a\n")
    data, found = load(tmp_path)
    assert [(one.kind, data.relative(one.image)) for one in found] == [
        ("missing", "lost.png"),
        ("missing", "gone/2.png"),
    ]
    assert found[0].detail == "entry 2 of datalist.csv names a file that isn't there"
    assert len(data.train) == 2 and data.class_names == ("a", "b")


def test_images_with_unknown_labels_are_named(tmp_path):
    write_images(tmp_path)
    entries = [{"image": f"{index}.png", "label": label} for index, label in enumerate(["0", "1", "nodule", "7"])]
    content = {"labels": {"0": "normal", "1": "nodule"}, "training": entries}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    data, found = load(tmp_path)
    assert [(one.kind, one.detail) for one in found] == [("unknown_label", "the label 7 is none of normal, nodule")]
    assert [record["label"] for record in data.train] == [0, 1, 1]


def test_a_set_with_one_class_keeps_its_images_and_its_refusal(tmp_path):
    write_images(tmp_path / "only")
    data, (refusal,) = load(tmp_path)
    assert refusal.kind == "data_set" and "one class only" in refusal.detail and len(data.train) == 4


def test_a_pattern_that_matches_nothing_hides_nothing_else(tmp_path):
    write_images(tmp_path / "a"), write_images(tmp_path / "b")
    data, (refusal,) = load(tmp_path, patient_pattern=r"(person\d+)")
    assert "matches no image" in refusal.detail and len(data.train) == 8


def test_a_table_that_cannot_be_read_gives_the_refusal_alone(tmp_path):
    (tmp_path / "datalist.csv").write_bytes(b"image,label\n\xff\xfe")
    data, (refusal,) = load(tmp_path)
    assert "UTF-8" in refusal.detail and data.source == "" and not any(data.splits.values())
