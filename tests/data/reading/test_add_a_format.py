# SPDX-License-Identifier: Apache-2.0
"""A format is added by one function and one row; every command reads it then."""

from __future__ import annotations

import re
from pkgutil import resolve_name

import numpy as np
import pytest

from dual_skd.data import find_images, image_transforms, read_image
from dual_skd.data.reading.facts import facts_of
from dual_skd.data.reading.formats import FORMATS, Format
from dual_skd.data.reading.inspection import inspect, quick_facts
from dual_skd.data.reading.picture import Picture, plane_affine
from dual_skd.data.records.image_files import find_image_files, is_dicom
from dual_skd.errors import InputError


def read_pgm(path, options):
    content = path.read_bytes()
    header = re.match(rb"P5\s+(\d+)\s+(\d+)\s+255\s", content)
    columns, rows = map(int, header.groups())
    values = np.frombuffer(content, np.uint8, offset=header.end()).reshape(rows, columns)
    return Picture(values.T, plane_affine())


@pytest.fixture
def pgm(monkeypatch):
    monkeypatch.setitem(FORMATS, "PGM", Format((".pgm",), (b"P5",), read_pgm))


def write(path, rows: int = 4, columns: int = 6):
    values = np.arange(rows * columns, dtype=np.uint8).reshape(rows, columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"P5\n%d %d\n255\n" % (columns, rows) + values.tobytes())
    return values


def test_a_new_format_is_read_checked_and_prepared(tmp_path, pgm):
    path = tmp_path / "a.pgm"
    values = write(path)
    array, meta = read_image(path, spatial_dims=2)
    assert np.array_equal(array, values.T) and not meta["spacing_known"]
    assert inspect(str(path)).problem == quick_facts(str(path)).problem == ""
    assert inspect(str(path)).format == facts_of(path).format == "PGM"
    assert image_transforms(2, 8)({"image": str(path)})["image"].shape == (1, 8, 8)


def test_files_of_a_new_format_are_found_in_folders(tmp_path, pgm):
    for index in range(8):
        write(tmp_path / "ab"[index % 2] / f"{index}.pgm", rows=4 + index)
    assert len(find_images(tmp_path)) == 8
    assert len(find_image_files(tmp_path, 2).images) == 8
    assert not is_dicom(tmp_path / "a" / "0.pgm")


def test_a_damaged_file_of_a_new_format_is_named(tmp_path, pgm):
    path = tmp_path / "a.pgm"
    write(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"a\.pgm can't be read, it is damaged .*cannot reshape"):
        read_image(path)


def test_without_its_row_a_format_is_refused(tmp_path):
    write(tmp_path / "a.pgm")
    with pytest.raises(InputError, match=r"a\.pgm can't be read: the content is .*, which isn't read"):
        read_image(tmp_path / "a.pgm")


@pytest.mark.parametrize("name", FORMATS)
def test_every_row_names_a_reader(name):
    assert callable(resolve_name(FORMATS[name].reader))
