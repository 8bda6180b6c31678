# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

from dual_skd.data.checking.clean_list import clean_records, duplicate_groups, write_clean_list
from dual_skd.data.checking.findings import Findings
from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.record import Record


def record(name: str, label: int | list[float] | None = 0, patient: str = "") -> Record:
    return Record(f"/d/{name}", label, patient)


def data(train: list[Record], test: list[Record], **options) -> DataList:
    return DataList(Path("/d"), ("well", "ill"), {"train": train, "val": [], "test": test}, "d", **options)


def found(*pairs: str, unreadable: str = "") -> Findings:
    twins = [{"image": pair[0], "twin": pair[1]} for pair in pairs]
    offenders = [{"image": name, "split": "train", "kind": "truncated", "detail": ""} for name in unreadable]
    return Findings(counts={}, offenders=offenders, twins=twins)


def kept(splits: dict[str, list[Record]]) -> str:
    return "".join(Path(one.image).name for records in splits.values() for one in records)


def test_groups_are_closed_under_being_copies():
    groups = duplicate_groups([("a", "b"), ("c", "d"), ("b", "e"), ("f", "c")])
    assert sorted(map(sorted, groups)) == [["a", "b", "e"], ["c", "d", "f"]]


def test_of_copies_the_test_image_stays_and_else_the_first():
    given = data([record(name) for name in "abcd"], [record(name) for name in "xyz"])
    records, notes = clean_records(given, found("xa", "ab", "cd", "yz"))
    assert kept(records) == "cxy"
    assert notes == ["4 images are copies"]
    assert {split: len(members) for split, members in records.items()} == {"train": 1, "val": 0, "test": 2}


def test_copies_with_different_labels_go_together():
    given = data([record("a", 0), record("b", 1), record("c")], [record("x", 1)])
    records, notes = clean_records(given, found("xa", "ab"))
    assert kept(records) == "c" and notes == ["3 images are copies with different labels"]


def test_an_unusable_file_goes_and_its_copy_stays():
    given = data([record("a"), record("b")], [])
    records, notes = clean_records(given, found("ab", unreadable="a"))
    assert kept(records) == "b" and notes == ["1 image can't be used"]


def test_a_patient_of_two_splits_stays_in_the_test_split_only():
    given = data([record("a", patient="p"), record("b", patient="q"), record("c")], [record("x", patient="p")])
    records, notes = clean_records(given, found())
    assert kept(records) == "bcx" and notes == ["1 image is of a patient in another split too"]
    # where the test image goes as a copy of another one, the patient's training images may stay
    given = data([record("a", patient="p")], [record("w"), record("x", patient="p")])
    assert kept(clean_records(given, found("wx"))[0]) == "aw"


def test_the_list_is_a_table_that_training_reads(tmp_path):
    file = tmp_path / "clean.csv"
    write_clean_list(data([record("a", 1, "p")], [record("x")]), {"train": [record("a", 1, "p")]}, file)
    assert file.read_text().splitlines() == ["image,label,split,patient,site", "/d/a,ill,train,p,"]


def test_the_list_of_a_set_with_several_labels_has_a_column_per_class(tmp_path):
    file = tmp_path / "clean.csv"
    several = data([record("a")], [], multi_label=True)
    labels = {"a": [1.0, 0.0], "b": [0.0, 0.0], "c": [0.0, 1.0]}
    write_clean_list(several, {"train": [record(k, label) for k, label in labels.items()]}, file)
    assert file.read_text().splitlines() == [
        "image,well,ill,split,patient,site", "/d/a,1,0,,,", "/d/b,0,0,,,", "/d/c,0,1,,,"
    ]  # fmt: skip


def test_images_without_labels_stay_where_they_can_be_used():
    given = data([record("a")], [record("x")], unlabelled=[record("u", None), record("v", None)])
    records, notes = clean_records(given, found(unreadable="v"))
    assert kept(records) == "axu" and [one.image for one in records["unlabelled"]] == ["/d/u"]
    assert notes == ["1 image can't be used"]


def test_images_without_labels_are_a_split_of_the_list(tmp_path):
    file, splits = tmp_path / "clean.csv", {"train": [record("a", 1)], "unlabelled": [record("u", None, "p")]}
    write_clean_list(data([record("a", 1)], []), splits, file)
    assert file.read_text().splitlines()[1:] == ["/d/a,ill,,,", "/d/u,,unlabelled,p,"]
    splits["train"] = [record("a", [0.0, 1.0])]
    write_clean_list(data([record("a")], [], multi_label=True), splits, file)
    assert file.read_text().splitlines()[1:] == ["/d/a,0,1,,,", "/d/u,,,unlabelled,p,"]
