# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from ignite.engine import Engine, Events

from dual_skd.data.records.datalist import DataList
from dual_skd.data.records.record import Record
from dual_skd.data.records.split_file import save_split
from dual_skd.errors import InputError
from dual_skd.evaluation.measured_images import MeasuredImages, evaluation_name
from dual_skd.evaluation.run_files import read_run


def ended(handler: MeasuredImages, event: Events = Events.COMPLETED) -> None:
    engine = Engine(lambda *_: None)
    handler.attach(engine)
    engine.fire_event(event)


def data(root, image="/clinic/new.png", source="", **splits) -> DataList:
    record = Record(image, 0, "new")
    empty = {"train": [], "val": [], "test": []}
    return DataList(
        root=root, spatial_dims=2, class_names=("normal", "nodule", "mass"), source=source,
        splits=empty | {name: [record] for name in splits},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["validation", "best", "robustness", "x_auxiliary", "val", "a/b", "", ".", "a\nb"])
def test_a_name_under_which_something_else_is_kept_is_refused(tmp_path, name):
    for own in ({"train": 1}, {}):
        with pytest.raises(InputError, match="report_as"):
            evaluation_name(name, "test", data(tmp_path, test=1, **own), tmp_path)


def test_the_runs_own_images_keep_the_name_of_their_split_or_the_one_given(tmp_path):
    own = data(tmp_path, train=1, test=1, val=1)
    assert evaluation_name(None, "test", own, tmp_path) == "test"
    assert evaluation_name(None, "val", own, tmp_path, "demo") == "val"
    assert evaluation_name(2024, "test", own, tmp_path) == "2024"


def test_another_data_set_is_named_after_its_folder_and_never_stands_in_place_of_other_images(tmp_path, caplog):
    caplog.set_level("INFO")
    output = tmp_path / "run"
    output.mkdir()
    other = data(tmp_path, test=1)
    for folder in ("hospB", "a/hospB", "b/a/hospB", "test", "x/final", "Klinik Süd (2)"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "hospB" / "list.csv").touch()

    def name(folder: str, datalist: DataList = other, **options) -> str:
        return evaluation_name(options.get("report_as"), "test", datalist, output, tmp_path / folder)

    assert name("hospB") == "hospB" and name("hospB/list.csv") == "hospB_list"
    assert name("Klinik Süd (2)") == "Klinik_Süd_2"
    assert not caplog.text
    assert name("test") == f"{tmp_path.name}_test" and name("x/final") == "x_final"  # the run's own entries
    with pytest.raises(InputError, match="keeps something else than another data set"):
        name("hospB", report_as="test")
    (output / "metrics.json").write_text(json.dumps({"hospB": {}, "a_hospB": {}}))
    save_split(other, output / "datalist_hospB.json")
    assert name("hospB") == "hospB"  # the same images again
    third = data(tmp_path, image="/clinic/third.png", test=1)
    caplog.clear()
    assert name("b/a/hospB", third) == "a_hospB_2" and "kept under a_hospB_2" in caplog.text
    assert name("hospB", third, report_as="hospB") == "hospB"  # by name


def test_own_images_under_another_name_keep_their_patients(run_folder):
    directory = run_folder()
    (directory / "predictions_test.csv").rename(directory / "predictions_again.csv")
    assert read_run(directory, "again").external  # as nothing says otherwise
    ended(MeasuredImages(directory, "again", "test", data(directory, train=1, test=1)))
    found = read_run(directory, "again")
    assert not found.external and len({record["patient"] for record in found.records}) == 30
    ended(MeasuredImages(directory, "again", "val", data(directory, train=1, val=1)))
    assert read_run(directory, "again").section == "validation"


def test_another_data_set_is_noted_and_forgotten_when_own_images_take_its_name(run_folder):
    directory = run_folder()
    (directory / "predictions_test.csv").rename(directory / "predictions_b.csv")
    ended(MeasuredImages(directory, "b", "test", data(directory, test=1)))
    found = read_run(directory, "b")
    assert found.external and [record["patient"] for record in found.records] == ["new"]
    assert json.loads((directory / "datalist_b.json").read_text())["training"] == []
    ended(MeasuredImages(directory, "b", "test", data(directory, train=1, test=1)))
    assert not read_run(directory, "b").external


def test_the_log_says_which_images_are_measured(tmp_path, caplog):
    caplog.set_level("INFO")
    other = data(tmp_path, source="class folders in /clinic/hospB", test=1)
    other.notes.append("2 images were left out")
    ended(MeasuredImages(tmp_path, "hospB", "test", other), Events.STARTED)
    assert caplog.messages == [
        "Measured: class folders in /clinic/hospB\n"
        "  1 image (1 normal, 0 nodule, 0 mass), 1 patient\n"
        "  2 images were left out."
    ]
    caplog.clear()
    ended(MeasuredImages(tmp_path, "val", "val", data(tmp_path, train=1, val=1)), Events.STARTED)
    assert "the run's own validation split\n  1 image (1 normal, 0 nodule, 0 mass)" in caplog.text
