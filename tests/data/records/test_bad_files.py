# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shlex

import numpy as np
import pytest
import torch
from PIL import Image

from dual_skd.data.reading import inspection
from dual_skd.data.reading.preprocessing import image_transforms
from dual_skd.data.records.bad_files import usable_rows
from dual_skd.data.records.rows import Row
from dual_skd.data.tolerant_dataset import TolerantDataset
from dual_skd.errors import InputError, input_error_behind
from dual_skd.options.data import ReadOptions


@pytest.fixture
def records(tmp_path) -> list[dict]:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:50])
    return [{"image": str(tmp_path / name)} for name in ("good.png", "bad.png")]


def test_a_bad_file_leaves_a_gap_that_says_what_is_wrong(records, caplog):
    good, bad = TolerantDataset(records, image_transforms(2, 8), shape=(1, 8, 8))
    assert good["problem"] == "" and good["image"].abs().max() == 1
    assert "bad.png" in bad["problem"] and torch.equal(bad["image"], torch.zeros(1, 8, 8))
    assert "Skipped" in caplog.text and "bad.png" in caplog.text


def test_with_the_policy_error_it_ends_the_run(records):
    dataset = TolerantDataset(records, image_transforms(2, 8), shape=(1, 8, 8), on_bad_file="error")
    with pytest.raises(Exception) as caught:
        dataset[1]
    assert "bad.png" in str(input_error_behind(caught.value))
    with pytest.raises(InputError, match="error, skip"):
        TolerantDataset(records, image_transforms(2, 8), shape=(1, 8, 8), on_bad_file="ignore")


def test_an_error_that_is_not_about_the_file_is_not_hidden(records):
    def broken(_):
        raise MemoryError("full")

    with pytest.raises(RuntimeError) as caught:
        TolerantDataset(records, broken, shape=(1, 8, 8))[0]
    assert isinstance(caught.value.__cause__, MemoryError)


def test_before_training_only_files_that_look_damaged_are_decoded(records, monkeypatch):
    rows = [Row(record["image"], ("a",)) for record in records]
    decoded, inspect = [], inspection.inspect
    monkeypatch.setattr(inspection, "inspect", lambda image, dims: decoded.append(image) or inspect(image, dims))
    assert usable_rows(rows[:1], ReadOptions(), "D") == (rows[:1], [], []) and decoded == []
    with pytest.raises(InputError, match=r"bad.png: .*; .*or --on-bad-file skip; `dual-skd check D`"):
        usable_rows(rows, ReadOptions(), "D")
    assert decoded == [rows[1].image]


@pytest.mark.parametrize("bad, said", [(1, ""), (2, " (and 1 other file can't be used)"), (3, "2 other files can't")])
def test_the_command_that_lists_the_others_can_be_pasted(tmp_path, bad, said):
    folder = tmp_path / "it's data (Müller) $HOME"
    folder.mkdir()
    for number in range(bad):
        (folder / f"{number}.png").write_bytes(b"%PDF-1.7")
    rows = [Row(str(folder / f"{number}.png"), ("a",)) for number in range(bad)]
    with pytest.raises(InputError) as caught:
        usable_rows(rows, ReadOptions(), folder)
    command = str(caught.value).split("`")[1]
    assert shlex.split(command) == ["dual-skd", "check", str(folder)] and said in str(caught.value)
