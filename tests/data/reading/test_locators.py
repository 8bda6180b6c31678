# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from dual_skd.data import find_images, load_records
from dual_skd.data.reading import locators
from dual_skd.data.reading.locators import path_of, split_locator
from dual_skd.utils.files import expanded


@pytest.mark.parametrize("fragment", ["1.2.840.113619.2.5", "frame=3", "train/17"])
def test_a_fragment_is_split_off_whether_or_not_the_file_exists(tmp_path, fragment):
    (tmp_path / "there").touch()
    for path in (tmp_path / "there", tmp_path / "gone"):
        assert split_locator(f"{path}#{fragment}") == (path, fragment)
        assert path_of(f"{path}#{fragment}") == path_of(path) == path


def test_names_may_contain_the_mark(tmp_path):
    odd = tmp_path / "patient #7"
    odd.mkdir()
    (odd / "scan#1.2.dcm").touch()
    assert split_locator(odd / "scan#1.2.dcm") == (odd / "scan#1.2.dcm", "")
    assert split_locator(f"{odd}/scan#1.2.dcm#frame=3") == (odd / "scan#1.2.dcm", "frame=3")
    assert split_locator(f"{odd}/gone.png") == (odd / "gone.png", "")
    assert split_locator(Path("plain.png")) == (Path("plain.png"), "")


def test_a_fragment_that_means_nothing_is_kept_for_the_reader_to_refuse(tmp_path):
    (tmp_path / "a.dcm").touch()
    assert split_locator(f"{tmp_path}/a.dcm#last") == (tmp_path / "a.dcm", "last")


def test_the_examples_are_true():
    assert doctest.testmod(locators).failed == 0


def test_a_tilde_is_the_home_folder_and_before_no_user_a_letter(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [expanded(path) for path in ("~/a", "~", "~no such user/a", "a~", Path("~/b"))] == [
        tmp_path / "a", tmp_path, Path("~no such user/a"), Path("a~"), tmp_path / "b",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for label in "ab":
        (tmp_path / "~old #1" / label).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "~old #1" / label / f"{label}{number}.png").write_bytes(f"{label}{number}".encode())
    data = load_records("~old #1", on_bad_file=None, twin_search="never")
    assert len(data.train + data.val + data.test) == 6 == len(find_images("~old #1"))
