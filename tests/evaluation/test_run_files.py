# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import pytest

from dual_skd.errors import InputError
from dual_skd.evaluation.run_files import read_run


def test_all_files_of_a_run_are_read(run_folder):
    files = read_run(run_folder())
    assert len(files.table.images) == 60 and len(files.validation.images) == 30
    assert len(files.records) == 60
    assert files.records[0]["patient"] == "patient0"
    assert files.metrics["key_metric"] == "macro_auc" and files.run["seed"] == 3
    assert files.selection[0]["name"] == "conv_stem.weight"
    assert (files.multi_label, files.model_bytes, files.validation_reason) == (False, None, "")


def test_a_table_of_predictions_alone_is_enough(run_folder):
    directory = run_folder()
    for file in directory.iterdir():
        if file.name != "predictions_test.csv":
            file.unlink()
    files = read_run(directory)
    assert files.records == () and files.run == {} and files.selection == ()
    assert files.validation_reason == "the run kept no predictions of validation images"


def test_another_data_set_has_its_own_records_and_never_those_of_the_run(run_folder):
    directory = run_folder()
    shutil.copy(directory / "predictions_test.csv", directory / "predictions_clinic.csv")
    assert read_run(directory, "clinic").records == ()
    other = {"test": [{"image": "x.png", "label": 0, "patient": "z"}], "left_out": [], "unusable": [{}, {}]}
    (directory / "datalist_clinic.json").write_text(json.dumps(other))
    files = read_run(directory, "clinic")
    assert [record["patient"] for record in files.records] == ["z"]
    assert len(files.datalist["unusable"]) == 2 and len(files.datalist["training"]) == 9
    assert read_run(directory).datalist["twins_searched"] and not files.datalist["twins_searched"]


def test_validation_predictions_of_another_model_are_not_used(run_folder):
    files = read_run(run_folder(), calibration={"temperature": 2.0, "images": 31})
    assert files.validation is None and files.validation_reason == "the validation predictions are of another model"


def test_missing_runs_and_splits_are_said_with_what_there_is(run_folder, tmp_path):
    directory = run_folder()
    with pytest.raises(InputError, match="no folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(
        InputError,
        match="predictions_val.csv; make them: dual-skd evaluate .* --split val, or choose .* as split: test",
    ):
        read_run(directory, "val")
    (directory / "predictions_test.csv").unlink()
    with pytest.raises(InputError, match="make them: dual-skd evaluate "):
        read_run(directory)


def test_the_validation_images_of_a_run_are_its_own_under_the_name_of_their_table(run_folder):
    found = read_run(run_folder(), "validation")
    assert found.section == "validation" and not found.external
