# SPDX-License-Identifier: Apache-2.0
"""Files of an office in the place of images: the check and all readers name them alike, with a remedy that fits."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import write_picture
from PIL import Image

from dual_skd.cli.predict import line_of
from dual_skd.data.reading.formats import TEXT, UNKNOWN, content_of, format_of
from dual_skd.data.reading.inspection import inspect, quick_facts
from dual_skd.data.reading.preprocessing import image_transforms
from dual_skd.data.reading.reader import read_image
from dual_skd.data.records.asked_images import find_images
from dual_skd.data.records.bad_files import usable_rows
from dual_skd.data.records.rows import Row
from dual_skd.data.tolerant_dataset import TolerantDataset
from dual_skd.errors import InputError
from dual_skd.options.data import ReadOptions
from dual_skd.serving.prediction import Prediction


def zipped(*names: str, content: bytes = b"x", kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name in names:
            archive.writestr(name, content)
    return stream.getvalue()


def opendocument(kind: str) -> bytes:
    """As ODF 1.3 part 2, 3.3, wants it: the first member is stored, and named mimetype."""
    content = f"application/vnd.oasis.opendocument.{kind}".encode()
    return zipped("mimetype", content=content, kind=zipfile.ZIP_STORED)


def compound(stream: str) -> bytes:
    """The beginning of an OLE file with one stream in its directory, which is in the first sector (MS-CFB 2.2, 2.6)."""
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".ljust(512, b"\0")
    return header + "Root Entry".encode("utf-16-le").ljust(128, b"\0") + stream.encode("utf-16-le").ljust(128, b"\0")


def locked(archive: bytes) -> bytes:
    """The same with the flag of encrypted members, in the local header and in the directory (APPNOTE 4.4.4)."""
    changed = bytearray(archive)
    changed[6] |= 1
    changed[archive.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return stream.getvalue()


EXCEL = zipped("docProps/app.xml", "xl/workbook.xml", "[Content_Types].xml")
LINK = b"L\0\0\0" + bytes.fromhex("0114020000000000c000000000000046") + bytes(60)  # MS-SHLLINK 2.1
FOREIGN = {
    "excel": (EXCEL, "an Excel workbook", "save the sheet as CSV UTF-8"),
    "old excel": (compound("Workbook"), "an Excel workbook", "save the sheet as CSV UTF-8"),
    "calc": (opendocument("spreadsheet"), "an OpenDocument spreadsheet", "save the sheet as CSV UTF-8"),
    "word": (zipped("[Content_Types].xml", "word/document.xml"), "a Word document", "as PNG files"),
    "old word": (compound("WordDocument"), "a Word document", "as PNG files"),
    "powerpoint": (zipped("ppt/presentation.xml"), "a PowerPoint presentation", "as PNG files"),
    "writer": (opendocument("text"), "an OpenDocument text", "as PNG files"),
    "drawing": (opendocument("graphics"), "an OpenDocument file", "leave it out"),
    "with password": (compound("EncryptedPackage"), "an Office file with a password", "without the password"),
    "outlook": (compound("__properties_version1.0"), "an e-mail", "leave it out"),
    "thumbnails": (compound("256_3f2a"), "a file of an old Office program", "leave it out"),
    "zip": (zipped("a.png", "b.png"), "a zip archive", "unpack it"),
    "locked zip": (locked(zipped("a.png")), "a zip archive", "unpack it"),
    "tar": (tarred(), "a tar archive", "unpack it"),
    "gzip": (gzip.compress(b"DICM" * 99), "a gzip archive", "unpack it"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document", "as PNG files"),
    "rtf": (rb"{\rtf1\ansi Befund}", "an RTF document", "as PNG files"),
    "error page": (b"\n<!DOCTYPE html><title>404</title>", "a web page", "download the file again"),
    "utf-16 page": ("\ufeff<html><title>404".encode("utf-16-le"), "a web page", "download the file again"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC", "convert it to PNG"),
    "avif": (b"\0\0\0\x20ftypavif\0\0\0\0mif1avif", "AVIF", "convert it to PNG"),
    "webp": (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP", "convert it to PNG"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing", "convert it to PNG"),
    "nrrd": (b"NRRD0004\ntype: short\n", "NRRD", "convert it to NIfTI"),
    "metaimage": (b"ObjectType = Image\nNDims = 3\n", "MetaImage", "convert it to NIfTI"),
    "mp4": (b"\0\0\0\x20ftypisom\0\0\2\0", "a video", "as PNG files"),
    "avi": (b"RIFF\x10\0\0\0AVI LIST", "a video", "as PNG files"),
    "text": (b"Dear colleague, see the other folder.", TEXT, "leave it out"),
    "umlauts": ("Größe;Maße\n".encode("cp1252"), TEXT, "leave it out"),
    "mail": (b"Received: from a.example\r\nSubject: images\r\n", "an e-mail", "leave it out"),
    "shortcut": (LINK, "a Windows shortcut", "put the file that it leads to"),
    "internet shortcut": (b"[InternetShortcut]\r\nURL=https://a.example\r\n", "an Internet shortcut", "leads to"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"),
    "program": (b"MZ\x90\0\3\0\0\0", "a Windows program", "leave it out"),
    "noise": (bytes(range(200, 256)), UNKNOWN, "leave it out"),
}


@pytest.mark.parametrize("name", ["befund.jpg", "befund.dcm", "befund", "befund.nii.gz", "befund.npy"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_every_reader_names_a_foreign_file_as_the_check_does(tmp_path, kind, name):
    content, words, remedy = FOREIGN[kind]
    path = tmp_path / name
    path.write_bytes(content)
    facts = inspect(str(path))
    assert facts == quick_facts(str(path))
    assert (facts.problem, facts.detail) == ("not_an_image", f"the content is {words}, which isn't read")
    assert remedy in facts.remedy
    for spatial_dims in (2, 3):
        with pytest.raises(InputError) as caught:
            read_image(path, spatial_dims=spatial_dims)
        assert str(caught.value) == f"{path} can't be read: {facts.detail}; {facts.remedy}."


@pytest.mark.parametrize("kind", ["excel", "pdf", "error page", "heic", "mp4", "text"])
def test_training_inference_and_predict_name_it_too_and_its_path_once(tmp_path, kind):
    path = tmp_path / "befund.jpg"
    path.write_bytes(FOREIGN[kind][0])
    problem = f"the content is {FOREIGN[kind][1]}, which isn't read; "
    with pytest.raises(InputError, match=f"befund.jpg: {problem}"):
        usable_rows([Row(str(path), ("a",))], ReadOptions(), "D")
    (gap,) = TolerantDataset([{"image": str(path)}], image_transforms(2, 8), shape=(1, 8, 8))
    assert gap["problem"].startswith(f"{path} can't be read: {problem}")
    line = line_of(Prediction(str(path), problem=gap["problem"]))
    assert line.startswith(f"{path}: not used: befund.jpg can't be read: {problem}") and line.count(str(path)) == 1
    path = path.rename(tmp_path / "befund.other")
    with pytest.raises(InputError, match=f"befund.other can't be read: {problem}"):
        find_images(path)


def test_an_array_in_a_zip_makes_it_npz_wherever_it_stands(tmp_path):
    array = io.BytesIO()
    np.save(array, np.random.default_rng(0).integers(0, 255, (400, 400), dtype=np.uint8))
    first = zipped("a.npy", "readme.txt", content=array.getvalue())
    assert format_of(first[:1000]) == format_of(first) == "NPZ"
    path = tmp_path / "late.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", array.getvalue())  # longer than what is looked at
        archive.writestr("a.npy", array.getvalue())
    assert content_of(path) == "NPZ"
    assert format_of(EXCEL[:-30]) == "an Excel workbook"  # cut off, so that its directory can't be read


def save_all(folder: Path) -> dict[str, Path]:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(folder / "picture.png")
    write_picture(folder / "slice.dcm", grey)
    np.save(folder / "array.npy", grey)
    np.savez(folder / "set.npz", train_images=grey[None])
    nib.save(nib.Nifti1Image(grey[..., None].repeat(8, 2), np.eye(4)), folder / "volume.nii.gz")
    (folder / "plain.nii").write_bytes(gzip.decompress((folder / "volume.nii.gz").read_bytes()))
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("name, named, words", [
    ("slice.dcm", "a.png", "the content is DICOM, its name says PNG; let its name end with .dcm."),
    ("picture.png", "a.dcm", "the content is PNG, its name says DICOM; let its name end with .png."),
    ("picture.png", "a", "the content is PNG, its name says DICOM; let its name end with .png."),
    ("picture.png", "a.nii", "the content is PNG, its name says NIfTI; let its name end with .png."),
    ("set.npz", "a.npy", "the content is NPZ, its name says NPY; let its name end with .npz."),
    ("volume.nii.gz", "a.png", "the content is NIfTI, its name says PNG; let its name end with .nii.gz."),
    ("volume.nii.gz", "a.nii", "it is compressed, against its name; let it end with .nii.gz."),
    ("plain.nii", "a.nii.gz", "it is not compressed, against its name; let it end with .nii."),
])  # fmt: skip
def test_an_image_under_a_wrong_name_is_told_the_right_one(tmp_path, name, named, words):
    path = save_all(tmp_path)[name].rename(tmp_path / named)
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(caught.value) == f"{path} can't be read: {words}"


def test_a_damaged_image_is_still_called_damaged_without_its_path_in_the_reason(tmp_path):
    path = save_all(tmp_path)["picture.png"]
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="can't be read, it is damaged") as caught:
        read_image(path)
    assert str(caught.value).count(str(path)) == 1 and "_io." not in str(caught.value)


@pytest.mark.parametrize("text", [b"BMI,label\n20,a\n", b"MZ,label\n1,a\n", b"#!image,label\n", b"BZ-1,label\n1,b\n"])
def test_a_text_that_begins_like_a_mark_is_text(text):
    assert format_of(text) == TEXT


def test_a_bitmap_is_known_by_more_than_two_letters():
    bitmap = io.BytesIO()
    Image.new("L", (4, 4)).save(bitmap, "BMP")
    marked = bytearray(bitmap.getvalue())
    marked[6:10] = b"abcd"  # reserved, and free for programs
    assert (
        format_of(bitmap.getvalue()) == format_of(bytes(marked)) == "BMP"
        and format_of(b"BM" + struct.pack("<III", 9, 9, 9)) == UNKNOWN
    )


def test_a_folder_without_dicom_is_no_series(tmp_path):
    (tmp_path / "a.txt").write_text("no image")
    facts = inspect(str(tmp_path), 3)
    assert (facts.problem, facts.detail) == ("not_an_image", "no file in the folder is DICOM") and facts.remedy
