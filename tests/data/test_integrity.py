# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dual_skd.data import check_records, load_records
from dual_skd.data.demo import chest_xray
from dual_skd.errors import InputError


def xray(seed: int, view: int = 0, label: str = "normal") -> Image.Image:
    return Image.fromarray((chest_xray(label, anatomy_seed=seed, view_seed=view) // 16).astype(np.uint8))


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Twelve different X-rays in train, six in test."""
    for split, first, count in (("train", 100, 6), ("test", 200, 3)):
        for place, label in enumerate(("normal", "nodule")):
            (tmp_path / split / label).mkdir(parents=True)
            for index in range(count):
                xray(first + 50 * place + index, label=label).save(tmp_path / split / label / f"{index}.png")
    return tmp_path


def as_given(root: Path, **options):
    return load_records(root, keep_twins=True, val_fraction=0, **options)


def test_a_clean_set_has_no_findings(dataset):
    findings = check_records(as_given(dataset))
    assert findings.ok and not findings.warnings and not findings.twins
    assert findings.counts["test"] == {"normal": 3, "nodule": 3}


def test_copies_are_found_whatever_was_done_to_them(dataset):
    source = Image.open(dataset / "train" / "normal" / "0.png")
    copies = {
        "exact.png": source,
        "colour.png": source.convert("RGB"),
        "smaller.png": source.resize((96, 96), Image.Resampling.BICUBIC),
        "larger.png": source.resize((200, 180), Image.Resampling.BILINEAR),
        "encoded.jpg": source,
        "brighter.png": ImageEnhance.Brightness(source).enhance(1.3),
        "flatter.png": ImageEnhance.Contrast(source).enhance(0.6),
        "shifted.png": Image.fromarray(np.roll(np.asarray(source), 1, axis=1)),
    }
    for name, image in copies.items():
        image.save(dataset / "test" / "normal" / name)
    findings = check_records(as_given(dataset))
    found = {Path(twin["image"]).name: twin for twin in findings.leaks}
    assert set(found) == set(copies)
    assert all(twin["twin"] == "train/normal/0.png" for twin in found.values())
    assert {name for name, twin in found.items() if twin["exact"]} == {"exact.png", "colour.png"}
    assert "8 test images have a twin in train (2 exact, 6 near copies)" in findings.errors[0]
    cleaned = load_records(dataset, val_fraction=0)  # as training does
    assert len(cleaned.test) == 6 and not {Path(r["image"]).name for r in cleaned.test} & set(copies)
    assert "8 of 14 test images were left out" in " ".join(cleaned.notes)


def test_twins_with_different_labels_are_conflicts(dataset):
    xray(100).save(dataset / "train" / "nodule" / "wrong.png")
    findings = check_records(as_given(dataset))
    assert [(twin["label"], twin["twin_label"]) for twin in findings.conflicts] in (
        [("normal", "nodule")],
        [("nodule", "normal")],
    )
    assert not findings.leaks and any("different labels" in error for error in findings.errors)
    assert findings.warnings == ["1 pairs of twins stand inside the train split."]


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


def test_unreadable_files_are_named_by_the_check_and_refused_by_training(dataset):
    broken = dataset / "test" / "nodule" / "0.png"
    broken.write_bytes(broken.read_bytes()[:100])
    (dataset / "train" / "normal" / "0.png").write_bytes(b"")
    findings = check_records(as_given(dataset))
    assert {found["image"] for found in findings.unreadable} == {"test/nodule/0.png", "train/normal/0.png"}
    assert "2 images can't be read" in findings.errors[0]
    with pytest.raises(InputError, match=r"0.png \(and 1 more\) can't be read"):
        load_records(dataset)


def test_shared_patients_are_reported(dataset):
    for split in ("train", "test"):
        xray(300 + len(split)).save(dataset / split / "normal" / "person7_1.png")
    findings = check_records(as_given(dataset, patient_pattern=r"(person\d+)", refuse_shared_patients=False))
    assert findings.shared_patients == [{"patient": "person7", "splits": ["train", "test"]}]
    assert "1 patients are in more than one split, for example person7 in train and test." in findings.errors


def test_the_test_set_is_the_same_for_every_train_fraction(dataset):
    xray(100).save(dataset / "test" / "normal" / "copy.png")
    full, half = load_records(dataset, val_fraction=0), load_records(dataset, val_fraction=0, train_fraction=0.5)
    assert full.test == half.test and len(full.test) == 6 and len(half.train) == 6
