# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import nibabel
import numpy as np
import pytest
from dicom_files import write_picture, write_series
from PIL import Image

from dual_skd.data.reading.grey import read_grey
from dual_skd.data.records.frames import all_frames, frames_of, rows_of_frames
from dual_skd.data.records.rows import Row
from dual_skd.errors import InputError


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """A cine loop, a TIFF and a NIfTI file of 5 frames with the values 0, 10, 20 ..., and a single picture."""
    stack = np.repeat(np.arange(0, 50, 10, dtype=np.uint8), 12).reshape(5, 3, 4)
    write_picture(tmp_path / "cine.dcm", stack, NumberOfFrames=5, Modality="US")
    pages = [Image.fromarray(page) for page in stack]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    nibabel.save(nibabel.Nifti1Image(stack.transpose(2, 1, 0), np.eye(4)), tmp_path / "slices.nii.gz")
    pages[3].save(tmp_path / "one.png")
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def test_the_chosen_frame_is_what_is_read(files):
    for stem in ("cine", "pages", "slices"):
        path = files[stem] if stem != "slices" else files["slices.nii"]
        for frame, value in (("middle", 20), (0, 0), (4, 40)):
            ((image,),) = frames_of([path], frame)
            assert read_grey(image, spatial_dims=2).unique().tolist() == [value], image
        (every,) = frames_of([path], "all")
        assert every == all_frames(path)
        assert [read_grey(image, spatial_dims=2).mean().item() for image in every] == [0, 10, 20, 30, 40]


def test_single_pictures_and_named_frames_stay_as_they_are(files):
    images = [files["one"], files["cine"] + "#frame=1"]
    assert frames_of(images, "all") == [[image] for image in images]
    assert frames_of([files["cine"]], None) == [[files["cine"]]]


def test_the_frames_of_a_series_are_the_files_of_its_slices_along_the_stack(tmp_path):
    stack = np.repeat(np.arange(0, 50, 10, dtype=np.int16), 12).reshape(5, 3, 4)
    series = write_series(tmp_path / "series", stack)
    write_series(tmp_path / "two", stack, SeriesInstanceUID="1.2.4")
    write_series(tmp_path / "two" / "more", stack[::-1], SeriesInstanceUID="1.2.5")
    for path in list((tmp_path / "two" / "more").iterdir()):
        path.rename(tmp_path / "two" / f"more_{path.name}")
    (tmp_path / "two" / "more").rmdir()
    for image, values in ((series, [0, 10, 20, 30, 40]), (f"{tmp_path / 'two'}#1.2.5", [40, 30, 20, 10, 0])):
        (every,) = frames_of([str(image)], "all")
        assert [read_grey(one, spatial_dims=2).mean().item() for one in every] == values
        assert frames_of([str(image)], "middle") == [[every[2]]] and frames_of([str(image)], 4) == [[every[4]]]
        rows, _ = rows_of_frames([Row(str(image), ("ill",))], "all")
        assert {row.patient for row in rows} == {str(image)} and [row.image for row in rows] == every
    two = str(tmp_path / "two")  # the reader says that a series must be named
    assert frames_of([two], "middle") == [[two]]


def test_frames_of_one_file_count_as_one_patient(files):
    rows = [Row(files["cine"], ("ill",)), Row(files["pages"], ("well",), patient="p7"), Row(files["one"], ("well",))]
    found, notes = rows_of_frames(rows, "all")
    assert len(found) == 11
    assert {row.patient for row in found if row.labels == ("ill",)} == {files["cine"]}
    assert {row.patient for row in found if row.labels == ("well",)} == {"p7", ""}
    assert "2 files or series have several frames" in notes[0] and "11 images" in notes[0]
    middle, _ = rows_of_frames(rows, "middle")
    assert [row.patient for row in middle] == ["", "p7", ""] and middle[0].image.endswith("#frame=2")
    assert rows_of_frames(rows, None) == (rows, [])


def test_a_frame_that_is_not_there_or_no_frame_at_all_is_an_error(files, tmp_path):
    with pytest.raises(InputError, match="has 5 frames, so there is no frame 5"):
        frames_of([files["cine"]], 5)
    for wrong in ("first", -1, True, 1.5):
        with pytest.raises(InputError, match="frame is"):
            frames_of([files["cine"]], wrong)
    (tmp_path / "bad.nii").write_bytes(b"nothing")
    assert all_frames(str(tmp_path / "bad.nii")) == [str(tmp_path / "bad.nii")]
