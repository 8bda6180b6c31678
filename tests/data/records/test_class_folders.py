# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_ct

from dual_skd.data.records.class_folders import read_class_folders
from dual_skd.errors import InputError


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def read(root: Path, dims: int = 2) -> dict[str, tuple]:
    source = read_class_folders(root, dims)
    return {str(Path(row.image).relative_to(root)): (row.split, *row.labels, row.folder) for row in source.rows}


def test_images_at_any_depth_have_their_class_and_the_first_folder_below_it(tmp_path):
    touch(tmp_path, "a/1.png", "a/p1/2.png", "a/p1/deep/3.png", "b/p2/study/4.png")
    assert read(tmp_path) == {
        "a/1.png": ("", "a", ""),
        "a/p1/2.png": ("", "a", "p1"),
        "a/p1/deep/3.png": ("", "a", "p1"),
        "b/p2/study/4.png": ("", "b", "p2"),
    }


def test_split_folders_are_known_by_all_their_names(tmp_path):
    touch(tmp_path, "Training/a/1.png", "validation/b/2.png", "TEST/a/p/3.png")
    assert read(tmp_path) == {
        "Training/a/1.png": ("train", "a", ""),
        "validation/b/2.png": ("val", "b", ""),
        "TEST/a/p/3.png": ("test", "a", "p"),
    }


def test_what_is_left_out_is_counted_named_and_listed(tmp_path):
    junk = ["a/.DS_Store", "b/Thumbs.db", "__MACOSX/a/._1.png", "readme.txt", "_old/x.png", ".git/config"]
    touch(tmp_path, "a/1.png", "b/2.png", "loose.png", *junk)
    source = read_class_folders(tmp_path, 2)
    assert source.notes == (
        "5 files that are no images were left out, for example .git/config, __MACOSX/a/._1.png, a/.DS_Store",
        "folders left out, as their names begin with _ or a dot: _old",
        "1 image outside the class folders was left out, for example loose.png",
    )
    assert set(source.ignored) == {str(tmp_path / name) for name in [*junk, "loose.png"]}
    assert len(source.rows) == 2


@pytest.mark.parametrize("run", ["output", "train/output", "train/a/output"])
def test_a_run_inside_the_data_is_neither_a_class_nor_images(tmp_path, run):
    touch(tmp_path, "train/a/1.png", "train/b/2.png")
    files = [f"{run}/run.json", f"{run}/datalist.json", f"{run}/report/plots/confusion.png"]
    touch(tmp_path, *files)
    source = read_class_folders(tmp_path, 2)
    assert [row.labels for row in source.rows] == [("a",), ("b",)]
    assert set(source.ignored) == {str(tmp_path / name) for name in files}
    assert run.count("/") == 2 or source.notes == (f"folders left out, as they hold a training run: {run}",)


def test_a_folder_that_names_no_split_is_told(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/2.png", "extra/a/3.png")
    source = read_class_folders(tmp_path, 2)
    assert source.notes[0] == "folders left out, as they name no split: extra"
    assert source.ignored == (str(tmp_path / "extra/a/3.png"),) and len(source.rows) == 2


def test_flat_dicom_slices_of_a_class_are_grouped_by_series(tmp_path):
    for label, uids in (("a", ("1.2.1", "1.2.2")), ("b", ("1.2.3",))):
        for uid in uids:
            for number in range(3):
                tags = dict(SeriesInstanceUID=uid, PatientID=f"P{uid[-1]}", InstanceNumber=number)
                write_ct(tmp_path / label / f"{uid}-{number}.dcm", np.zeros((2, 2)), **tags)
    source = read_class_folders(tmp_path, 3)
    found = [(row.image.removeprefix(f"{tmp_path}/"), row.labels, row.folder, row.header) for row in source.rows]
    assert found == [
        ("a#1.2.1", ("a",), "", "P1"),
        ("a#1.2.2", ("a",), "", "P2"),
        ("b", ("b",), "", "P3"),
    ]


def test_several_series_in_the_folder_of_a_patient_are_of_that_patient(tmp_path):
    for patient, uids in (("p1", ("1.2.1", "1.2.2")), ("p2", ("1.2.3",))):
        for uid in uids:
            for number in range(2):
                tags = dict(SeriesInstanceUID=uid, PatientID="", InstanceNumber=number)
                write_ct(tmp_path / "a" / patient / f"{uid}-{number}.dcm", np.zeros((2, 2)), **tags)
    assert [row.folder for row in read_class_folders(tmp_path, 3).rows] == ["p1", "p1", ""]


def test_single_slices_in_3d_are_told(tmp_path):
    for label in "ab":
        for number in range(2):
            uid = f"1.2.{ord(label)}{number}"
            write_ct(tmp_path / label / f"{number}.dcm", np.zeros((2, 2)), SeriesInstanceUID=uid)
    with pytest.raises(
        InputError, match="No volumes found in .* only 4 single DICOM slices; .* --spatial-dims 2 is for"
    ):
        read_class_folders(tmp_path, 3)
    touch(tmp_path, "a/1.nii.gz", "b/2.nii.gz")
    assert "4 DICOM files were left out, as a single slice is no volume" in read_class_folders(tmp_path, 3).notes


@pytest.mark.parametrize(
    "files, words",
    [
        ([], "No images found in .*no class folders"),
        (["a/notes.txt", "b/x.pdf"], "found 2 folders without images"),
        (["1.png", "2.png"], "found no class folders"),
        (["pneumonia.npz"], "give a file such as .*pneumonia.npz itself"),
        (["a/1.png", "b/x.txt"], "Class folders without images in .*: b; add images"),
        (["test/a/1.png", "test/b/2.png"], "folder test but no train folder"),
        (["train/a/1.png", "training/a/1.png"], "two folders for the train split, train and training"),
        (["a|b/1.png", "c/2.png", "|/1.png"], r"class folders '.*a\|b', '\|' in .* have a \| in their names"),
        (["train/a|b/1.png", "test/c|d/2.png"], r"class folders 'test/c\|d', 'train/a\|b' in"),
        (["a/train/1.png", "a/test/2.png"], "split folders lie inside the class folder .*: test/a instead of a/test"),
    ],
)
def test_folders_that_can_not_be_used_say_why_in_one_sentence(tmp_path, files, words):
    touch(tmp_path, *files)
    with pytest.raises(InputError, match=words) as caught:
        read_class_folders(tmp_path, 2)
    assert "\n" not in str(caught.value)


def test_an_empty_class_folder_is_fine_in_a_test_set(tmp_path):
    touch(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png")
    (tmp_path / "test" / "b").mkdir()
    assert len(read_class_folders(tmp_path, 2).rows) == 3


def test_spaces_at_the_ends_of_class_folders_are_lost_and_all_are_told_at_once(tmp_path):
    ill = "train/ ill\N{NO-BREAK SPACE}"
    touch(tmp_path, "train/Normal /1.png", f"{ill}/2.png", "test/Normal/3.png", "test/Normal /4.png")
    source = read_class_folders(tmp_path, 2)
    assert sorted(row.labels for row in source.rows) == [("Normal",), ("Normal",), ("Normal",), ("ill",)]
    (doubt,) = source.doubts
    assert f"'test/Normal ', {ill!r}, 'train/Normal '" in doubt and doubt in source.notes


def test_accents_that_are_stored_in_two_ways_are_one_class(tmp_path):
    one, other = "M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller", "Mu\N{COMBINING DIAERESIS}ller"
    touch(tmp_path, f"train/{one}/1.png", "train/b/2.png", f"test/{other}/3.png")
    assert {row.labels for row in read_class_folders(tmp_path, 2).rows} == {(one,), ("b",)}


def test_split_folders_are_known_in_any_spelling(tmp_path):
    touch(tmp_path, "Train /a/1.png", "TEST\N{ZERO WIDTH SPACE}/a/2.png")
    assert [row.split for row in read_class_folders(tmp_path, 2).rows] == ["test", "train"]
