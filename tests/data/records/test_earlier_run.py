# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest

from dual_skd.data import DataList, load_records, require_unseen, save_split
from dual_skd.errors import InputError

SPLITS = ("train", "val", "test")


def data_of(root: Path, name: str, rows: list[tuple[int, str, str]]) -> DataList:
    """A data list of images by number, with their split and patient."""
    table = root / f"{name}.csv"
    with table.open("w", newline="") as file:
        lines = [(f"{number}.png", "ab"[number % 2], split, patient) for number, split, patient in rows]
        csv.writer(file).writerows([("image", "label", "split", "patient"), *lines])
    return load_records(table, keep_twins=True, on_bad_file=None, val_fraction=0.0)


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """models/model.pt of a run on images 0 to 11: 0 to 5 for training, 6 to 8 for validation, the others for test."""
    for number in range(20):
        (tmp_path / f"{number}.png").touch()
    rows = [(n, "train" if n < 6 else "val" if n < 9 else "test", f"p{n}") for n in range(12)]
    save_split(data_of(tmp_path, "earlier", rows), tmp_path / "run" / "datalist.json")
    model = tmp_path / "run" / "models" / "model.pt"
    model.parent.mkdir()
    model.touch()
    monkeypatch.chdir(tmp_path / "run" / "models")  # two folders below a datalist.json
    return model


def here(root: Path, train: range, val: range, test: range, patient: str = "p{}") -> DataList:
    parts = zip(SPLITS, (train, val, test), strict=True)
    return data_of(root, "here", [(n, split, patient.format(n)) for split, numbers in parts for n in numbers])


@pytest.mark.parametrize("option", ["pretrained", "teacher_checkpoint"])
def test_the_same_division_and_new_images_go_with_weights_of_an_earlier_run(weights, tmp_path, option):
    for parts in (
        (range(6), range(6, 9), range(9, 12)),
        (range(2), range(6, 9), range(12, 18)),
        (range(12), range(12, 14), range(14, 18)),
    ):
        require_unseen(here(tmp_path, *parts), **{option: str(weights)})


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        ((range(2, 12), range(12, 14), range(2)), "2 of the 2 test images"),
        ((range(2, 8), range(12, 14), range(8, 11)), "1 of the 3 test images"),  # it chose the model
        ((range(2, 8), range(2), range(12, 14)), "2 of the 2 validation images"),
    ],
)
def test_images_that_the_weights_have_learned_from_are_no_validation_or_test_images(weights, tmp_path, parts, found):
    with pytest.raises(InputError, match=f"teacher_checkpoint in .*run has learned from {found}.*its seed, shares"):
        require_unseen(here(tmp_path, *parts), pretrained="wheel", teacher_checkpoint=str(weights))


def test_images_without_labels_were_learned_from_too(weights, tmp_path):
    rows = [(n, "train" if n < 6 else "unlabelled", f"p{n}") for n in range(12)]
    save_split(data_of(tmp_path, "earlier", rows), weights.parents[1] / "datalist.json")
    with pytest.raises(InputError, match="2 of the 2 test images"):
        require_unseen(here(tmp_path, range(6), range(12, 14), range(10, 12)), pretrained=str(weights))


def test_patients_are_compared_where_the_lists_share_images(weights, tmp_path):
    same = data_of(tmp_path, "more", [(0, "train", "p0"), (1, "train", "p1"), (12, "test", "P3"), (13, "test", "p13")])
    with pytest.raises(InputError, match="1 of the 2 test images, or from others of their patients.*12.png"):
        require_unseen(same, pretrained=str(weights))
    other = data_of(tmp_path, "other", [(14, "train", "p14"), (15, "train", "p15"), (12, "test", "p3")])
    require_unseen(other, pretrained=str(weights))


def test_weights_outside_a_run_are_taken_and_a_word_is_no_file(weights, tmp_path, caplog):
    alone = tmp_path / "alone.pt"
    alone.touch()
    data = here(tmp_path, range(2, 12), range(12, 14), range(2))
    with caplog.at_level(logging.INFO, "dual_skd"):
        require_unseen(data, pretrained=str(alone), teacher_checkpoint=None)
    assert "alone.pt lies outside a run" in caplog.text
    require_unseen(data, pretrained="wheel")
