# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_dicom
from PIL import Image

from dual_skd.cli.dispatch import main
from dual_skd.data import load_evaluation_records, load_records, load_split, paths_of, save_split
from dual_skd.data.near_duplicates import search as searching
from dual_skd.errors import InputError


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(coarse).resize((64, 64)).save(path)
    return path


def table(path: Path, rows: list[str], columns: str = "image,label,split,patient") -> Path:
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


@pytest.fixture
def here(tmp_path) -> Path:
    """Twelve pictures of twelve patients, six of them to be trained on, three each for validation and test."""
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    for k in range(12):
        picture(tmp_path / f"{k}.png", k)
    table(tmp_path / "list.csv", [f"{k}.png,{'ab'[k % 2]},{split},p{k}" for k, split in enumerate(splits)])
    return tmp_path


def names(records) -> list[str]:
    return sorted(os.path.basename(image) for image in paths_of(records))


def more(folder: Path, count: int = 4) -> Path:
    for k in range(count):
        picture(folder / f"u{k}.png", 100 + k)
    return folder


def test_a_split_of_a_table_holds_images_whose_labels_are_not_read(here):
    more(here)
    rows = (here / "list.csv").read_text().splitlines()[1:]
    rows += ["u0.png,,unlabelled,q0", "u1.png,a,Unlabeled,q1", "u2.png,strange,unlabelled,"]
    plain = load_records(here / "list.csv")
    data = load_records(table(here / "with.csv", rows))
    assert names(data.unlabelled) == ["u0.png", "u1.png", "u2.png"]
    assert [record.label for record in data.unlabelled] == [None] * 3 and data.class_names == ("a", "b")
    assert [record.patient for record in data.unlabelled] == ["q0", "q1", ""]
    assert "label" not in data.unlabelled[0] and data.unlabelled[0].positive_labels == []
    assert {split: names(records) for split, records in data.splits.items()} == {
        split: names(records) for split, records in plain.splits.items()
    }
    assert data.hash != plain.hash and "without labels: 3 images" in data.describe()


def test_empty_labels_count_where_the_rest_is_asked_for_and_are_left_out_else(here):
    more(here)
    rows = (here / "list.csv").read_text().splitlines()[1:]
    path = table(here / "with.csv", [*rows, "u0.png,,train,q0", "u1.png,NaN,train,q1", "u2.png,none,train,q2"])
    without = load_records(path, class_map={"none": ""})
    assert without.unlabelled == [] and any("3 images without a label" in note for note in without.notes)
    data = load_records(path, unlabelled="rest", class_map={"none": ""})
    assert names(data.unlabelled) == ["u0.png", "u1.png"]  # a label that the map removes isn't an empty one
    assert any("1 image without a label" in note for note in data.notes)


def test_a_class_whose_name_looks_like_an_empty_cell_is_none_of_the_rest(here):
    more(here)
    rows = (here / "list.csv").read_text().splitlines()[1:]
    path = table(here / "with.csv", [*rows, "u0.png,None,train,q0", "u1.png,,train,q1", "u2.png,None,train,q2"])
    data = load_records(path, unlabelled="rest", class_map={"None": "None"})
    assert data.class_names == ("None", "a", "b") and names(data.unlabelled) == ["u1.png"]
    assert {"u0.png", "u2.png"} <= set(names(data.train))


def test_the_rest_are_the_training_images_that_the_share_leaves_out(here):
    whole, part = load_records(here / "list.csv"), load_records(here / "list.csv", train_fraction=0.5)
    data = load_records(here / "list.csv", train_fraction=0.5, unlabelled="rest")
    assert names(data.train) == names(part.train) and part.unlabelled == []
    assert names(data.train + data.unlabelled) == names(whole.train)
    assert {record.label for record in data.unlabelled} == {None}
    # validation images that the share leaves out stay validation images
    assert not set(names(data.unlabelled)) & set(names(whole.val + whole.test))


def test_a_folder_of_any_depth_and_a_table_give_images_and_those_of_other_splits_are_passed_over(here):
    folder = more(here.parent / f"{here.name}_more" / "deep" / "er").parent.parent
    picture(folder / "test" / "t.png", 200)
    data = load_records(here / "list.csv", unlabelled=str(folder))
    assert names(data.unlabelled) == ["u0.png", "u1.png", "u2.png", "u3.png"]
    rows = ["deep/er/u0.png,train,q0,north", "deep/er/u1.png,,NA,", "test/t.png,test,q2,"]
    listed = table(folder / "list.csv", rows, "image,split,subject_id,site")
    data = load_records(here / "list.csv", unlabelled=str(listed))
    assert [(os.path.basename(one.image), one.patient, one.site) for one in data.unlabelled] == [
        ("u0.png", "q0", "north"), ("u1.png", "", ""),
    ]  # fmt: skip


def test_copies_of_held_out_images_are_left_out_and_the_held_out_images_stay(here):
    folder = more(here / "more", 2)
    shutil.copy(here / "10.png", folder / "exact.png")
    Image.open(here / "7.png").save(folder / "near.jpg", quality=80)
    shutil.copy(here / "0.png", folder / "of_training.png")
    os.symlink(here / "1.png", folder / "link.png")  # a training image itself
    plain = load_records(here / "list.csv")
    data = load_records(here / "list.csv", unlabelled=str(folder))
    assert names(data.unlabelled) == ["of_training.png", "u0.png", "u1.png"]
    assert [names(data.splits[split]) for split in ("val", "test")] == [names(plain.val), names(plain.test)]
    left = {os.path.basename(one.image): one for one in data.left_out}
    assert {name: (one.split, os.path.basename(one.twin)) for name, one in left.items()} == {
        "exact.png": ("unlabelled", "10.png"), "near.jpg": ("unlabelled", "7.png"),
    }  # fmt: skip
    assert left["exact.png"].exact and any("twin in the validation and test images (1 exact" in n for n in data.notes)
    kept = load_records(here / "list.csv", unlabelled=str(folder), keep_twins=True)
    assert len(kept.unlabelled) == 5


def test_the_check_that_a_note_names_searches_the_images_without_labels_once_for_all(here, monkeypatch, capsys):
    folder = more(here / "more", 2)
    shutil.copy(here / "10.png", folder / "exact.png")
    monkeypatch.setattr(searching, "AUTO_MAX_IMAGES", 2)
    table_of_all, given = here / "list.csv", {"unlabelled": str(folder)}
    (note,) = [one for one in load_records(table_of_all, **given).notes if "9 images were not searched" in one]
    assert f"`dual-skd check {table_of_all} --unlabelled {folder}` does it once" in note
    assert main(note.split("`")[1].split()[1:]) == 0
    assert "1 image without a label is a copy" in " ".join(capsys.readouterr().out.split())
    data = load_records(table_of_all, **given)
    assert names(data.unlabelled) == ["u0.png", "u1.png"] and not any("not searched" in one for one in data.notes)


def test_images_of_patients_with_held_out_images_are_left_out(here):
    more(here)
    rows = [f"u{k}.png,{patient}" for k, patient in enumerate(["P7", "p 11", "p0", "q"])]
    listed = table(here / "more.csv", rows, "image,patient")
    data = load_records(here / "list.csv", unlabelled=str(listed))
    kept = {os.path.basename(one.image) for one in data.unlabelled}
    assert {"u2.png", "u3.png"} <= kept and "u0.png" not in kept
    assert any("have validation or test images" in note for note in data.notes)
    # a pattern finds patients in both
    shutil.copy(here / "u3.png", picture(here / "more" / "p8_x.png", 300))
    data = load_records(here / "list.csv", unlabelled=str(here / "more"), patient_pattern="p(nothing)")
    assert names(data.unlabelled) == ["p8_x.png"]  # the list names the patients, so a pattern isn't used


def test_where_nothing_is_left_it_is_said(here):
    listed = table(here / "more.csv", ["6.png,p6", "0.png,p0"], "image,patient")
    with pytest.raises(InputError, match="Each image without a label is a training, validation or test image"):
        load_records(here / "list.csv", unlabelled=str(listed))
    data = load_records(here / "list.csv", unlabelled="rest")  # a learning curve ends with all labels
    assert data.unlabelled == [] and "train_fraction leaves none out" in data.doubts[-1] == data.notes[-1]
    with pytest.raises(InputError, match="unlabelled is demo, whose images all have labels"):
        load_records(here / "list.csv", unlabelled="demo")
    (here / "bad").mkdir()
    (here / "bad" / "u.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    with pytest.raises(InputError, match="bad has no image without a label that can be used"):
        load_records(here / "list.csv", unlabelled=str(here / "bad"), on_bad_file="skip")
    with pytest.raises(InputError, match="does not exist"):
        load_records(here / "list.csv", unlabelled=str(here / "nothing"))


def test_files_that_can_not_be_used_are_refused_or_skipped(here):
    folder = more(here / "more", 2)
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    with pytest.raises(InputError, match=r"bad\.png"):
        load_records(here / "list.csv", unlabelled=str(folder))
    data = load_records(here / "list.csv", unlabelled=str(folder), on_bad_file="skip")
    assert names(data.unlabelled) == ["u0.png", "u1.png"]
    assert [os.path.basename(one["image"]) for one in data.unusable] == ["bad.png"]


def test_a_split_file_keeps_them_and_gives_them_back(here):
    folder = more(here / "more", 3)
    shutil.copy(here / "10.png", folder / "exact.png")
    data = load_records(here / "list.csv", unlabelled=str(folder))
    path = save_split(data, here / "run" / "datalist.json")
    entry = json.loads(path.read_text())["unlabelled"][0]
    assert "label" not in entry and os.path.isabs(entry["image"])
    for again in (load_split(path), load_records(path, patient_pattern="")):
        assert names(again.unlabelled) == names(data.unlabelled) and names(again.train) == names(data.train)
        assert [one.split for one in again.left_out] == ["unlabelled"]
    plain = save_split(load_records(here / "list.csv"), here / "plain.json")
    assert "unlabelled" not in json.loads(plain.read_text())


def test_an_external_test_set_loses_the_images_that_were_trained_on_without_labels(here):
    folder = more(here / "other" / "a", 4).parent
    for k in range(4):
        picture(folder / "b" / f"v{k}.png", 200 + k)
    listed = table(here / "more.csv", [f"other/a/u{k}.png" for k in range(2)], "image")
    run = save_split(load_records(here / "list.csv", unlabelled=str(listed)), here / "run" / "datalist.json")
    found = load_evaluation_records(run, folder, class_names=("a", "b"))
    assert names(found.test) == ["u2.png", "u3.png", "v0.png", "v1.png", "v2.png", "v3.png"]


def test_a_folder_unlabelled_beside_classes_or_splits(here, tmp_path):
    for layout in ("classes", "splits"):
        root = tmp_path / layout
        for k in range(8):
            picture(root / ("train" if layout == "splits" else "") / "ab"[k % 2] / f"{k}.png", k)
        more(root / "unlabelled" / "x", 2)
        data = load_records(root, val_fraction=0, test_fraction=0)
        assert data.class_names == ("a", "b") and names(data.unlabelled) == ["u0.png", "u1.png"]
        assert len(data.train) == 8 and not any("left out" in note for note in data.notes)


def test_dicom_files_without_a_line_in_the_table_are_the_rest(tmp_path):
    for k in range(8):
        write_dicom(tmp_path / f"{k}.dcm", np.random.default_rng(k).integers(0, 4000, (40, 40)), PatientID=f"N{k}")
    lines = [f"N{k},{'ab'[k % 2]}" for k in range(4)] + ["N4,"]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["PatientID", "label"], *(line.split(",") for line in lines)])
    options = {"val_fraction": 0, "test_fraction": 0}
    assert load_records(tmp_path, **options).unlabelled == []
    data = load_records(tmp_path, unlabelled="rest", **options)
    assert names(data.unlabelled) == ["4.dcm", "5.dcm", "6.dcm", "7.dcm"]
    assert [one.patient for one in data.unlabelled] == ["N4", "N5", "N6", "N7"]


def test_a_dicom_tree_needs_no_labels_and_its_test_patients_are_passed_over(tmp_path, here):
    tree = tmp_path / "tree"
    tree.mkdir()
    for k in range(4):
        write_dicom(tree / f"{k}.dcm", np.random.default_rng(k).integers(0, 4000, (40, 40)), PatientID=f"N{k}")
    (tree / "labels.csv").write_text("PatientID,split\nN0,train\nN1,train\nN2,test\n")
    data = load_records(here / "list.csv", unlabelled=str(tree))
    assert names(data.unlabelled) == ["0.dcm", "1.dcm", "3.dcm"]
    assert [one.patient for one in data.unlabelled] == ["N0", "N1", "N3"]


def test_an_npz_file_gives_its_training_images(tmp_path, here):
    arrays = {
        f"{part}_{what}": np.random.default_rng(k).integers(0, 2 if what == "labels" else 256, shape).astype(np.uint8)
        for k, part in enumerate(("train", "test"))
        for what, shape in (("images", (3, 28, 28)), ("labels", (3, 1)))
    }
    np.savez(tmp_path / "more.npz", **arrays)
    data = load_records(here / "list.csv", unlabelled=str(tmp_path / "more.npz"))
    assert [one.image.split("#")[1] for one in data.unlabelled] == ["train/0", "train/1", "train/2"]


def test_a_split_is_only_read_of_images_that_are_used(here):
    more(here)
    rows = (here / "list.csv").read_text().splitlines()[1:]
    path = table(here / "with.csv", [*rows, "u0.png,,retired,q0", "u1.png,,NA,q1"])
    assert load_records(path).unlabelled == []
    assert names(load_records(path, unlabelled="rest").unlabelled) == ["u0.png", "u1.png"]


def test_a_pattern_finds_patients_in_a_place_that_names_none_though_the_list_names_its_own(here):
    for seed, name in enumerate(("p0_x", "p8_x", "u")):  # p8 has a validation image
        picture(here / "more" / f"{name}.png", 300 + seed)
    data = load_records(here / "list.csv", unlabelled=str(here / "more"), patient_pattern=r"^more/(p\d+)_")
    assert {os.path.basename(one.image): one.patient for one in data.unlabelled} == {"p0_x.png": "p0", "u.png": ""}
    assert any("have validation or test images" in note for note in data.notes)


def test_a_pattern_that_is_no_regular_expression_is_refused(here):
    more(here / "more", 2)
    for pattern, words in ((r"(p\d", "is not a regular expression"), (r"p\d", "needs one group")):
        with pytest.raises(InputError, match=words):
            load_records(here / "list.csv", unlabelled=str(here / "more"), patient_pattern=pattern)
