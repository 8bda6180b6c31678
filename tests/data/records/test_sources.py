# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from dual_skd.data.records.asked_images import find_images
from dual_skd.data.records.sources import read_source
from dual_skd.errors import InputError


@pytest.fixture
def folder(tmp_path) -> Path:
    """Class folders with two images."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    return tmp_path


def test_class_folders_are_read_where_there_is_no_table(folder):
    assert read_source(folder).description == f"class folders in {folder}"


@pytest.mark.parametrize("name", ["datalist.csv", "labels.csv"])
def test_a_table_in_the_folder_comes_first(folder, name):
    (folder / name).write_text("image,label\na/1.png,x\nb/1.png,y\n")
    source = read_source(folder)
    assert source.description == str(folder / name) and [row.labels for row in source.rows] == [("x",), ("y",)]


def test_a_labels_csv_of_another_kind_is_left_out_and_told(folder):
    (folder / "labels.csv").write_text("code,meaning\na,well\nb,ill\n")
    source = read_source(folder)
    assert len(source.rows) == 2
    assert source.notes == (
        "1 file that is no image was left out, for example labels.csv",
        "labels.csv is not read, as the folders' names are the labels; give its path if it has them",
    )


def test_an_npz_file_is_a_data_set(tmp_path):
    np.savez(tmp_path / "s.npz", train_images=np.zeros((2, 8, 8)), train_labels=np.array([[0], [1]]))
    assert [row.labels for row in read_source(tmp_path / "s.npz").rows] == [("0",), ("1",)]


def test_an_absent_path_is_answered_with_the_nearest_name(folder):
    with pytest.raises(InputError, match=f"does not exist; did you mean {folder}"):
        read_source(folder.with_name(folder.name + "x"))
    with pytest.raises(InputError, match="has nothing of a similar name; give a folder of images"):
        read_source(folder.with_name("unlike"))
    with pytest.raises(InputError, match="dmeo does not exist; did you mean demo, the generated images"):
        read_source(folder.with_name("dmeo"))
    with pytest.raises(InputError, match="is neither a folder nor a table"):
        read_source(folder / "a" / "1.png")


@pytest.fixture
def workbook(tmp_path) -> bytes:
    with zipfile.ZipFile(tmp_path / "made", "w") as book:
        book.writestr("xl/workbook.xml", "")
    content = (tmp_path / "made").read_bytes()
    (tmp_path / "made").unlink()
    return content


def test_a_workbook_in_the_place_of_the_table_is_refused(folder, workbook):
    (folder / "labels.xlsx").write_bytes(workbook)
    with pytest.raises(InputError, match="labels.xlsx .* is an Excel workbook; save the sheet as CSV UTF-8"):
        read_source(folder)
    assert len(find_images(folder)) == 2  # inference needs no labels
    (folder / "labels.csv").write_text("image,label\na/1.png,x\nb/1.png,y\n")
    assert [row.labels for row in read_source(folder).rows] == [("x",), ("y",)]


def test_another_workbook_is_left_out_with_a_word_on_where_labels_come_from(folder, workbook):
    (folder / "Patientenliste.xlsx").write_bytes(workbook)
    words = "the labels are the names of the folders; for those of Patientenliste.xlsx, save the sheet as datalist.csv"
    assert words in read_source(folder).notes


def test_a_workbook_beside_loose_images_is_named_in_the_refusal(tmp_path, workbook):
    (tmp_path / "1.dcm").touch(), (tmp_path / "Liste.xlsx").write_bytes(workbook)
    with pytest.raises(InputError, match="if Liste.xlsx is the table of the images, save its sheet as CSV UTF-8"):
        read_source(tmp_path)


def test_a_workbook_named_npz_is_named_as_such(tmp_path, workbook):
    (tmp_path / "s.npz").write_bytes(workbook)
    with pytest.raises(InputError, match="s.npz can't be read: the content is an Excel workbook"):
        read_source(tmp_path / "s.npz")
