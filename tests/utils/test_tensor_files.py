# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zipfile

import pytest
import torch

from dual_skd.utils.tensor_files import read_tensors, save_tensors

CONTENT = {"image": torch.linspace(-1, 1, 64).reshape(1, 8, 8), "label": torch.tensor(3), "name": "a"}


@pytest.fixture
def file(tmp_path):
    save_tensors(CONTENT, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def same(found) -> bool:
    return found["name"] == "a" and all(torch.equal(found[name], CONTENT[name]) for name in ("image", "label"))


def test_what_was_saved_is_read(file):
    assert same(read_tensors(file)) and same(torch.load(file))


def test_no_flipped_byte_goes_unnoticed_that_changes_a_value(file):
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        start, marks = archive.start_dir, []
        place = start
        for record in archive.infolist():
            marks.append(place + 38)  # of the external attributes, in the directory at the end
            place += 46 + len(record.filename) + len(record.extra) + len(record.comment)
    noticed = 0
    for place in sorted({*range(0, start, 11), *range(start, len(whole), 3), *marks}):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            assert same(read_tensors(file)), place
        except ValueError:
            noticed += 1
            continue
        assert place not in marks
    assert noticed > 50


@pytest.mark.parametrize("content", [b"", b"hello", bytes(500)])
def test_what_is_no_such_file_is_a_value_error(file, content):
    file.write_bytes(content)
    with pytest.raises(ValueError, match="."):
        read_tensors(file)
    with pytest.raises(ValueError, match="No such file"):
        read_tensors(file.with_name("absent"))


def test_a_cut_file_is_a_value_error(file):
    whole = file.read_bytes()
    for length in (1, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="."):
            read_tensors(file)
