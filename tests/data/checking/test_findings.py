# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_picture
from PIL import Image, ImageEnhance

from dual_skd.data import check_records, load_records
from dual_skd.data.checking.finding_kinds import KINDS
from dual_skd.data.checking.findings import COLUMNS, Findings
from dual_skd.data.checking.outliers import Oddity
from dual_skd.data.demo import chest_xray
from dual_skd.data.near_duplicates.finder import NearDuplicate
from dual_skd.data.reading import reader
from dual_skd.data.reading.inspection import FileFacts
from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.record import Record
from dual_skd.errors import InputError


def xray(seed: int, label: str = "normal") -> Image.Image:
    return Image.fromarray((chest_xray(label, anatomy_seed=seed) // 16).astype(np.uint8))


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Twelve different X-rays in train, six in test."""
    for split, first, count in (("train", 100, 6), ("test", 200, 3)):
        for place, label in enumerate(("normal", "nodule")):
            (tmp_path / split / label).mkdir(parents=True)
            for index in range(count):
                xray(first + 50 * place + index, label).save(tmp_path / split / label / f"{index}.png")
    return tmp_path


def as_given(root: Path, **options) -> DataList:
    return load_records(root, keep_twins=True, val_fraction=0, on_bad_file=None, **options)


def of_kind(findings: Findings, kind: str) -> list[dict]:
    return [one for one in findings.offenders if one["kind"] == kind]


def test_a_clean_set_has_no_findings(dataset):
    findings = check_records(as_given(dataset))
    assert findings.ok and findings.offenders == findings.warnings == findings.twins == findings.notes == []
    assert findings.counts["test"] == {"normal": 3, "nodule": 3}
    assert findings.counts["val"] == {"normal": 0, "nodule": 0}  # an empty split lacks no class


def test_images_without_labels_are_looked_at_and_their_copies_of_test_images_counted(dataset):
    (dataset / "unlabelled").mkdir()
    for name in ("train", "test"):
        Image.open(dataset / name / "normal" / "0.png").save(dataset / "unlabelled" / f"{name}.png")
    (dataset / "unlabelled" / "bad.png").write_bytes(b"words")
    data = as_given(dataset)
    findings = check_records(data)
    assert findings.unreadable == [
        {"image": "unlabelled/bad.png", "split": "unlabelled", "problem": "the content is plain text, which isn't read"}
    ]
    assert len(findings.offenders) == 1 and findings.counts["train"] == {"normal": 6, "nodule": 6}
    assert findings.notes == [
        "1 image without a label is a copy of validation or test images, so training leaves it out"
    ]
    assert check_records(data, twins=False).notes == []


def test_training_refuses_what_the_check_refuses_where_all_images_without_labels_are_copies(dataset):
    (dataset / "unlabelled").mkdir()
    for name in ("0", "1"):
        Image.open(dataset / "test" / "nodule" / f"{name}.png").save(dataset / "unlabelled" / f"{name}.png")
    findings = check_records(as_given(dataset))
    assert findings.notes[0].startswith("2 images without labels are copies of validation or test images")
    with pytest.raises(InputError) as refused:
        load_records(dataset)
    assert findings.errors == [str(refused.value)]


def test_each_reason_why_a_set_is_refused_is_told_once(dataset):
    reasons = [Oddity("", "data_set", text) for text in ("one thing.", "another", "one thing.")]
    findings = check_records(as_given(dataset), known=reasons, twins=False)
    assert sorted(findings.errors) == ["Another.", "One thing."]


def test_copies_across_splits_are_errors_and_all_are_listed(dataset):
    source = Image.open(dataset / "train" / "normal" / "0.png")
    source.save(dataset / "test" / "normal" / "exact.png")
    source.resize((120, 120), Image.Resampling.BICUBIC).save(dataset / "test" / "normal" / "smaller.png")
    findings = check_records(as_given(dataset))
    assert findings.errors == [
        "2 test images have a twin in train (1 exact, 1 near copy), for example test/normal/exact.png and "
        "train/normal/0.png."
    ]
    exact, smaller = of_kind(findings, "twin_across_splits")
    assert exact["image"] == "test/normal/exact.png" and exact["twin"] == "train/normal/0.png"
    assert exact["detail"] == "the same picture as train/normal/0.png in train"
    assert smaller["detail"].startswith("nearly the same picture (0.9")
    assert findings.leaks[0]["exact"] and findings.leaks[0]["similarity"] == 1
    # the two copies are alike, too
    assert findings.warnings == [
        "1 test image has a twin in the same split (0 exact, 1 near copy), for example test/normal/exact.png and "
        "test/normal/smaller.png."
    ]


def test_an_image_is_decoded_once_for_its_facts_its_signature_and_the_comparison(dataset, monkeypatch):
    Image.open(dataset / "train" / "normal" / "0.png").resize((120, 120)).save(dataset / "test" / "normal" / "copy.png")
    data = as_given(dataset)
    decoded: list[str] = []
    read = reader._read
    monkeypatch.setattr(reader, "_read", lambda path, *rest: decoded.append(path.as_posix()) or read(path, *rest))
    assert len(check_records(data).twins) == 1
    assert sorted(decoded) == sorted(record["image"] for split in data.splits.values() for record in split)


def test_twins_with_different_labels_are_conflicts_told_from_both_sides(dataset):
    xray(100).save(dataset / "train" / "nodule" / "wrong.png")
    findings = check_records(as_given(dataset))
    assert findings.errors == [
        "1 pair of twins has different labels, for example train/nodule/wrong.png (nodule) and train/normal/0.png "
        "(normal)."
    ]
    assert {(one["image"], one["twin"]) for one in of_kind(findings, "label_conflict")} == {
        ("train/nodule/wrong.png", "train/normal/0.png"),
        ("train/normal/0.png", "train/nodule/wrong.png"),
    }


def test_removing_what_is_listed_leaves_one_of_several_copies(dataset):
    for name in ("x", "y", "z"):
        xray(7).save(dataset / "train" / "normal" / f"{name}.png")
    findings = check_records(as_given(dataset))
    assert len(findings.twins) == 3
    listed = [one["image"] for one in of_kind(findings, "twin_within_split")]
    assert listed == ["train/normal/x.png", "train/normal/y.png"]
    assert findings.warnings[0].startswith("2 train images have a twin in the same split (2 exact, 0 near copies), ")


def test_likeness_within_a_patient_is_no_twin_but_an_equal_copy_is(dataset):
    source = xray(100)
    source.save(dataset / "train" / "normal" / "p1_a.png")
    ImageEnhance.Brightness(source).enhance(1.2).save(dataset / "train" / "normal" / "p1_b.png")
    (dataset / "train" / "normal" / "0.png").unlink()
    assert len(check_records(as_given(dataset)).twins) == 1
    assert check_records(as_given(dataset, patient_pattern="(p1)_")).twins == []
    source.save(dataset / "train" / "normal" / "p1_c.png")
    exact = [twin for twin in check_records(as_given(dataset, patient_pattern="(p1)_")).twins if twin["exact"]]
    assert len(exact) == 1
    assert check_records(as_given(dataset), twins=False).twins == []


def test_every_bad_file_is_named_with_its_remedy(dataset):
    broken = dataset / "test" / "nodule" / "0.png"
    broken.write_bytes(broken.read_bytes()[:100])
    (dataset / "train" / "normal" / "0.png").write_bytes(b"")
    Image.new("L", (64, 64)).save(dataset / "train" / "normal" / "1.png")
    findings = check_records(as_given(dataset))
    assert [(one["image"], one["split"], one["label"], one["kind"]) for one in findings.offenders] == [
        ("train/normal/0.png", "train", "normal", "empty"),
        ("test/nodule/0.png", "test", "nodule", "truncated"),
        ("train/normal/1.png", "train", "normal", "constant"),
    ]
    assert all(one["severity"] == "error" and one["remedy"] for one in findings.offenders)
    assert {one["image"] for one in findings.unreadable} == {one["image"] for one in findings.offenders}
    assert findings.errors[0] == "1 image file is empty, for example train/normal/0.png: the file has 0 bytes."
    assert not findings.ok


def test_shared_patients_are_listed_image_by_image(dataset):
    for split in ("train", "test"):
        xray(300 + len(split)).save(dataset / split / "normal" / "person7_1.png")
    data = as_given(dataset, patient_pattern=r"(person\d+)", refuse_shared_patients=False)
    findings = check_records(data)
    assert findings.shared_patients == [{"patient": "person7", "splits": ["train", "test"]}]
    assert findings.errors == ["1 patient is in more than one split, for example person7 in train and test."]
    images = [one["image"] for one in of_kind(findings, "shared_patient")]
    assert images == ["test/normal/person7_1.png", "train/normal/person7_1.png"]


def data_of(counts: dict[str, dict[str, int]], tmp_path: Path, multi_label: bool = False) -> DataList:
    """Records that name one good image file many times over, by links."""
    xray(1).save(tmp_path / "a.png")
    names = tuple(next(iter(counts.values())))
    splits = {}
    for split in ("train", "val", "test"):
        splits[split] = []
        for place, (name, count) in enumerate(counts.get(split, {}).items()):
            for index in range(count):
                path = tmp_path / f"{split}_{name}_{index}.png"
                path.symlink_to(tmp_path / "a.png")
                label = [float(other == place) for other in range(len(names))] if multi_label else place
                splits[split].append(Record(str(path), label))
    return DataList(tmp_path, names, splits, "made here", multi_label=multi_label)


@pytest.mark.parametrize("multi_label", [False, True])
def test_absent_and_rare_classes_are_told(tmp_path, multi_label):
    counts = {"train": {"a": 33, "b": 3, "c": 0}, "test": {"a": 1, "b": 0, "c": 1}}
    findings = check_records(data_of(counts, tmp_path, multi_label), twins=False)
    assert findings.errors == ["1 class has no training image, for example no train image of c."]
    assert findings.warnings == [
        "1 class is missing from a split, for example no test image of b.",
        "1 class is rare, for example 3 training images of b against 33 of a.",
    ]
    assert "class_weights" in of_kind(findings, "class_imbalance")[0]["remedy"]


def test_ten_times_as_many_is_not_yet_imbalance(tmp_path):
    assert check_records(data_of({"train": {"a": 30, "b": 3}}, tmp_path), twins=False).warnings == []


def test_classes_that_cannot_be_in_every_split_are_told_where_none_is_given(tmp_path):
    entries = [f"{place}.png,{age},{patient}" for place, (age, patient) in enumerate([
        (61, "p1"), (61, "p1"), (61, "p2"), (40, ""), (40, ""), (40, ""), (52, "p3"),
    ])]  # fmt: skip
    for place in range(len(entries)):
        xray(place).save(tmp_path / f"{place}.png")
    (tmp_path / "list.csv").write_text("\n".join(["image,age,patient", *entries]))
    found = check_records(as_given(tmp_path / "list.csv", label_column="age", test_fraction=0))
    assert [one["label"] for one in of_kind(found, "class_too_small")] == ["52", "61"]


def test_shortcuts_and_oddities_of_the_files_are_warnings(tmp_path):
    data = data_of({"train": {"a": 40, "b": 40}}, tmp_path)
    facts = {
        record["image"]: FileFacts(
            record["image"],
            format="PNG",
            mode="RGBA" if record["label"] else "L",
            shape=(64, 64) if place else (8, 8),
        )
        for place, record in enumerate(data.train)
    }
    findings = check_records(data, facts=facts, twins=False)
    assert findings.ok and [one["kind"] for one in findings.offenders] == ["shortcut", "size"]
    assert findings.warnings[0].startswith(
        "The class can be predicted from the mode without looking at the image, AUC = "
    )
    assert findings.offenders[0]["image"] == "" and findings.offenders[0]["label"] == "b"
    assert findings.warnings[1].startswith("1 image has an unusual size, for example train_a_0.png: 8 x 8 pixels")


def test_files_that_were_left_out_are_told_and_images_among_them(dataset):
    (dataset / "train" / "normal" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1")
    xray(7).save(dataset / "train" / "normal" / "7.webp")
    (dataset / "train" / "normal" / "@eaDir").mkdir()
    xray(8).save(dataset / "train" / "normal" / "@eaDir" / "0.jpg")
    findings = check_records(as_given(dataset))
    assert findings.ok and len(findings.warnings) == 2
    assert [one["detail"] for one in of_kind(findings, "left_out_image")] == ["the content is WebP"]
    junk = ["train/normal/@eaDir/0.jpg", "train/normal/Thumbs.db"]
    assert [one["image"] for one in of_kind(findings, "junk")] == junk


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_and_a_broken_link_among_the_files_are_told(dataset):
    os.mkfifo(dataset / "train" / "normal" / "pipe")
    (dataset / "train" / "normal" / "x.txt").symlink_to(dataset / "nowhere.png")
    findings = check_records(as_given(dataset), twins=False)
    assert [(one["image"], one["detail"]) for one in of_kind(findings, "junk")] == [
        ("train/normal/pipe", "no file that can be read"),
        ("train/normal/x.txt", "no file that can be read"),
    ]


def shortcuts(findings: Findings) -> dict[str, dict]:
    return {
        one["detail"].split("predicted from the ")[1].split(" without")[0]: one for one in of_kind(findings, "shortcut")
    }


def test_a_class_of_portraits_among_landscapes_is_a_shortcut_as_viewers_show_them(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(24):
        label = ("chest", "knee")[index % 2]
        picture = Image.fromarray(rng.integers(0, 256, (60 + index, 90 + index), dtype=np.uint8))
        exif = picture.getexif()
        if label == "knee" and index < 12:
            exif[0x0112] = 6  # stored as a landscape, to be turned
        elif label == "knee":
            picture = picture.transpose(Image.Transpose.ROTATE_90)
        (tmp_path / label).mkdir(exist_ok=True)
        picture.save(tmp_path / label / f"{index}.jpg", exif=exif, quality=95)
    findings = check_records(as_given(tmp_path, test_fraction=0))
    found = shortcuts(findings)["aspect ratio"]
    assert "AUC = 1.00" in found["detail"] and "100 % knee" in found["detail"] and "--fit crop" in found["remedy"]
    factors = [(90 + index) / (60 + index) for index in range(24)]
    assert findings.notes == [
        "the images aren't square; training keeps their shape; --fit stretch changes the proportions "
        f"of what they show by a factor of {np.median(factors):.2f} (median; at most 1.50)"
    ]


def test_the_shape_of_pixels_counts_for_the_aspect_ratio(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(24):
        label = ("a", "b")[index % 2]
        (tmp_path / label).mkdir(exist_ok=True)
        write_picture(tmp_path / label / f"{index}.dcm", rng.integers(0, 256, (40, 40)),
                      PatientID=f"p{index}", SeriesInstanceUID=f"1.{index}",
                      PixelAspectRatio=["3", "2"] if label == "b" else None)  # fmt: skip
    findings = check_records(as_given(tmp_path, test_fraction=0))
    assert set(shortcuts(findings)) == {"aspect ratio"}
    assert "factor of 1.25 (median; at most 1.50)" in findings.notes[0]


def test_findings_survive_json_and_have_all_columns(dataset):
    (dataset / "train" / "normal" / "0.png").write_bytes(b"")
    findings = check_records(as_given(dataset)).as_dict()
    assert json.loads(json.dumps(findings)) == findings
    assert set(findings) == {
        "ok", "errors", "warnings", "notes", "counts", "unreadable", "shared_patients", "twins", "offenders"
    }  # fmt: skip
    assert all(tuple(one) == COLUMNS for one in findings["offenders"])


def test_every_kind_says_what_to_do_or_each_of_its_findings_does():
    assert all(kind.remedy for name, kind in KINDS.items() if name not in ("data_set", "doubt", "shortcut"))
    assert all(kind.severity in ("error", "warning") for kind in KINDS.values())


def test_images_that_are_much_alike_across_splits_are_told_but_no_copies(dataset):
    data = as_given(dataset)
    train, test = data.train[0]["image"], data.test[0]["image"]

    class Finder:
        def find(self, images, others, *, min_similarity):
            assert min_similarity < 0.85
            return [NearDuplicate(train, test, False, 0.85), NearDuplicate(train, data.train[1]["image"], False, 0.9)]

    findings = check_records(data, finder=Finder())
    assert findings.ok and not findings.twins
    (one,) = of_kind(findings, "probable_twin")
    assert one["image"] == data.relative(test) and one["twin"] == data.relative(train) and "(0.85)" in one["detail"]
