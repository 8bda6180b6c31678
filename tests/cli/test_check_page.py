# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import io
import re
import shlex
from html import unescape
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_files import write_ct
from PIL import Image

from dual_skd.cli import check_page
from dual_skd.cli.dispatch import main
from dual_skd.data import image_transforms


def check(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code of a check and the page it writes."""
    page = folder.parent / "pages" / "check.html"
    return main(["check", str(folder), "--page", str(page), "--quiet", *words]), page.read_text(encoding="utf-8")


def section(page: str, key: str) -> str:
    return page.split(f'<section id="{key}">')[1].split("</section>")[0]


def images(html: str) -> list[tuple[str, np.ndarray]]:
    """Names and pixels of the pictures."""
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)" alt="([^"]*)"', html)
    return [(unescape(name), np.asarray(Image.open(io.BytesIO(base64.b64decode(file))))) for file, name in found]


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC)


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Twelve images of two classes for training, eight for the test."""
    for seed in range(20):
        folder = tmp_path / "hospital <b>" / ("train" if seed < 12 else "test") / "ab"[seed % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(seed).save(folder / f"{seed:02d}.png")
    return tmp_path / "hospital <b>"


def test_a_clean_set_is_shown_class_by_class_as_the_network_would_see_it(dataset, capsys):
    code, page = check(dataset)
    about = page.split("<h1>")[1].split("<pre>")[0]
    assert "hospital" in about and str(dataset.parent) not in about  # folders above may be named after somebody
    assert code == 0 and re.findall(r'<section id="(\w+)"', page) == ["seen", "counts", "files"]
    printed = capsys.readouterr().out.splitlines()
    lead = re.search(r'<p class="lead">(.*?)</p>', page)
    assert lead and lead[1] == "No errors and no warnings found: the set can be trained on." == printed[-3]
    assert printed[-2] == f"  page  {dataset.parent}/pages/check.html"
    assert unescape(re.search(r"<pre>(.*?)</pre>", page)[1]) == printed[-1].removeprefix("Next: ")
    seen = section(page, "seen")
    assert re.findall(r"<h3>(.*?)</h3>|(\d+ \w+ images)", seen) == [
        ("a", ""), ("", "6 train images"), ("", "4 test images"),
        ("b", ""), ("", "6 train images"), ("", "4 test images"),
    ]  # fmt: skip
    assert "96 x 96 pixels: the shape is kept" in words(seen) and "0.5 and 99.5 percentiles" in words(seen)
    shown = images(seen)
    assert [name for name, _ in shown][:7] == [*(f"train/a/{n:02d}.png" for n in range(0, 12, 2)), "test/a/12.png"]
    assert len(shown) == 20
    for name, pixels in shown:
        (expected,) = image_transforms(window="percentile", fit="pad")({"image": str(dataset / name)})["image"].numpy()
        assert np.abs(pixels - (expected + 1) * 127.5).mean() < 3  # of 255, lost by JPEG
    counts = words(section(page, "counts"))
    assert "train test all a 6 4 10 b 6 4 10 all classes 12 8 20 No patients are known, so each image counts" in counts
    assert "The images aren't square" in counts
    files = words(section(page, "files"))
    assert "20 images that can be used format PNG (20) pixels stored as L (20) size along each axis" in files
    assert "pixels 80 x 60 spacing" in files


def test_the_page_holds_everything_itself_and_no_markup_of_names(dataset):
    _, page = check(dataset)
    assert "<title>Check of hospital &lt;b&gt;, 20" in page and "<b>," not in page
    assert not re.search(r"https?:|<script|<link|url\(", page) and "pictures of patients" in page


def test_findings_stand_with_their_remedies_and_their_pictures(dataset):
    picture(1).save(dataset / "test" / "a" / "copy.png")  # of a training image of b
    (dataset / "train" / "a" / "empty.png").touch()
    (dataset / "train" / "befund.xlsx").write_bytes(b"PK\x03\x04")
    picture(3).resize((400, 300)).rotate(90, expand=True).save(dataset / "train" / "a" / "large.png")
    code, page = check(dataset)
    assert code == 1 and re.findall(r'<section id="(\w+)"', page)[:3] == ["seen", "error", "warning"]
    found = {words(one).split(".")[0]: one for one in page.split('<div class="whole">')[1:]}
    copies = found["1 test image has a twin in train (1 exact, 0 near copies)"]
    assert [name for name, _ in images(copies)] == ["test/a/copy.png", "train/b/01.png"]
    assert "Remove one of the two" in copies and copies.count('class="case"') == 1
    conflict = found["1 pair of twins has different labels"]
    assert len(images(conflict)) == 2 and "more;" not in conflict and "(test, a)" in conflict
    empty = found["1 image file is empty"]
    assert not images(empty) and "train/a/empty.png : the file has 0 bytes" in words(empty)
    assert "train/befund.xlsx" in found["1 file is no image and was left out"]
    (name, pixels), *_ = images(found["1 image has an unusual size"])
    assert name == "train/a/large.png" and pixels.shape == (96, 96)
    assert "empty.png" not in [name for name, _ in images(page)]


def test_what_training_would_get_decides_about_the_pictures_and_goes_on_to_the_next_command(dataset, capsys):
    _, page = check(dataset, "--image-size", "40", "48", "--fit", "crop", "--window", "zscore")
    seen = section(page, "seen")
    assert "40 x 48 pixels: the shape is kept, and what is too long is cut off" in words(seen)
    assert "each image is brought to mean 0" in words(seen)
    assert {pixels.shape for _, pixels in images(seen)} == {(40, 48)}
    command = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("Next: "))
    assert command[-9:] == ["--image-size", "40", "48", "--window", "zscore", "--fit", "crop", "--epochs", "300"]
    main(["check", str(dataset), "--image-size", "40", "--clean-list", str(dataset.parent / "clean.csv")])
    assert capsys.readouterr().out.splitlines()[-1].endswith("clean.csv -o output --image-size 40 --epochs 300")


def test_of_volumes_three_slices_are_shown_in_the_size_of_the_preset(tmp_path):
    for seed in range(4):
        (tmp_path / "d" / "ab"[seed % 2]).mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(seed).integers(0, 255, (20, 20, 10)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "d" / "ab"[seed % 2] / f"{seed}.nii.gz")
    _, page = check(tmp_path / "d", "--spatial-dims", "3")
    assert {pixels.shape for _, pixels in images(page)} == {(48, 3 * 48)} and len(images(page)) == 4
    assert 'class="wide"' in page and "48 x 48 x 24 pixels" in page and "2 images" in section(page, "seen")


def test_a_page_holds_a_limited_number_of_pictures_and_says_what_it_leaves_out(dataset, monkeypatch):
    for seed in range(4, 12):
        picture(seed).save(dataset / "test" / "ab"[seed % 2] / f"copy{seed}.png")
    _, page = check(dataset)
    copies = next(one for one in page.split('<div class="whole">') if "8 test images have a twin" in one)
    assert len(images(copies)) == 12 and "… and 2 more; --fix-list" in copies
    monkeypatch.setattr(check_page, "PICTURES", 9)
    monkeypatch.setattr(check_page, "MAX_CLASSES", 1)
    _, page = check(dataset)
    assert len(images(page)) == 9 and len(images(section(page, "seen"))) == 4
    assert "the first 1 of 2 classes" in words(section(page, "seen"))


def test_an_image_that_training_would_refuse_has_no_picture(tmp_path, caplog):
    for seed in range(12):
        folder = tmp_path / "d" / "ab"[seed % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_ct(folder / f"{seed}.dcm", np.asarray(picture(seed), float) * 8 - 1000)
    picture(50).save(tmp_path / "d" / "a" / "screen.png")
    _, page = check(tmp_path / "d", "--spacing", "2")
    assert len(images(section(page, "seen"))) == 12 and "2.0 mm per pixel" in page
    finding = next(one for one in page.split('<div class="whole">') if "an unusual spacing" in one)
    assert not images(finding) and "<li><b>a/screen.png</b>: the file gives no pixel spacing" in finding
    assert not caplog.records


def test_a_set_without_a_readable_image_has_a_page_without_pictures(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "d" / name).parent.mkdir(parents=True)
        (tmp_path / "d" / name).touch()
    code, page = check(tmp_path / "d")
    assert code == 1 and "No image can be read." in page and "2 image files are empty." in page and not images(page)


def test_a_page_that_cannot_be_written_is_a_sentence(dataset, capsys):
    assert main(["check", str(dataset), "--page", str(dataset)]) == 1
    assert capsys.readouterr().err == f"Error: {dataset} can't be written: Is a directory; give another file.\n"


def test_a_finding_about_the_whole_set_has_its_reason(tmp_path):
    for label in "ab":
        (tmp_path / "two" / label).mkdir(parents=True)
        picture(ord(label)).save(tmp_path / "two" / label / "1.png")
    assert "1 patient or image of a; 1 patient or image of b." in words(check(tmp_path / "two")[1])
