# SPDX-License-Identifier: Apache-2.0
"""DICOM files that are programs, too: the 128 bytes before their mark are free."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dicom_files import write_dicom, write_series

from dual_skd.cli.dispatch import main
from dual_skd.data import load_records
from dual_skd.data.reading.formats import program_in
from dual_skd.errors import InputError


def begin_with(path, mark: bytes) -> None:
    path.write_bytes(mark + path.read_bytes()[len(mark) :])


def write_set(folder) -> None:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        for number in range(4):
            write_dicom(folder / label / f"{number}.dcm", rng.integers(0, 900, (24, 24), np.uint16), PatientID=None)


@pytest.mark.parametrize("mark", [b"MZ", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"#!/bin/sh\n"])
def test_check_reports_it_and_training_refuses_it(tmp_path, mark, capsys):
    write_set(tmp_path / "data")
    assert load_records(tmp_path / "data", val_fraction=0, test_fraction=0, keep_twins=True).unusable == []
    begin_with(tmp_path / "data" / "a" / "1.dcm", mark)
    assert main(["check", str(tmp_path / "data"), "--no-twins", "--quiet", "--json", str(tmp_path / "f.json")]) == 1
    found = json.loads((tmp_path / "f.json").read_text())["offenders"]
    assert [one["kind"] for one in found if one["image"].endswith("a/1.dcm")] == ["program"]
    assert "DICOM file is a program, too" in capsys.readouterr().out
    with pytest.raises(InputError, match="1.dcm: the file begins like a .*(program|script), and is DICOM too"):
        load_records(tmp_path / "data")
    left = load_records(tmp_path / "data", val_fraction=0, test_fraction=0, keep_twins=True, on_bad_file="skip")
    assert len(left.train) == 7 and "begins like" in left.unusable[0]["problem"]


def test_a_slice_of_a_series_is_looked_at_too(tmp_path):
    for number, label in enumerate("abab"):
        volume = np.random.default_rng(number).integers(0, 900, (4, 24, 24), np.uint16)
        write_series(tmp_path / label / str(number), volume, SeriesInstanceUID=f"1.2.{number + 1}")
    begin_with(sorted((tmp_path / "a" / "0").iterdir())[2], b"MZ")
    with pytest.raises(InputError, match="begins like a Windows program"):
        load_records(tmp_path, spatial_dims=3)


def test_the_preamble_of_a_tiff_and_an_empty_one_are_no_programs():
    mark = b"DICM"
    assert [program_in(start.ljust(128, b"\0") + mark) for start in (b"", b"II*\0", b"MM\0*")] == ["", "", ""]
    assert program_in(b"MZ".ljust(128, b"\0")) == ""  # no DICOM: check says that it is no image
