# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from dual_skd.data.checking.shortcuts import find_shortcuts, lower_bound
from dual_skd.data.reading.inspection import FileFacts, inspect
from dual_skd.data.records.record import Record

NAMES = ("covid", "noncovid")


def records_of(labels, patients=None) -> list[Record]:
    patients = patients or [""] * len(labels)
    return [Record(str(i), y, p) for i, (y, p) in enumerate(zip(labels, patients, strict=True))]


def facts_of(count: int, **columns) -> list[FileFacts]:
    values = [{name: column[i] for name, column in columns.items()} for i in range(count)]
    return [FileFacts(image=str(i), **value) for i, value in enumerate(values)]


def test_the_lower_bound_is_that_of_hanley_and_mcneil():
    # AUC 0.6, 30 and 20 images: Q1 = 3/7, Q2 = 0.45; 0.24 + 29 (3/7 - 0.36) + 19 (0.45 - 0.36) = 4.03857
    assert lower_bound(0.6, 30, 20, 0.95) == pytest.approx(0.6 - 1.959964 * (max(4.03857, 51 / 12) / 600) ** 0.5)
    # AUC 0.6, 30 and 200: 0.24 + 29 * 0.068571 + 199 * 0.09 = 20.13857, above 231 / 12
    assert lower_bound(0.6, 30, 200, 0.95) == pytest.approx(0.6 - 1.959964 * (20.13857 / 6000) ** 0.5, abs=1e-6)


def test_a_mode_that_goes_with_the_class_is_reported_with_numbers():
    labels = [0] * 100 + [1] * 100
    modes = ["RGBA"] * 80 + ["RGB"] * 20 + ["RGB"] * 100
    (found,) = find_shortcuts(records_of(labels), facts_of(200, mode=modes, bits=[8] * 200), NAMES)
    # 80 of 100 images of the one class are known for sure, the others are even: 0.8 + 0.2 / 2, less the folds' noise
    assert found.name == "mode" and found.auc == pytest.approx(0.9, abs=0.02) and 0.8 < found.low < 0.9
    assert found.sentence == (
        f"the class can be predicted from the mode without looking at the image, AUC = {found.auc:.2f} "
        "(RGBA: 80 images, 100 % covid; RGB: 120 images, 83 % noncovid)"
    )
    assert found.remedy


def test_numbers_tell_in_either_direction_and_from_the_middle():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    for shift in (60, -60):
        widths = rng.normal(500, 20, 400) + shift * labels
        columns = {"shape": [(int(w), 500) for w in widths], "aspect": [w / 500 for w in widths]}
        found = find_shortcuts(records_of(labels), facts_of(400, **columns), NAMES)
        assert {"width", "aspect ratio"} == {one.name for one in found} and found[0].auc > 0.9
    both_sides = np.where(labels == 1, 500, rng.choice([300, 700], 400)) + rng.integers(-50, 50, 400)
    found = find_shortcuts(records_of(labels), facts_of(400, shape=[(int(w), 500) for w in both_sides]), NAMES)
    assert found and found[0].auc > 0.95  # a rank alone would give 0.5


def test_the_best_class_of_several_is_named():
    labels = [0, 1, 2] * 40
    makers = ["ACME" if label == 2 else ["ACME", "Other"][index % 2] for index, label in enumerate(labels)]
    makers = ["Third" if label == 2 else maker for label, maker in zip(labels, makers, strict=True)]
    (found,) = find_shortcuts(records_of(labels), facts_of(120, manufacturer=makers), ("a", "b", "c"))
    assert (found.name, found.label) == ("manufacturer", "c") and "Third: 40 images, 100 % c" in found.evidence


def test_a_site_that_goes_with_a_label_is_found_in_multi_label_sets():
    rng = np.random.default_rng(0)
    flags = rng.integers(0, 2, (300, 2))
    records = [Record(str(i), [float(a), float(b)], site=f"site {b}") for i, (a, b) in enumerate(flags)]
    (found,) = find_shortcuts(records, facts_of(300), ("oedema", "effusion"))
    assert (found.name, found.label) == ("site", "effusion") and found.auc > 0.99


def test_a_site_that_is_the_label_is_no_news():
    records = [Record(str(i), i % 2, site=NAMES[i % 2]) for i in range(60)]
    assert find_shortcuts(records, facts_of(60), NAMES) == []


def test_one_value_per_patient_is_not_learnt_by_heart():
    # 40 patients with 10 images each; every patient has a size of his own and a random label
    rng = np.random.default_rng(1)
    patients = [str(index // 10) for index in range(400)]
    labels = [int(rng.integers(0, 2)) for _ in range(40) for _ in range(10)]
    shapes = [(100 + int(patient), 100) for patient in patients]
    assert find_shortcuts(records_of(labels, patients), facts_of(400, shape=shapes), NAMES) == []


def test_a_quality_of_jpeg_that_goes_with_the_class_is_found_and_the_detail_of_a_picture_is_not(tmp_path):
    rng = np.random.default_rng(0)
    for name, qualities, found in (("alike", (90, 90), []), ("other", (75, 92), ["JPEG quality"])):
        files = []
        for number in range(60):
            rough = number % 2  # smooth pictures of one class, rough ones of the other: files of other lengths
            picture = rng.integers(0, 255, (32, 32) if rough else (4, 4), dtype=np.uint8)
            files.append(tmp_path / f"{name}{number}.jpg")
            Image.fromarray(picture).resize((64, 64)).save(files[-1], quality=qualities[rough])
        facts = [inspect(str(file)) for file in files]
        assert [one.jpeg_quality for one in facts[:2]] == list(qualities)
        lengths = [file.stat().st_size for file in files]
        assert max(lengths[::2]) < min(lengths[1::2])
        shortcuts = find_shortcuts(records_of([0, 1] * 30), facts, NAMES)
        assert [one.name for one in shortcuts] == found
        assert all("75: 30 images, 100 % covid; 92: 30 images, 100 % noncovid" in one.evidence for one in shortcuts)


def test_sets_too_small_for_a_verdict_give_none():
    labels = [0, 1] * 9
    assert find_shortcuts(records_of(labels), facts_of(18, mode=["L", "RGB"] * 9), NAMES) == []
    assert find_shortcuts([], [], NAMES) == []


@pytest.mark.parametrize("count", [40, 300])
def test_random_labels_raise_an_alarm_in_fewer_than_one_in_twenty_sets(count):
    alarms = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        facts = facts_of(
            count,
            mode=rng.choice(["L", "RGB", "RGBA"], count).tolist(),
            format=rng.choice(["PNG", "JPEG"], count, p=[0.9, 0.1]).tolist(),
            shape=[(int(w), int(h)) for w, h in rng.integers(200, 600, (count, 2))],
            jpeg_quality=rng.integers(60, 96, count).tolist(),
            manufacturer=rng.choice(list("abcdefghij"), count).tolist(),
        )
        alarms += bool(find_shortcuts(records_of(rng.integers(0, 2, count).tolist()), facts, NAMES, seed=seed))
    assert alarms < 10


def test_classes_of_one_image_each_give_no_warning_of_numpy():
    shapes = [(50 + index, 40 + index) for index in range(60)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        facts = facts_of(60, shape=shapes, spacing=[None] * 50 + [(0.1 * index,) for index in range(10)])
        assert find_shortcuts(records_of(list(range(60))), facts, list(map(str, range(60)))) == []
