# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_ct

from dual_skd.data.records.rows import Source
from dual_skd.data.records.sources import read_source
from dual_skd.errors import InputError
from dual_skd.options.data import ReadOptions


@pytest.fixture
def tree(tmp_path) -> Path:
    """Patients P1 to P3 with a study each, P1 with two series, the others with one; three slices per series."""
    for patient, uid in (("P1", "1.1.1"), ("P1", "1.1.2"), ("P2", "1.2.1"), ("P3", "1.3.1")):
        study = uid[:3]
        for number in range(3):
            tags = dict(PatientID=patient, StudyInstanceUID=study, SeriesInstanceUID=uid, InstanceNumber=number)
            write_ct(tmp_path / patient / study / f"{uid}_{number}", np.zeros((2, 2)), **tags)
    (tmp_path / "P1" / "viewer.exe").touch()
    return tmp_path


def labels(tree: Path, *lines: str, name: str = "labels.csv") -> Path:
    (tree / name).write_text("\n".join(lines) + "\n")
    return tree / name


def found(source: Source) -> dict[str, tuple]:
    return {str(Path(row.image).relative_to(source.root)): (*row.labels, row.header) for row in source.rows}


@pytest.mark.parametrize("column", ["PatientID", "patientid", "Patient_ID", "patient id", "patient"])
def test_every_file_gets_the_label_of_its_patient(tree, column):
    labels(tree, f"{column},label,split,site", "P1,ill,train,north", "P2,well,test,south", "P3,ill,train,north")
    source = read_source(tree)
    assert len(source.rows) == 12 and found(source)["P2/1.2/1.2.1_0"] == ("well", "P2")
    assert {(row.header, row.split, row.site) for row in source.rows} == {
        ("P1", "train", "north"),
        ("P2", "test", "south"),
        ("P3", "train", "north"),
    }
    assert {row.patient for row in source.rows} == {"P1", "P2", "P3"}
    told = [] if column == "patient" else [f"the column {column} of labels.csv counts as patient"]
    assert source.notes == (*told, "1 file that is no image was left out, for example P1/viewer.exe")


@pytest.mark.parametrize("column", ["StudyInstanceUID", "study_uid"])
def test_studies_are_matched_by_their_uid(tree, column):
    source = read_source(labels(tree, f"{column},label", "1.1,a", "1.2,b", "1.3,b", name="mine.csv"))
    assert [len([row for row in source.rows if row.labels == (name,)]) for name in "ab"] == [6, 6]


def test_the_finest_id_decides_and_a_series_is_a_volume_in_3d(tree):
    labels(tree, "patient_id,series_uid,grade", "P1,1.1.1,2", "P1,1.1.2,3", "P2,1.2.1,2", "P3,1.3.1,3")
    source = read_source(tree, ReadOptions(spatial_dims=3, label_column="grade"))
    assert found(source) == {
        "P1/1.1#1.1.1": ("2", "P1"),
        "P1/1.1#1.1.2": ("3", "P1"),
        "P2/1.2": ("2", "P2"),
        "P3/1.3": ("3", "P3"),
    }


def test_what_matches_nothing_is_counted_and_named_on_both_sides(tree):
    (tree / "cut.dcm").write_bytes(b"\0" * 500)
    labels(tree, "PatientID,label", "P1,ill", "P2,well", "P8,ill", "P9,well", "P7,")
    source = read_source(tree, ReadOptions(spatial_dims=3))
    notes = " / ".join(source.notes)
    assert "1 image without a label in labels.csv was left out" in notes
    assert "2 of 4 ids in labels.csv match no DICOM image, for example P8, P9" in notes
    assert "1 DICOM image without a label in labels.csv was left out, for example P3/1.3" in notes
    assert "1 DICOM file can't be read and was left out" in notes and "cut.dcm" in notes
    assert {str(tree / "P3/1.3"), str(tree / "cut.dcm"), str(tree / "P1/viewer.exe")} == set(source.ignored)


def test_the_name_of_a_patient_is_none_of_a_file(tree):
    labels(tree, "PatientID,Name,label", "P1,Doe^Jane,ill", "P2,Roe^Max,well", "P3,Poe^Ann,ill")
    assert len(read_source(tree).rows) == 12


def test_multi_label_tables_work_too(tree):
    labels(tree, "PatientID,x,y", "P1,1,1", "P2,0,1", "P3,0,0")
    source = read_source(tree, ReadOptions(label_column=["x", "y"]))
    assert source.multi_label and found(source)["P1/1.1/1.1.1_0"] == ("x", "y", "P1")


@pytest.mark.parametrize(
    "lines, words",
    [
        (
            ["PatientID,label", "p-1,a", "p-2,b"],
            "No DICOM image .* has a PatientID .* 'p-1', the files .* 'P1'",
        ),
        (["PatientID,label", "P1,a", "P1,b"], "has the PatientID P1 twice, with different labels .a in entry 1, b in"),
        (["PatientID,label,split", "P1,a,train", "P1,a,test"], "PatientID P1 twice, with different splits"),
        (["PatientID,label", "P1,a", ",b"], "entry 2: the PatientID is empty"),
        (["PatientID,class", "P1,a"], "no column label; .* rename class to label"),
        (
            ["filename,patient,label", "P1/1.1/gone,P1,a"],
            "no column image; .* rename filename to image .*--image-column filename",
        ),
    ],
)
def test_tables_that_do_not_fit_say_why_in_one_sentence(tree, lines, words):
    labels(tree, *lines)
    with pytest.raises(InputError, match=words) as caught:
        read_source(tree)
    assert "\n" not in str(caught.value)


def test_a_tree_without_dicom_is_told(tmp_path):
    labels(tmp_path, "PatientID,label", "P1,a")
    with pytest.raises(InputError, match="labels.csv has no column image; columns found: PatientID, label"):
        read_source(tmp_path)


@pytest.mark.parametrize("column, ids", [("Fall", ("P1", "P2", "P3")), ("Studie", ("1.1", "1.2", "1.3"))])
def test_a_column_of_ids_is_known_by_the_headers(tree, column, ids):
    lines = [f"{name},{label},{k}" for k, (name, label) in enumerate(zip(ids, "aba", strict=True))]
    source = read_source(labels(tree, f"{column},label,age", *lines, name="mine.csv"))
    assert [sum(row.labels == (name,) for row in source.rows) for name in "ab"] == [9, 3]
    assert f"labelled by {column} in mine.csv" in source.description
    assert read_source(labels(tree, f"{column},label,age", *lines)).description.endswith("in labels.csv")


def test_several_columns_of_ids_are_refused(tree):
    path = labels(tree, "Fall,Person,label", "P1,P1,a", "P2,P2,b", "P3,P3,b", name="mine.csv")
    with pytest.raises(InputError, match="several columns with the patient ids .* .Fall, Person.; rename .* patientid"):
        read_source(path)


def test_ids_are_matched_in_any_spelling(tree):
    source = read_source(labels(tree, "PatientID,label", "p1,a", "P2\N{NO-BREAK SPACE},b", "P3,b"))
    assert len(source.rows) == 12 and source.notes[-1].startswith("1 file that is no image")
    for folder, name in (("Q1", "007"), ("Q2", "12")):
        write_ct(tree / folder / "1.dcm", np.zeros((2, 2)), PatientID=name)
    source = read_source(labels(tree, "PatientID,label", "7,a", "12.0,b", name="numbers.csv"))
    assert sorted((row.header, row.labels) for row in source.rows) == [("007", ("a",)), ("12", ("b",))]
    with pytest.raises(InputError, match="entry 2: the PatientID is 'ANONYMOUS', which names nobody"):
        read_source(labels(tree, "PatientID,label", "P1,a", "ANONYMOUS,b"))
