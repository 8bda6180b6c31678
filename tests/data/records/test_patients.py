# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_ct

from dual_skd.data.records import dicom_ids
from dual_skd.data.records.patients import large_patients, refuse_shared_patients, rows_with_patients
from dual_skd.data.records.rows import Row, Source
from dual_skd.errors import InputError


def source(root: Path, *rows: Row) -> Source:
    return Source(root=root, description="a set", rows=rows)


def image(name: str, label: str = "a", **facts) -> Row:
    return Row(f"/data/{name}", (label,), **facts)


def found(root: Path, *rows: Row, pattern: str | None = None) -> tuple[dict[str, str], list[str]]:
    rows, notes = rows_with_patients(source(root, *rows), pattern)
    return {Path(row.image).name: row.patient for row in rows}, notes


def dicom(folder: Path, name: str, patient: str, **tags) -> Row:
    return Row(str(write_ct(folder / name, np.zeros((2, 2)), PatientID=patient, **tags)), ("a",))


def without(some: int, of: int) -> str:
    return f"{some} of {of} images have no patient: each counts as one of its own"


def test_folders_inside_the_class_folders_are_patients_if_a_class_has_several(tmp_path):
    rows = [image("1.png", folder="p1"), image("2.png", folder="p2"), image("3.png", "b", folder="p3"), image("4.png")]
    assert found(tmp_path, *rows) == (
        {"1.png": "p1", "2.png": "p2", "3.png": "p3", "4.png": ""},
        ["patients are the folders inside the class folders (3)", without(1, 4)],
    )
    one_each = [image("1.png", folder="images"), image("2.png", "b", folder="images")]
    assert found(tmp_path, *one_each) == ({"1.png": "", "2.png": ""}, [])


def test_a_pattern_wins_over_folders_and_an_empty_one_turns_them_off(tmp_path):
    rows = [image("x7_1.png", folder="p1"), image("x8_2.png", folder="p2")]
    notes = ["the pattern finds a patient in 2 of 2 images (2 patients)"]
    assert found(Path("/data"), *rows, pattern=r"x(\d)") == ({"x7_1.png": "7", "x8_2.png": "8"}, notes)
    assert found(Path("/data"), *rows, pattern="") == ({"x7_1.png": "", "x8_2.png": ""}, [])


def test_patients_that_the_source_states_stay(tmp_path):
    rows = [image("x7.png", patient="p"), image("x8.png")]
    for pattern in (None, "", r"x(\d)"):
        assert found(Path("/data"), *rows, pattern=pattern) == ({"x7.png": "p", "x8.png": ""}, [without(1, 2)])


def test_dicom_headers_name_the_patients_that_the_source_does_not_state(tmp_path):
    rows = [dicom(tmp_path, "1.dcm", "A"), dicom(tmp_path, "2.dcm", "B"), dicom(tmp_path, "3.dcm", "A")]
    (tmp_path / "4.dcm").write_bytes(b"cut")
    rows += [Row(str(tmp_path / "4.dcm"), ("a",)), Row(str(tmp_path / "5.png"), ("a",))]
    expected = {"1.dcm": "A", "2.dcm": "B", "3.dcm": "A", "4.dcm": "", "5.png": ""}
    notes = ["patients are the PatientIDs of the DICOM headers (2)", without(2, 5)]
    assert found(tmp_path, *rows) == (expected, notes)


def test_headers_count_more_than_folders_which_may_be_those_of_series(tmp_path):
    rows = [image("1", folder="s1", header="A"), image("2", folder="s2", header="A"), image("3", "b", header="B")]
    assert found(tmp_path, *rows)[0] == {"1": "A", "2": "A", "3": "B"}


def test_a_series_in_a_folder_of_its_own_has_the_patient_of_its_first_file(tmp_path):
    rows = []
    for patient in "AB":
        for number in range(2):
            dicom(tmp_path / patient, f"{number}.dcm", patient)
        rows.append(Row(str(tmp_path / patient), ("a",)))
    assert found(tmp_path, *rows)[0] == {"A": "A", "B": "B"}


def test_other_files_beside_the_slices_do_not_hide_the_patient(tmp_path):
    rows = []
    for patient in "AB":
        dicom(tmp_path / patient, "2.dcm", patient)
        (tmp_path / patient / "00_README.txt").write_text("exported by a viewer")
        (tmp_path / patient / "1.dcm").write_bytes(b"cut")
        rows.append(Row(str(tmp_path / patient), ("a",)))
    (tmp_path / "C").mkdir()
    (tmp_path / "C" / "notes.txt").touch()
    rows.append(Row(str(tmp_path / "C"), ("a",)))
    assert found(tmp_path, *rows)[0] == {"A": "A", "B": "B", "C": ""}


def test_one_patient_id_for_all_is_a_placeholder(tmp_path):
    rows = [image("1", folder="p1", header="ANON"), image("2", folder="p2", header="ANON")]
    assert found(tmp_path, *rows) == (
        {"1": "p1", "2": "p2"},
        [
            "all DICOM headers have the PatientID 'ANON', so it names no patients",
            "patients are the folders inside the class folders (2)",
        ],
    )


def test_no_header_is_read_where_patients_are_known_or_unwanted(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_ids, "_head", lambda path: pytest.fail(f"opened {path}"))
    dicom(tmp_path, "1.dcm", "A")
    found(tmp_path, Row(str(tmp_path / "1.dcm"), ("a",), patient="p"), image("4.png"))
    found(tmp_path, Row(str(tmp_path / "1.dcm"), ("a",), header="q"), image("4.png"))
    found(tmp_path, image("1.dcm"), pattern="")


def test_one_of_several_series_in_a_folder_has_the_patient_of_its_files(tmp_path):
    rows = []
    for place, patient in enumerate("ABA"):
        for number in range(2):
            dicom(tmp_path, f"{place}{number}.dcm", patient, SeriesInstanceUID=f"1.2.{place}")
        rows.append(Row(f"{tmp_path}#1.2.{place}", ("a",)))
    assert list(found(tmp_path, *rows)[0].values()) == ["A", "B", "A"]


@pytest.mark.parametrize("patient", ["", "ANON"])
def test_images_of_one_study_stay_together_where_nothing_else_names_patients(tmp_path, monkeypatch, patient):
    rows = [dicom(tmp_path, f"{n}.dcm", patient, StudyInstanceUID=f"1.2.{n // 2}") for n in range(4)]
    read, head = [], dicom_ids._head
    monkeypatch.setattr(dicom_ids, "_head", lambda path: read.append(path) or head(path))
    patients, notes = found(tmp_path, *rows)
    assert sorted(read) == [row.image for row in rows]  # each once, for its patient and its study
    assert list(patients.values()) == ["1.2.0", "1.2.0", "1.2.1", "1.2.1"]
    assert notes[-1] == "images of one StudyInstanceUID stay together, as if of one patient (2)"
    for placeholder in (rows[:2], rows[::2]):  # one study for all, and one for each image
        assert set(found(tmp_path, *placeholder)[0].values()) == {""}


@pytest.mark.parametrize(
    "pattern, words",
    [
        ("(", "not a regular expression"),
        ("x", "needs one group in parentheses, around the patient's id, and has 0"),
        (r"(x)(\d)", r"and has 2; others are written \(\?:...\)"),
        (r"x(\d)|y(\d)", "needs one group"),
        (r"(\d{5})", "matches no image, for example not x7"),
    ],
)
def test_patterns_that_can_not_be_used_say_why(pattern, words):
    with pytest.raises(InputError, match=words):
        found(Path("/data"), image("x7.png"), pattern=pattern)


def test_a_patient_in_two_splits_is_refused():
    def rows(split: str, *names: str) -> list[Row]:
        return [image(f"{split}/{name}.png", patient=name, split=split) for name in names]

    refuse_shared_patients([*rows("train", "p", ""), *rows("val", "q", ""), *rows("test", "r")], "a set")
    with pytest.raises(InputError, match="a set: 2 patients have images in both train and test .for example p, q."):
        refuse_shared_patients([*rows("train", "q", "p", "r"), *rows("test", "p", "q")], "a set")


def test_spellings_of_a_patient_are_one_and_are_told():
    rows = [image(f"{n}.png", patient=name) for n, name in enumerate(["007", "7", "7.0", "7", "P1-2", "P12", "p12"])]
    patients, notes = found(Path("/data"), *rows)
    assert list(patients.values()) == ["7", "7", "7", "7", "P1-2", "P12", "P12"]
    assert notes == ["2 patients are written in several ways and count as one each, such as 007 = 7 = 7.0"]
    assert found(Path("/data"), *rows, pattern="")[0] == patients


@pytest.mark.parametrize(
    "one, other",
    [
        ("7", "7.0"),
        ("007", "7"),
        ("P1", "p1"),
        ("P 1", "P\N{NO-BREAK SPACE}1"),
        ("P1", "P1\N{ZERO WIDTH SPACE}"),
        ("M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller", "Mu\N{COMBINING DIAERESIS}ller"),
        ("A-1", "A\N{NON-BREAKING HYPHEN}1"),
        ("A_1", "A 1"),
    ],
)
def test_a_patient_in_two_splits_under_two_spellings_is_refused_with_both(one, other):
    rows = [image("1.png", patient=one, split="train"), image("2.png", patient=other, split="test")]
    joined, _ = rows_with_patients(source(Path("/data"), *rows))
    with pytest.raises(InputError, match="1 patient has images in both train and test") as caught:
        refuse_shared_patients(joined, "a set")
    assert " = ".join(sorted((one, other))) in str(caught.value)


@pytest.mark.parametrize("word", ["NA", "nan", "unknown", "-", "None", "ANONYMOUS", "Anonymized", "de-identified"])
def test_words_for_no_patient_are_none_in_headers_folders_and_names(tmp_path, word):
    rows = [image("1.png", header=word), image("2.png", header=word), image("3.png", header="P1")]
    patients, notes = found(tmp_path, *rows)
    assert patients == {"1.png": "", "2.png": "", "3.png": "P1"}
    assert notes == [
        f"the PatientID {word!r} of 2 DICOM headers stands for none",
        "patients are the PatientIDs of the DICOM headers (1)",
        without(2, 3),
    ]
    rows = [image("1.png", folder=word), image("2.png", folder=word), image("3.png", folder="p1"),
            image("4.png", folder="p2")]  # fmt: skip
    assert found(tmp_path, *rows)[0] == {"1.png": "", "2.png": "", "3.png": "p1", "4.png": "p2"}
    rows = [image(f"{word}_1.png"), image("P1_2.png"), image("P2_2.png")]
    assert list(found(Path("/data"), *rows, pattern=r"^(.+)_")[0].values()).count("") == 1


def test_an_anonymisers_word_in_headers_leaves_the_folder_or_the_study_to_tell(tmp_path):
    rows = [image("1", folder="f1", header="ANONYMOUS"), image("2", folder="f2", header="ANONYMOUS"),
            image("3", folder="f3", header="A")]  # fmt: skip
    assert found(tmp_path, *rows)[0] == {"1": "f1", "2": "f2", "3": "A"}
    names = ["ANONYMOUS"] * 4 + ["A"]
    files = [dicom(tmp_path, f"{n}.dcm", name, StudyInstanceUID=f"1.2.{n // 2}") for n, name in enumerate(names)]
    assert list(found(tmp_path, *files)[0].values()) == ["1.2.0", "1.2.0", "1.2.1", "1.2.1", "A"]


def test_a_patient_with_over_a_third_of_the_images_is_told():
    rows = [image(f"{n}.png", patient="K7" if n < 4 else f"p{n}") for n in range(10)]
    (told,) = large_patients(rows)
    assert told.startswith("4 of 10 images are of one patient (K7) and stay together")
    assert large_patients(rows[:9]) == []  # of few images each is a large part
    assert large_patients([image(f"{n}.png", patient=f"p{n // 4}") for n in range(12)]) == []
    assert large_patients([image(f"{n}.png") for n in range(12)]) == []


def test_files_that_stand_for_patients_are_no_words():
    rows = [image("1.png", patient="/data/A_1.tif"), image("2.png", patient="/data/a 1.tif")]
    assert found(Path("/data"), *rows) == ({"1.png": "/data/A_1.tif", "2.png": "/data/a 1.tif"}, [])
