# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from dual_skd.data.reading import locators
from dual_skd.data.reading.locators import path_of, split_locator


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
