# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import logging
import shutil
from pathlib import Path

import pytest

from dual_skd.data import DataList, DataSource, load_records, save_split
from dual_skd.data.records.earlier_run import require_unseen
from dual_skd.errors import InputError

SPLITS = ("train", "val", "test")


def data_of(root: Path, name: str, rows: list[tuple[int, str, str]]) -> DataList:
    """A data list of images by number, with their split and patient."""
    table = root / f"{name}.csv"
    with table.open("w", newline="") as file:
        lines = [(f"{number}.png", "ab"[number % 2], split, patient) for number, split, patient in rows]
        csv.writer(file).writerows([("image", "label", "split", "patient"), *lines])
    return load_records(table, keep_twins=True, on_bad_file=None, val_fraction=0.0)


def run_of(root: Path, name: str, rows: list[tuple[int, str, str]], **config: str) -> Path:
    """models/model.pt of a run on images by number."""
    save_split(data_of(root, name, rows), root / name / "datalist.json")
    settings = {"selection_student": "uniform", "update": "none", "pretrained": "wheel"} | config
    (root / name / "run.json").write_text(json.dumps({"config": settings}))
    model = root / name / "models" / "model.pt"
    model.parent.mkdir()
    model.touch()
    return model


@pytest.fixture
def weights(tmp_path) -> Path:
    """models/model.pt of a run on images 0 to 11: 0 to 5 for training, 6 to 8 for validation, the others for test."""
    for number in range(20):
        (tmp_path / f"{number}.png").touch()
    return run_of(tmp_path, "run", [(n, "train" if n < 6 else "val" if n < 9 else "test", f"p{n}") for n in range(12)])


def here(root: Path, train: range, val: range, test: range, patient: str = "p{}") -> DataList:
    parts = zip(SPLITS, (train, val, test), strict=True)
    return data_of(root, "here", [(n, split, patient.format(n)) for split, numbers in parts for n in numbers])


LEAK = (range(2, 12), range(12, 14), range(2))  # training, validation, test


def test_the_same_division_and_new_images_go_with_weights_of_an_earlier_run(weights, tmp_path):
    for parts in (
        (range(6), range(6, 9), range(9, 12)),
        (range(2), range(6, 9), range(12, 18)),
        (range(12), range(12, 14), range(14, 18)),
    ):
        require_unseen(here(tmp_path, *parts), {"pretrained": str(weights)})


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        (LEAK, "2 of the 2 test images"),
        ((range(2, 8), range(12, 14), range(8, 11)), "1 of the 3 test images"),  # it chose the model
        ((range(2, 8), range(2), range(12, 14)), "2 of the 2 validation images"),
    ],
)
def test_images_that_the_weights_have_learned_from_are_no_validation_or_test_images(weights, tmp_path, parts, found):
    with pytest.raises(InputError, match=f"which pretrained is of, has learned from {found}.*its seed, shares"):
        require_unseen(here(tmp_path, *parts), {"pretrained": str(weights)})


def test_a_data_source_is_checked_when_it_is_read(weights, tmp_path):
    table = here(tmp_path, *LEAK).root / "here.csv"
    options = {"keep_twins": True, "on_bad_file": None, "val_fraction": 0.0}
    source = DataSource(table, weights={"teacher_checkpoint": str(weights)}, class_names=("a", "b"), **options)
    assert source.num_classes == 2  # nothing is read yet
    with pytest.raises(InputError, match="which teacher_checkpoint is of, has learned from"):
        source.train  # noqa: B018
    assert len(DataSource(table, **options).train) == 10


def test_images_without_labels_were_learned_from_too(weights, tmp_path):
    model = run_of(tmp_path, "more", [(n, "train" if n < 6 else "unlabelled", f"p{n}") for n in range(12)])
    with pytest.raises(InputError, match="2 of the 2 test images"):
        require_unseen(here(tmp_path, range(6), range(12, 14), range(10, 12)), {"pretrained": str(model)})


def test_patients_are_compared_where_the_lists_share_images_and_name_their_patients_alike(weights, tmp_path):
    def data(*rows: tuple[int, str, str]) -> DataList:
        return data_of(tmp_path, "more", list(rows))

    known = {"pretrained": str(weights)}
    kept = data((14, "train", "p14"), (15, "train", "p15"), (10, "test", "p10"), (12, "test", "P3"))
    with pytest.raises(InputError, match="1 of the 2 test images, or from others of their patients.*12.png"):
        require_unseen(kept, known)  # a new image of a former training patient
    require_unseen(data((14, "train", "p14"), (15, "train", "p15"), (12, "test", "p3")), known)
    require_unseen(data((0, "train", "p7"), (1, "train", "p8"), (12, "test", "p3")), known)


@pytest.mark.parametrize("place", ["last.pt", "models/copies/model.pt", "link.pt"])
def test_any_file_in_the_folder_of_a_run_is_of_that_run(weights, tmp_path, place):
    run = weights.parents[1]
    target = run / place
    target.parent.mkdir(exist_ok=True)
    shutil.copy(weights, target) if place != "link.pt" else (tmp_path / place).symlink_to(weights)
    file = target if target.is_file() else tmp_path / place
    with pytest.raises(InputError, match="2 of the 2 test images"):
        require_unseen(here(tmp_path, *LEAK), {"pretrained": str(file)})


def test_weights_have_learned_what_their_own_teacher_had(weights, tmp_path):
    taught = {"update": "frozen", "selection_auxiliary": "teacher", "teacher_checkpoint": str(weights)}
    rows = [(2, "train", "p2"), (3, "train", "p3"), (9, "test", "p9")]
    model = run_of(tmp_path, "taught", rows, **taught)
    with pytest.raises(InputError, match="The run in .*run, which pretrained is of, has learned from 2 of the 2 test"):
        require_unseen(here(tmp_path, *LEAK), {"pretrained": str(model)})
    own = json.loads((weights.parents[1] / "run.json").read_text())
    own["config"]["pretrained"] = str(model)  # in a circle
    (weights.parents[1] / "run.json").write_text(json.dumps(own))
    require_unseen(here(tmp_path, range(6), range(6, 9), range(9, 12)), {"pretrained": str(model)})


def test_the_frames_of_a_file_are_of_one_patient(weights, tmp_path):
    run = weights.parents[1]
    content = json.loads((run / "datalist.json").read_text())
    content["training"][0] |= {"image": f"{tmp_path / '14.png'}#frame=2", "patient": ""}
    (run / "datalist.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="1 of the 2 test images.*14.png"):
        require_unseen(
            here(tmp_path, range(1, 6), range(6, 9), range(14, 16), patient=""), {"pretrained": str(weights)}
        )


def test_weights_of_no_run_and_moved_images_are_taken_and_the_log_says_so(weights, tmp_path, caplog):
    alone = tmp_path / "alone.pt"
    alone.touch()
    data = here(tmp_path, *LEAK)
    with caplog.at_level(logging.INFO, "dual_skd"):
        require_unseen(data, {"pretrained": str(alone)})
        require_unseen(here(tmp_path, range(12, 16), range(0), range(16, 18)), {"pretrained": str(weights)})
    assert f"pretrained {alone} is of no known run" in caplog.text
    assert "has none of these images" in caplog.text


@pytest.mark.parametrize(
    "text", ["[]", "5", "{", '{"training": 5}', '{"training": [1, null, {"image": "a\\u0000"}]}', "[" * 100_000]
)
def test_a_damaged_file_of_a_run_tells_nothing_and_stops_nothing(weights, tmp_path, text):
    data, run = here(tmp_path, *LEAK), weights.parents[1]
    (run / "run.json").write_text(text)
    with pytest.raises(InputError, match="2 of the 2 test images"):
        require_unseen(data, {"pretrained": str(weights)})
    (run / "datalist.json").write_text(text)
    require_unseen(data, {"pretrained": str(weights)})
