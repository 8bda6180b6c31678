# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dual_skd.data import load_records
from dual_skd.data.near_duplicates.finder import NearDuplicateFinder
from dual_skd.data.records.datalist import MAX_CLASSES_COUNTED
from dual_skd.data.records.labels import in_order
from dual_skd.data.records.record import LeftOut, Record
from dual_skd.errors import InputError
from dual_skd.utils.spelling import spellings_of_one


def picture(path: Path, value: int = 0) -> Path:
    """A small PNG with its own noise, so that no two are twins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([value, sum(map(ord, str(path.name)))]).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def class_folders(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        for index in range(count):
            picture(root / name / f"{name}_{index:03d}.png", index)
    return root


def table(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def load(where: Path, **options):
    return load_records(where, **{"keep_twins": True, **options})


def images(records: list[Record]) -> set[str]:
    return {record["image"] for record in records}


def test_class_folders_are_divided_without_overlap_and_stratified(tmp_path):
    data = load(class_folders(tmp_path, {"b_ill": 40, "a_well": 60}))
    assert data.class_names == ("a_well", "b_ill")
    assert (len(data.test), len(data.val), len(data.train)) == (20, 12, 68)
    assert data.class_counts("test") == [12, 8]
    parts = [images(data.splits[split]) for split in ("train", "val", "test")]
    assert len(set.union(*parts)) == 100 and sum(map(len, parts)) == 100


def test_a_data_list_is_read_as_sentences_in_a_notebook(tmp_path):
    data = load(class_folders(tmp_path, {"normal": 10, "pneumonia": 10}))
    assert repr(data) == data.describe() and "pneumonia)" in repr(data) and "image'" not in repr(data)


def test_the_same_seed_divides_the_same_way_and_another_one_does_not(tmp_path):
    class_folders(tmp_path, {"a": 20, "b": 20})
    first, again, other = load(tmp_path), load(tmp_path), load(tmp_path, seed=1)
    assert first.splits == again.splits and first.hash == again.hash
    assert images(first.test) != images(other.test) and first.hash != other.hash


def test_the_hash_does_not_depend_on_where_the_data_lie_but_on_their_files(tmp_path):
    one = load(class_folders(tmp_path / "one", {"a": 5, "b": 5}))
    two = load(class_folders(tmp_path / "two", {"a": 5, "b": 5}))
    assert one.hash == two.hash
    Path(two.train[0]["image"]).write_bytes(b"other length")
    assert one.hash != load(tmp_path / "two", on_bad_file=None).hash


def test_given_splits_are_kept_under_all_their_names(tmp_path):
    class_folders(tmp_path / "Training", {"a": 6, "b": 6})
    class_folders(tmp_path / "valid", {"a": 2, "b": 1})
    class_folders(tmp_path / "testing", {"a": 3, "b": 4})
    data = load(tmp_path)
    assert {split: data.class_counts(split) for split in data.splits} == {
        "train": [6, 6],
        "val": [2, 1],
        "test": [3, 4],
    }


def test_a_missing_validation_set_is_carved_but_a_given_split_gets_no_test_set(tmp_path):
    data = load(class_folders(tmp_path / "train", {"a": 20, "b": 20}).parent, val_fraction=0.25)
    assert (len(data.train), len(data.val), len(data.test)) == (30, 10, 0)


def test_train_fraction_shrinks_training_and_validation_but_never_the_test_set(tmp_path):
    class_folders(tmp_path, {"a": 50, "b": 50})
    full, tenth, third = (load(tmp_path, train_fraction=fraction) for fraction in (1.0, 0.1, 0.3))
    assert images(full.test) == images(tenth.test)
    assert len(tenth.train) + len(tenth.val) == 8 and Counter(r["label"] for r in tenth.train + tenth.val) == {
        0: 4,
        1: 4,
    }
    assert images(tenth.train + tenth.val) < images(third.train + third.val) < images(full.train + full.val)


def test_patients_are_never_in_two_splits(tmp_path):
    for patient in range(30):
        for image in range(1 + patient % 4):
            picture(tmp_path / ("a" if patient % 2 else "b") / f"person{patient}_{image}.png", patient)
    data = load(tmp_path, patient_pattern=r"person(\d+)_")
    patients = [{record["patient"] for record in data.splits[split]} for split in ("train", "val", "test")]
    assert all(patients) and not patients[0] & patients[1] and not (patients[0] | patients[1]) & patients[2]
    assert sum(map(len, patients)) == 30


def test_a_csv_with_splits_and_patients_is_read(tmp_path):
    for name in "abcdef":
        picture(tmp_path / "img" / f"{name}.png")
    rows = ["img/a.png,ill,train,p1", "img/b.png,well,train,p2", "img/c.png,ill,train,p3", "img/d.png,well,train,p4"]
    table(
        tmp_path / "datalist.csv",
        "image,label,split,patient",
        [*rows, "img/e.png,ill,test,p5", "img/f.png,well,val,p6"],
    )
    data = load(tmp_path)
    assert data.class_names == ("ill", "well")
    assert data.test == [{"image": str(tmp_path / "img/e.png"), "label": 0, "patient": "p5", "site": ""}]
    assert [record["label"] for record in data.train] == [0, 1, 0, 1]


def test_numbers_are_sorted_as_numbers_and_become_places(tmp_path):
    rows = [f"{picture(tmp_path / f'{i}.png', i).name},{grade}" for i, grade in enumerate([10, 2, 9] * 8)]
    data = load(table(tmp_path / "list.csv", "image,label", rows))
    assert data.class_names == ("2", "9", "10")
    named = load(
        table(tmp_path / "list.csv", "image,label", [r.split(",")[0] + f",{i % 2}" for i, r in enumerate(rows)]),
        class_names=["well", "ill"],
    )
    assert named.class_names == ("well", "ill") and {r["label"] for r in named.train} == {0, 1}


def test_names_of_one_number_have_one_order():
    assert in_order({"2", "10", "1", "01"}) == in_order({"01", "1", "2", "10"}) == ["01", "1", "2", "10"]
    assert all(in_order(names) == ["01", "1"] for names in (["1", "01"], ["01", "1"]))
    assert in_order(["b", "10", "2"]) == ["10", "2", "b"]


def test_several_label_columns_and_joined_labels_are_multi_label(tmp_path):
    names = [picture(tmp_path / f"{i}.png", i).name for i in range(8)]
    flags = [(1, 0), (0, 1), (1, 1), (0, 0)] * 2
    rows = [f"{name},{a},{b}" for name, (a, b) in zip(names, flags, strict=True)]
    by_column = load(
        table(tmp_path / "a.csv", "image,x,y", rows), label_column=["x", "y"], val_fraction=0, test_fraction=0
    )
    assert by_column.multi_label and [r["label"] for r in by_column.train][:4] == [
        [1.0, 0.0],
        [0.0, 1.0],
        [1.0, 1.0],
        [0.0, 0.0],
    ]
    rows = [
        f"{name},{'|'.join(n for n, f in zip('xy', flag, strict=True) if f)}"
        for name, flag in zip(names, flags, strict=True)
    ]
    joined = load(table(tmp_path / "b.csv", "image,label", rows), val_fraction=0, test_fraction=0)
    by_column.train[:] = [record for record in by_column.train if any(record["label"])]  # an empty cell has no label
    assert [r["label"] for r in joined.train] == [r["label"] for r in by_column.train]
    barred = table(tmp_path / "c.csv", "image,left|right,y", [f"{name},1,{i % 2}" for i, name in enumerate(names)])
    fails(
        barred,
        "found left|right: rename the column.",
        label_column=["left|right", "y"],
    )


def test_a_decathlon_json_is_read_with_its_class_names(tmp_path):
    entries = [{"image": picture(tmp_path / f"{i}.png", i).name, "label": i % 2} for i in range(10)]
    content = {
        "labels": {"0": "well", "1": "ill"},
        "training": entries[:6],
        "validation": entries[6:8],
        "test": entries[8:],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    data = load(tmp_path)
    assert data.class_names == ("well", "ill")
    assert [len(data.splits[s]) for s in ("train", "val", "test")] == [6, 2, 2]


def test_numbers_of_a_decathlon_json_are_those_that_it_declares(tmp_path):
    entries = [{"image": picture(tmp_path / f"{i}.png", i).name, "Label": i % 2 + 1} for i in range(10)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1": "well", "2": "ill"}, "training": entries}))
    data = load(tmp_path, val_fraction=0, test_fraction=0, label_column="Label")
    assert data.class_names == ("well", "ill")
    assert [record["label"] for record in sorted(data.train, key=lambda record: int(Path(record["image"]).stem))] == [
        0,
        1,
    ] * 5


def test_test_images_without_labels_are_left_out_and_noted(tmp_path):
    entries = [{"image": picture(tmp_path / f"{i}.png", i).name, "label": i % 2} for i in range(10)]
    (tmp_path / "d.json").write_text(json.dumps({"training": entries, "test": [picture(tmp_path / "x.png", 99).name]}))
    data = load(tmp_path / "d.json")
    assert data.test == [] and "1 image without a label in d.json was left out" in data.notes


def test_class_weights_balance_the_classes(tmp_path):
    data = load(class_folders(tmp_path / "train", {"a": 30, "b": 10}).parent, val_fraction=0)
    assert data.class_weights().tolist() == pytest.approx([40 / 60, 40 / 20])


def test_the_description_names_counts_and_decisions(tmp_path):
    data = load(class_folders(tmp_path, {"a": 10, "b": 10}))
    lines = data.describe().splitlines()
    assert lines[0] == f"Data: {data.source}" and "  test: 4 images (2 a, 2 b)" in lines
    assert any(line.startswith("  No split was given") for line in lines)


def test_the_description_has_no_empty_parts(tmp_path):
    data = load(class_folders(tmp_path / "train", {"a": 10, "b": 10}).parent, val_fraction=0)
    train, patients = data.describe().splitlines()[1:]
    assert train == "  train: 20 images (10 a, 10 b)" and patients.startswith("  No patients are known, so each image ")


def test_very_many_classes_are_not_counted_one_by_one(tmp_path):
    folders = {f"c{k:02d}": 2 + (k == 0) for k in range(MAX_CLASSES_COUNTED + 1)}
    data = load(class_folders(tmp_path / "train", folders).parent, val_fraction=0)
    assert data.counted("train") == "23 images (2 to 3 of each of 11 classes)"


def test_twins_of_training_images_leave_the_test_set_by_default(tmp_path):
    class_folders(tmp_path / "train", {"a": 8, "b": 8})
    class_folders(tmp_path / "test", {"a": 3, "b": 3})
    copied = tmp_path / "train" / "a" / "a_005.png"
    (tmp_path / "test" / "a" / "copy.png").write_bytes(copied.read_bytes())
    kept, cleaned = load(tmp_path, val_fraction=0), load_records(tmp_path, val_fraction=0)
    gone = images(kept.test) - images(cleaned.test)
    assert str(tmp_path / "test" / "a" / "copy.png") in gone
    assert any("twin" in note for note in cleaned.notes)


def test_images_that_left_as_twins_are_kept_apart_with_their_twin(tmp_path):
    class_folders(tmp_path / "train", {"a": 8, "b": 8})
    class_folders(tmp_path / "test", {"c_a": 3})
    (tmp_path / "test" / "c_a").rename(tmp_path / "test" / "a")
    copied = tmp_path / "train" / "a" / "a_005.png"
    copy = tmp_path / "test" / "a" / "copy.png"
    copy.write_bytes(copied.read_bytes())
    data = load_records(tmp_path, val_fraction=0)
    (left_out,) = data.left_out
    assert left_out == {
        "image": str(copy), "label": 0, "patient": "", "site": "",
        "split": "test", "twin": str(copied), "similarity": 1.0, "exact": True,
    }  # fmt: skip
    assert len(data.test) == 3 and load(tmp_path).left_out == []
    unsearched = load_records(tmp_path, val_fraction=0, twin_search="never")
    assert len(unsearched.test) == 4 and any("not searched for copies" in note for note in unsearched.notes)
    assert data.twins_searched and not unsearched.twins_searched and not load(tmp_path).twins_searched


def test_folds_share_the_test_set_and_divide_the_rest(tmp_path):
    class_folders(tmp_path, {"a": 50, "b": 50})
    parts = [load(tmp_path, folds=4, fold=fold) for fold in range(4)]
    assert len({frozenset(images(data.test)) for data in parts}) == 1 and len(parts[0].test) == 20
    assert [len(data.val) for data in parts] == [20] * 4
    everything = images(parts[0].train + parts[0].val)
    assert set.union(*[images(data.val) for data in parts]) == everything and len(everything) == 80
    assert all(images(data.train) == everything - images(data.val) for data in parts)
    assert "the 20 validation images are fold 3 of 4 (seed 0)" in parts[3].notes
    assert images(load(tmp_path, folds=4, seed=1).test) != images(parts[0].test)


def test_a_given_validation_set_joins_the_folds(tmp_path):
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        class_folders(tmp_path / split, {"a": count, "b": count})
    data = load(tmp_path, folds=3)
    assert (len(data.train), len(data.val), len(data.test)) == (12, 6, 4)
    assert "the 6 validation images joined the training images, to be divided in folds" in data.notes


def test_a_class_that_a_test_set_lacks_is_told(tmp_path):
    class_folders(tmp_path / "train", {"a": 9, "b": 9, "c": 9})
    class_folders(tmp_path / "test", {"a": 3})
    data = load(tmp_path)
    assert "there are no test images of b, c, so some metrics can't be computed" in data.notes


def test_sites_are_kept_and_divided_in_proportion(tmp_path):
    names = [picture(tmp_path / f"{i}.png", i).name for i in range(80)]
    rows = [f"{name},{'ab'[i % 2]},{'north' if i % 4 < 2 else 'south'}" for i, name in enumerate(names)]
    data = load(table(tmp_path / "t.csv", "image,label,site", rows))
    assert Counter((r["label"], r["site"]) for r in data.test) == {
        (0, "north"): 4, (0, "south"): 4, (1, "north"): 4, (1, "south"): 4,
    }  # fmt: skip


def test_patients_of_folders_stay_together_and_are_told(tmp_path):
    for patient in range(20):
        for number in range(3):
            picture(tmp_path / "ab"[patient % 2] / f"p{patient}" / f"{number}.png", patient)
    (tmp_path / "a" / ".DS_Store").touch()
    data = load(tmp_path)
    assert "patients are the folders inside the class folders (20)" in data.notes
    assert data.ignored == (str(tmp_path / "a" / ".DS_Store"),)
    patients = [{r["patient"] for r in data.splits[split]} for split in data.splits]
    assert sum(map(len, patients)) == 20 == len(set.union(*patients))
    assert {r["patient"] for r in load(tmp_path, patient_pattern="").train} == {""}


def test_medmnist_files_series_and_fragments_have_a_hash(tmp_path):
    shapes = {f"{split}_images": np.zeros((count, 8, 8), np.uint8) for split, count in (("train", 8), ("test", 4))}
    labels = {f"{split}_labels": np.arange(count)[:, None] % 2 for split, count in (("train", 8), ("test", 4))}
    np.savez(tmp_path / "s.npz", **shapes, **labels)
    data = load(tmp_path / "s.npz", class_names=["well", "ill"])
    assert data.class_counts("test") == [2, 2] and data.test[1]["image"] == f"{tmp_path / 's.npz'}#test/1"
    assert data.hash != load(tmp_path / "s.npz", seed=1).hash
    for name in ("series", "several"):
        picture(tmp_path / name / "1.png")
    lines = ["series,a,train", "several#1.2.3,b,train", "several#1.2.4,a,test"]
    first = load(table(tmp_path / "t.csv", "image,label,split", lines), on_bad_file=None).hash
    (tmp_path / "several" / "1.png").write_bytes(b"other size")
    assert load(tmp_path / "t.csv", on_bad_file=None).hash != first


def fails(where: Path, *words: str, **options) -> None:
    with pytest.raises(InputError) as caught:
        load(where, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_an_absent_path_is_answered_with_the_nearest_name(tmp_path):
    class_folders(tmp_path / "chest_xray", {"a": 2, "b": 2})
    fails(tmp_path / "chest_xrya", "does not exist", "did you mean", "chest_xray")


def test_folders_that_cannot_be_used_say_why(tmp_path):
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "No images found", "no class folders")
    class_folders(tmp_path / "hole", {"a": 3, "b": 3})
    (tmp_path / "hole" / "c").mkdir()
    fails(tmp_path / "hole", "without images", "c;")
    class_folders(tmp_path / "absent" / "train", {"a": 3})
    class_folders(tmp_path / "absent" / "test", {"a": 3, "b": 3})
    fails(tmp_path / "absent", "No training images of b")
    fails(class_folders(tmp_path / "single", {"a": 3}), "one class only", "(a)")
    fails(class_folders(tmp_path / "only" / "test", {"a": 3, "b": 3}).parent, "no train folder")
    fails(tmp_path / "hole" / "a" / "a_000.png", "neither a folder nor")


def test_labels_and_class_names_that_disagree_are_named(tmp_path):
    class_folders(tmp_path, {"a": 5, "b": 5})
    fails(tmp_path, "none of the classes", "b", "expected a, c", class_names=["a", "c"])
    with_more = load_records(tmp_path, class_names=["c", "a", "b"], keep_twins=True)  # other hospitals may have it
    assert with_more.class_names == ("c", "a", "b") and with_more.class_counts()[0] == 0
    assert any("no training images of c" in doubt for doubt in with_more.doubts)
    fails(tmp_path, "must differ", class_names=["a", "a"])


@pytest.mark.parametrize("names", [("Normal", "normal"), ("1", "1.0"), ("\u00d6dem", "O\u0308dem")])
def test_two_spellings_of_a_class_are_refused(tmp_path, names):
    rows = [f"{picture(tmp_path / f'{i}.png', i).name},{[*names, 'other'][i % 3]}" for i in range(12)]
    fails(table(tmp_path / "list.csv", "image,label", rows), "differ only in", repr(names[0]), repr(names[1]))


def test_names_of_several_classes_are_not_alike():
    assert spellings_of_one(["1", "2", "a", "b", "nan", "1a"]) == []


def test_tables_that_cannot_be_used_say_why(tmp_path):
    one, two = picture(tmp_path / "1.png"), picture(tmp_path / "2.png", 1)
    rows = [f"{one.name},a", f"{two.name},b"]
    fails(table(tmp_path / "t.csv", "image,class", rows), "no column label", "image, class")
    fails(table(tmp_path / "t.csv", "image,label", [*rows, "gone.png,a"]), "entry 3", "gone.png does not exist")
    fails(
        table(tmp_path / "t.csv", "image,label,split", [f"{rows[0]},train", f"{rows[1]},later"]),
        "unknown split 'later'",
    )
    fails(
        table(tmp_path / "t.csv", "image,label,split", [f"{rows[0]},train", f"{rows[1]},"]),
        "1 of 2 images have no split",
    )
    fails(table(tmp_path / "t.csv", "image,label", []), "lists no images")
    fails(table(tmp_path / "t.csv", "image,x,y", [f"{one.name},1,2"]), "y must be 0 or 1", label_column=["x", "y"])
    (tmp_path / "t.json").write_text("{broken")
    fails(tmp_path / "t.json", "can't be read as JSON")
    (tmp_path / "t.json").write_text(json.dumps({"images": []}))
    fails(tmp_path / "t.json", "list named training", "found: images")
    (tmp_path / "t.csv").write_bytes(b"image,label\n\xff\xfe,a")
    fails(tmp_path / "t.csv", "UTF-8")


def test_a_patient_in_two_given_splits_is_refused(tmp_path):
    rows = [
        f"{picture(tmp_path / f'{i}.png', i).name},{'ab'[i % 2]},{'train' if i < 6 else 'test'},p{i % 6}"
        for i in range(8)
    ]
    fails(table(tmp_path / "t.csv", "image,label,split,patient", rows), "2 patients", "both train and test", "p0, p1")


def test_images_of_one_patient_are_not_divided(tmp_path):
    class_folders(tmp_path, {"a": 5, "b": 5})
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name},p1" for path in tmp_path.rglob("*.png")]
    listed = table(tmp_path / "t.csv", "image,label,patient", rows)
    words = "t.csv: all 10 images are of one patient (p1), so no {0} images", "or set {0}_fraction to 0"
    fails(listed, *(word.format("test") for word in words))
    fails(listed, *(word.format("val") for word in words), test_fraction=0)
    assert len(load(listed, test_fraction=0, val_fraction=0).train) == 10


def test_options_that_cannot_be_used_say_why(tmp_path):
    class_folders(tmp_path, {"a": 5, "b": 5})
    fails(tmp_path, "train_fraction is 0; expected a number above 0 and at most 1", train_fraction=0)
    fails(tmp_path, "val_fraction is 1.0; expected", val_fraction=1.0)
    fails(tmp_path, "2 or 3", spatial_dims=4)
    fails(tmp_path, "fold is 5; expected 0 to 4 for 5 folds", folds=5, fold=5)
    fails(tmp_path, "fold is 1; expected 0 without folds", fold=1)
    fails(tmp_path, "folds is 1; expected a whole number of at least 2", folds=1)
    fails(tmp_path, "9 folds need as many patients of every class, but there are 4 of a", folds=9)
    fails(tmp_path, "Unknown twin_search 'no'; valid: auto, always, never", twin_search="no", keep_twins=False)
    fails(tmp_path, "needs one group", patient_pattern="person")
    fails(tmp_path, "matches no image", patient_pattern=r"person(\d)")
    fails(tmp_path, "not a regular expression", patient_pattern="(")


def test_a_file_that_can_not_be_used_ends_the_run_or_is_skipped_and_listed(tmp_path, caplog):
    class_folders(tmp_path, {"a": 6, "b": 6})
    bad = sorted((tmp_path / "a").iterdir())[2]
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    fails(tmp_path, str(bad), "dual-skd check", "--on-bad-file skip")
    data = load(tmp_path, on_bad_file="skip")
    assert str(bad) not in images(data.train + data.val + data.test)
    assert [one["image"] for one in data.unusable] == [str(bad)] and str(bad) in caplog.text
    assert any("1 file that can't be used was skipped" in note for note in data.notes)
    assert len(data.train + data.val + data.test) == 11
    fails(tmp_path, "Unknown on_bad_file 'ignore'; valid: error, skip", on_bad_file="ignore")


def test_the_likeness_of_a_twin_is_the_users_to_choose(tmp_path, monkeypatch):
    class_folders(tmp_path / "train", {"a": 8, "b": 8})
    class_folders(tmp_path / "test", {"a": 3, "b": 3})
    asked = []

    def find(self, images, others, *, min_similarity):
        asked.append(min_similarity)
        return []

    monkeypatch.setattr(NearDuplicateFinder, "find", find)
    load(tmp_path, keep_twins=False, twin_similarity=0.8)
    assert set(asked) == {0.8}
    fails(tmp_path, "twin_similarity is 80; expected a number above 0", keep_twins=False, twin_similarity=80)


def test_frames_of_a_file_are_divided_together(tmp_path):
    for label in "ab":
        for number in range(6):
            pages = [
                Image.fromarray(np.random.default_rng(page).integers(0, 255, (8, 8), np.uint8)) for page in range(4)
            ]
            (tmp_path / label).mkdir(exist_ok=True)
            pages[0].save(tmp_path / label / f"{number}.tif", save_all=True, append_images=pages[1:])
    assert sum(map(len, load(tmp_path, frame="middle").splits.values())) == 12
    data = load(tmp_path, frame="all")
    files = {split: {record["image"].split("#")[0] for record in data.splits[split]} for split in data.splits}
    assert sum(map(len, data.splits.values())) == 48
    assert not files["train"] & files["test"] and not files["train"] & files["val"]


def test_the_measured_images_of_a_split_are_its_own_and_then_its_twins(tmp_path):
    class_folders(tmp_path / "train", {"a": 8, "b": 8})
    class_folders(tmp_path / "test", {"a": 2, "b": 2})
    data = load(tmp_path)
    twin = LeftOut("twin.png", 0, twin="other.png", split="test")
    data.left_out.append(twin)
    data.left_out.append(replace(twin, split="val"))
    assert data.measured("test") == [*data.test, twin]


def listed(root: Path, patients: list[str], **options):
    names = [picture(root / f"{i}.png", i).name for i in range(len(patients))]
    rows = [f"{name},{'ab'[i % 2]},{patient}" for i, (name, patient) in enumerate(zip(names, patients, strict=True))]
    return load(table(root / "t.csv", "image,label,patient", rows), **options)


@pytest.mark.parametrize("word", ["NA", "nan", "unknown", "-", "anonymous"])
def test_images_without_a_patient_are_divided_one_by_one(tmp_path, word):
    data = listed(tmp_path, [word if i < 30 else f"p{i}" for i in range(40)])
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [28, 4, 8]
    assert f"{word} as patient in t.csv stands for none (30 images)" in data.notes
    assert "30 of 40 images have no patient: each counts as one of its own" in data.notes and data.doubts == []


def test_persons_under_two_spellings_are_kept_together(tmp_path):
    data = listed(tmp_path, [f"{'00' * (i % 2)}{1 + i // 2}" for i in range(40)])
    patients = [{record["patient"] for record in data.splits[split]} for split in data.splits]
    assert sum(map(len, patients)) == 20 == len(set.union(*patients))
    assert "20 patients are written in several ways and count as one each, such as 001 = 1" in data.notes


def test_a_large_patient_and_the_share_that_comes_of_it_are_told(tmp_path):
    data = listed(tmp_path, ["K7" if i < 30 else f"p{i}" for i in range(40)])
    share = len(data.test) / 40
    assert share == 0.775 and data.notes[-2:] == data.doubts
    assert data.doubts[0].startswith("30 of 40 images are of one patient (K7) and stay together")
    assert data.doubts[1].startswith("31 of 40 images are test images (78%), where 20% were asked for")
    assert listed(tmp_path, [f"p{i // 4}" for i in range(40)]).doubts == []


def test_small_sets_have_shares_that_nobody_has_to_look_at(tmp_path):
    for count in (4, 6, 9, 15):
        assert load(class_folders(tmp_path / str(count), {"a": count, "b": count})).doubts == []
