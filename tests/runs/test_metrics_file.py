# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from dual_skd.runs.metrics_file import REVISION, brier_on_todays_scale, read_metrics, write_metrics

ESTIMATE = {"value": 0.4, "low": 0.3, "high": 0.5, "reason": ""}


def former(folder, names=("well", "ill"), **more):
    entry = {"epoch": 1, "images": 9, "student": {"nll": 0.6, "brier": 0.4}}
    record = {
        "class_names": list(names), "key_metric": "brier", "epochs": [entry], "best": entry,
        "test": {"student": {"brier": None, "ece": 0.1}, "analysis": {
            "metrics": {"overall": {"brier": ESTIMATE, "nll": ESTIMATE}},
            "training": {"series": {"student": {"brier": [0.4, None], "nll": [1, 2]}}},
        }},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(record | more))
    return record


def test_the_brier_score_of_two_classes_is_read_on_the_scale_of_today(tmp_path):
    record = former(tmp_path)
    found = read_metrics(tmp_path)
    assert found["best"]["student"] == found["epochs"][0]["student"] == {"nll": 0.6, "brier": 0.2}
    assert found["test"]["student"] == {"brier": None, "ece": 0.1} and found["best"]["images"] == 9
    overall = found["test"]["analysis"]["metrics"]["overall"]
    assert overall == {"brier": {"value": 0.2, "low": 0.15, "high": 0.25, "reason": ""}, "nll": ESTIMATE}
    series = found["test"]["analysis"]["training"]["series"]["student"]
    assert series == {"brier": [0.2, None], "nll": [1, 2]}
    assert found.keys() == {*record, "revision"}
    write_metrics(tmp_path, found)
    assert read_metrics(tmp_path) == found  # once, and not again


def test_other_numbers_of_classes_and_several_labels_had_that_scale_before(tmp_path):
    record = former(tmp_path, ("a", "b", "c"))
    assert read_metrics(tmp_path) == record | {"revision": REVISION}
    record = former(tmp_path)
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [{"label": [0, 1]}]}))
    assert read_metrics(tmp_path) == record | {"revision": REVISION}


def test_a_folder_without_the_file_has_nothing(tmp_path):
    assert read_metrics(tmp_path) == {}
    write_metrics(tmp_path, {"class_names": ["a"]})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"class_names": ["a"], "revision": REVISION}


@pytest.mark.parametrize(
    ("revision", "classes", "multi_label", "value"),
    [(1, 2, False, -0.2), (2, 2, False, -0.4), (1, 3, False, -0.4), (1, 2, True, -0.4)],
)
def test_a_kept_score_is_halved_where_its_scale_was_twice_as_long(revision, classes, multi_label, value):
    assert brier_on_todays_scale(-0.4, revision, classes, multi_label=multi_label) == value
