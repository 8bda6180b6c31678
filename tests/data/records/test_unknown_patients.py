# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import pytest

from dual_skd.data.records.rows import Row
from dual_skd.data.records.unknown_patients import unknown_patients

PEOPLE = [f"person{100 + n // 2}_{'virus' if n % 2 else 'bacteria'}_{n}.jpeg" for n in range(20)]


def rows(*names: str, patient: str = "") -> list[Row]:
    folders = ("train/ill", "train/well", "test/ill", "test/well")
    return [
        Row(f"/data/{folders[n % 4]}/{name}", (folders[n % 4].split("/")[1],), patient=patient)
        for n, name in enumerate(names)
    ]


def offered(*names: str) -> str:
    """The pattern that is offered for files of these names, "" for none."""
    notes, doubts = unknown_patients(rows(*names), "/data")
    (sentence,) = notes + doubts
    found = re.search(r'add --patient-pattern "(.*)"$', sentence)
    assert bool(found) == bool(doubts)
    return found[1] if found else ""


def test_names_that_hold_patients_make_a_warning_with_the_pattern_to_paste():
    others = [f"IM-{n:04d}-0001.jpeg" for n in range(20)]
    notes, (doubt,) = unknown_patients(rows(*PEOPLE, *others), "/data")
    assert not notes and doubt.startswith("no patients are known, so each image counts as one; ")
    assert doubt.endswith(
        "20 of 40 file names begin like another one, such as person100_: if this is the patient, add "
        r'--patient-pattern "person(\d+)_"'
    )


@pytest.mark.parametrize(
    ("form", "pattern"),
    [("P{:04d}_{}.png", r"P(\d+)_"), ("IMG-{}-{}.png", r"IMG-(\d+)-"), ("sub-{:02d}_ses-{}.nii.gz", r"sub-(\d+)_")],
)
def test_a_number_with_or_without_a_word_before_it(form, pattern):
    assert offered(*(form.format(n // 2, n) for n in range(20))) == pattern


def test_a_pattern_that_would_find_other_numbers_too_holds_at_the_start_of_the_name_alone():
    names = [*(f"{n // 2:03d}_{n}.png" for n in range(20)), "scan7_1.png"]
    pattern = offered(*names)
    assert pattern == r"(?:^|/)(\d+)_[^/]*$"
    assert re.search(pattern, "12_of/train/003_7.png")[1] == "003" and not re.search(pattern, "scan7_1.png")


@pytest.mark.parametrize(
    "names",
    [
        [f"{n}_x.png" for n in range(20)],  # of each number one image
        [f"set1_{n}.png" for n in range(20)],  # nearly all share it
        [f"class{n % 4}_{n}.png" for n in range(20)],  # as few as classes
        [*PEOPLE[:4], *(f"{n}.png" for n in range(20))],  # of too few images
    ],
)
def test_other_names_make_a_note_without_a_warning(names):
    assert offered(*names) == ""


def test_nothing_is_offered_to_who_says_that_paths_name_no_patients():
    (note,), doubts = unknown_patients(rows(*PEOPLE), "/data", "")
    assert not doubts and "--patient-pattern" not in note


def test_nothing_is_said_where_patients_are_known():
    assert unknown_patients([*rows(*PEOPLE), *rows("a.png", patient="7")], "/data") == ([], [])
