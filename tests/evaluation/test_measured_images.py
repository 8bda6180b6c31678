# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from ignite.engine import Engine, Events

from dual_skd.data.records.datalist import DataList
from dual_skd.errors import InputError
from dual_skd.evaluation.measured_images import MeasuredImages, evaluation_name
from dual_skd.evaluation.run_files import read_run


def ended(handler: MeasuredImages) -> None:
    engine = Engine(lambda *_: None)
    handler.attach(engine)
    engine.fire_event(Events.COMPLETED)


def data(root, **splits) -> DataList:
    record = {"image": "/clinic/new.png", "label": 0, "patient": "new", "site": ""}
    empty = {"train": [], "val": [], "test": []}
    return DataList(
        root=root, spatial_dims=2, class_names=("normal", "nodule", "mass"), source="",
        splits=empty | {name: [record] for name in splits},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["validation", "best", "robustness", "x_auxiliary", "val", "a/b", "", ".", "a\nb"])
def test_a_name_under_which_something_else_is_kept_is_refused(name):
    with pytest.raises(InputError, match="report_as"):
        evaluation_name(name, "test")


def test_names_are_text_and_another_data_set_may_have_any(tmp_path):
    assert evaluation_name(2024, "test") == "2024" and evaluation_name("test", "test") == "test"
    assert evaluation_name("val", "test", tmp_path) == "val" and evaluation_name("val", "val") == "val"


def test_own_images_under_another_name_keep_their_patients(run_folder):
    directory = run_folder()
    (directory / "predictions_test.csv").rename(directory / "predictions_again.csv")
    assert read_run(directory, "again").external  # as nothing says otherwise
    ended(MeasuredImages(directory, "again", "test", data(directory, train=1, test=1)))
    found = read_run(directory, "again")
    assert not found.external and len({record["patient"] for record in found.records}) == 30
    ended(MeasuredImages(directory, "again", "val", data(directory, train=1, val=1)))
    assert read_run(directory, "again").section == "validation"


def test_another_data_set_is_noted_whatever_its_name_and_forgotten_afterwards(run_folder, caplog):
    directory = run_folder()
    ended(MeasuredImages(directory, "test", "test", data(directory, test=1)))
    assert "in place of the run's own test images; with --report_as" in caplog.text
    found = read_run(directory)
    assert found.external and [record["patient"] for record in found.records] == ["new"]
    assert json.loads((directory / "datalist_test.json").read_text())["training"] == []
    ended(MeasuredImages(directory, "test", "test", data(directory, train=1, test=1)))
    assert not read_run(directory).external and not (directory / "datalist_test.json").exists()
