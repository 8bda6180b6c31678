# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_ct

from dual_skd.data.records.class_folders import read_class_folders
from dual_skd.data.records.image_files import Found, find_image_files, is_dicom, is_image, list_files
from dual_skd.errors import InputError

SLICE = np.zeros((4, 6), dtype=np.int16)
ACROSS, UPRIGHT = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]


def touch(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def series(folder: Path, uid: str, slices: int, *, patient: str = "p", **tags) -> None:
    for number in range(slices):
        tags = {"ImageOrientationPatient": ACROSS, "ImagePositionPatient": [0, 0, 3.0 * number], **tags}
        name = f"{uid.replace('.', '_')}_{number}.dcm"
        write_ct(folder / name, SLICE, SeriesInstanceUID=uid, PatientID=patient, InstanceNumber=number + 1, **tags)


def names(found: Found, root: Path) -> list[str]:
    return [str(Path(file.image).relative_to(root)) for file in found.images]


def test_images_are_told_by_suffix_or_by_the_mark_of_dicom(tmp_path):
    mark = b"\0" * 128 + b"DICM"
    for name in ("a.PNG", "a.jpeg", "a.tif", "a.nii.gz", "a.npy", "a.DCM", "a.ima"):
        assert is_image(touch(tmp_path / name)), name
    for name in ("IM0001", "1.2.840.7", "slice.raw"):
        assert is_image(touch(tmp_path / name, mark)), name
        assert not is_image(touch(tmp_path / name, b"something else")), name
    for name in (".DS_Store", "._a.png", ".hidden.dcm", "Thumbs.db", "desktop.ini", "readme.txt", "a.png.part"):
        assert not is_image(touch(tmp_path / name)), name
    assert not is_image(touch(tmp_path / "DICOMDIR", mark)), "the index of a medium holds no image"
    assert is_dicom("IM0001") and is_dicom("a.dcm") and not is_dicom("a.nii.gz") and not is_dicom("set.npz")


def test_everything_below_a_folder_is_an_image_or_listed_as_none(tmp_path):
    kept = [touch(tmp_path / name) for name in ("b.png", "x/a.png", "x/y/z.jpg")]
    left = [touch(tmp_path / name) for name in ("__MACOSX/x/._a.png", ".git/a.png", "x/.DS_Store", "notes.txt")]
    assert list_files(tmp_path) == (sorted(map(str, kept)), sorted(map(str, left)))


@pytest.mark.parametrize(
    "name", ["@eaDir", "$RECYCLE.BIN", "#recycle", "@Recycle", "System Volume Information", "lost+found"]
)
def test_leftovers_of_drives_are_no_images_and_no_classes(tmp_path, name, monkeypatch):
    kept = [touch(tmp_path / label / "1.png") for label in "ab"]
    left = [touch(tmp_path / name / "1.png"), touch(tmp_path / "a" / name / "1.png" / "thumbnail.jpg")]
    assert list_files(tmp_path) == (list(map(str, kept)), sorted(map(str, left)))
    source = read_class_folders(tmp_path, 2)
    assert {row.labels for row in source.rows} == {("a",), ("b",)} and set(source.ignored) == set(map(str, left))
    scandir = os.scandir

    def refuse(path: str):
        if os.path.basename(path) == name:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(read_class_folders(tmp_path, 2).rows) == 2 and len(list_files(tmp_path)[0]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_no_table_could_hold_is_refused(tmp_path):
    touch(tmp_path / "x" / os.fsdecode(b"M\xfcller.png"))
    with pytest.raises(InputError, match=r"name of '.*M\\udcfcller.png' isn't UTF-8; rename it"):
        list_files(tmp_path)


def test_linked_folders_are_entered_once_and_circles_end(tmp_path):
    touch(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "elsewhere")
    assert list_files(tmp_path / "data")[0] == [str(tmp_path / "data" / "linked" / "a.png")]


@pytest.mark.parametrize("target", ["self", "..", ".", "../b", "../../data/b/deep"])
def test_a_link_gives_a_class_no_images_of_another_place_in_the_data(tmp_path, target):
    for name in ("a/1.png", "b/2.png", "b/deep/3.png"):
        touch(tmp_path / "data" / name)
    (tmp_path / "data" / "a" / "self").symlink_to(target)
    source = read_class_folders(tmp_path / "data", 2)
    assert sorted((row.labels[0], Path(row.image).name) for row in source.rows) == [
        ("a", "1.png"), ("b", "2.png"), ("b", "3.png"),
    ]  # fmt: skip
    assert source.ignored == (str(tmp_path / "data" / "a" / "self"),) and "1 file that is no image" in source.notes[0]


@pytest.mark.parametrize("target", ["a", "..", ".", "a/deep"])
def test_a_class_folder_that_is_a_link_to_another_is_refused(tmp_path, target):
    touch(tmp_path / "data" / "a" / "deep" / "1.png")
    (tmp_path / "data" / "b").symlink_to(target)
    with pytest.raises(
        InputError, match=r"The class folder .*/data/b is a link to .* class a as well; remove the link"
    ):
        read_class_folders(tmp_path / "data", 2)


def test_links_to_archives_are_followed_once_even_where_these_link_on(tmp_path):
    touch(tmp_path / "archive" / "p1" / "1.png")
    touch(tmp_path / "archive" / "p2" / "2.png")
    (tmp_path / "archive" / "p1" / "all").symlink_to(tmp_path / "archive")
    for name in "ab":
        touch(tmp_path / "data" / name / f"{name}.png")
    for name, patient in (("a", "p1"), ("b", "p2"), ("b", "p1")):
        (tmp_path / "data" / name / patient).symlink_to(tmp_path / "archive" / patient)
    found = [(row.labels[0], Path(row.image).name) for row in read_class_folders(tmp_path / "data", 2).rows]
    assert found == [("a", "a.png"), ("a", "1.png"), ("b", "b.png"), ("b", "2.png")]


def test_folders_of_any_depth_are_gone_through(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    depths = range(1, 1501)
    for depth in depths:
        os.mkdir("d/" * depth)
    deepest = touch(Path("d/" * 1500, "1.png"))
    assert list_files("d")[0] == [str(deepest)]
    deepest.unlink()
    for depth in reversed(depths):  # shutil.rmtree can't go so deep
        os.rmdir("d/" * depth)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such files")
def test_pipes_sockets_and_devices_are_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    touch(tmp_path / "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind("socket.png")
        (tmp_path / "device.png").symlink_to("/dev/zero")
        (tmp_path / "loop.png").symlink_to("loop.png")
        (tmp_path / "nowhere.png").symlink_to("gone.png")
        images, others = list_files(tmp_path)
    assert [Path(file).name for file in images] == ["1.png", "loop.png", "nowhere.png"]  # reading says what is wrong
    assert [Path(file).name for file in others] == ["device.png", "pipe.png", "socket.png"]


def test_in_2d_every_file_is_an_image_and_no_header_is_read(tmp_path):
    series(tmp_path / "s", "1.2", 3)
    touch(tmp_path / "broken.dcm")
    found = find_image_files(tmp_path, 2)
    assert len(found.images) == 4 and all(file.patient is None for file in found.images)


def test_a_folder_with_one_series_is_a_volume_and_one_with_several_gives_one_per_series(tmp_path):
    series(tmp_path / "one", "1.2.1", 3, patient="p1")
    series(tmp_path / "two", "1.2.2", 2, patient="p2")
    series(tmp_path / "two", "1.2.3", 4, patient="p2")
    touch(tmp_path / "scan.nii.gz")
    found = find_image_files(tmp_path, 3)
    assert names(found, tmp_path) == ["one", "scan.nii.gz", "two#1.2.2", "two#1.2.3"]
    assert [file.patient for file in found.images] == ["p1", None, "p2", "p2"]


def test_a_series_beside_other_images_is_named_by_its_uid(tmp_path):
    series(tmp_path, "1.2.1", 3)
    touch(tmp_path / "scan.nii.gz")
    assert names(find_image_files(tmp_path, 3), tmp_path.parent) == [
        f"{tmp_path.name}#1.2.1",
        f"{tmp_path.name}/scan.nii.gz",
    ]


def test_single_slices_are_no_volume_but_multi_frame_files_are(tmp_path):
    series(tmp_path / "a", "1.2.1", 3)
    write_ct(tmp_path / "a" / "localiser.dcm", SLICE, SeriesInstanceUID="1.2.9", ImageOrientationPatient=UPRIGHT)
    write_ct(tmp_path / "b" / "cine.dcm", np.zeros((2, 4, 6)), NumberOfFrames=2)
    found = find_image_files(tmp_path, 3)
    assert names(found, tmp_path) == ["a#1.2.1", "b/cine.dcm"]
    assert found.single_slices == [str(tmp_path / "a" / "localiser.dcm")]


@pytest.mark.parametrize("split", [lambda n: n // 3, lambda n: n % 2, lambda n: n])
def test_a_volume_whose_slices_lie_in_several_folders_is_refused(tmp_path, split):
    for number in range(6):
        tags = {"ImageOrientationPatient": ACROSS, "ImagePositionPatient": [0, 0, 3.0 * number]}
        write_ct(tmp_path / f"SE{split(number)}" / f"{number}.dcm", SLICE, SeriesInstanceUID="1.2.1", **tags)
    with pytest.raises(InputError, match="series 1.2.1 lie in . folders, for example .*SE0 and .*SE1; put its files"):
        find_image_files(tmp_path, 3)


def test_copies_and_series_that_only_share_an_uid_are_volumes_of_their_own(tmp_path):
    series(tmp_path / "a", "1.2.1", 3)
    shutil.copytree(tmp_path / "a", tmp_path / "copy of a")
    series(tmp_path / "b", "1.2.2", 3)
    for number in range(3):
        tags = {"ImageOrientationPatient": ACROSS, "ImagePositionPatient": [7, 5, 3.0 * number + 1]}
        write_ct(tmp_path / "of another patient" / f"{number}.dcm", SLICE, SeriesInstanceUID="1.2.2", **tags)
    assert names(find_image_files(tmp_path, 3), tmp_path) == ["a", "b", "copy of a", "of another patient"]


def test_a_slice_that_can_not_be_read_is_listed_on_its_own(tmp_path):
    series(tmp_path, "1.2.1", 3)
    touch(tmp_path / "cut.dcm", b"\0" * 128)
    assert names(find_image_files(tmp_path, 3), tmp_path.parent) == [
        f"{tmp_path.name}#1.2.1",
        f"{tmp_path.name}/cut.dcm",
    ]


def test_dicom_reports_hold_no_volume(tmp_path):
    series(tmp_path, "1.2.1", 2)
    report = write_ct(tmp_path / "report.dcm", SLICE, SeriesInstanceUID="1.2.5")
    import pydicom

    dataset = pydicom.dcmread(report)
    del dataset.PixelData, dataset.Rows, dataset.Columns
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    dataset.save_as(report)
    found = find_image_files(tmp_path, 3)
    assert [file.image for file in found.images] == [str(tmp_path)] and found.others == [str(report)]


@pytest.mark.parametrize("dims", [2, 3])
def test_an_empty_folder_has_nothing(tmp_path, dims):
    assert find_image_files(tmp_path, dims) == Found([], [])
