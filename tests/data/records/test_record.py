# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from multiprocessing import Pipe

import pytest

from dual_skd.data.records.record import LeftOut, Record

ENTRY = {"image": "/d/a.png", "label": [1.0, 0.0], "patient": "p", "site": "north", "sex": "f"}
RECORD = Record("/d/a.png", [1.0, 0.0], "p", "north", (("sex", "f"),))


def test_a_record_is_read_as_the_mapping_that_users_and_transforms_take():
    assert dict(RECORD) == {**RECORD} == RECORD.as_dict() == RECORD == ENTRY
    assert list(RECORD) == list(ENTRY) and RECORD["sex"] == RECORD.get("sex") == "f" and RECORD.get("age") is None
    assert json.loads(json.dumps(RECORD.as_dict())) == ENTRY


def test_a_record_cannot_be_changed_and_can_be_sent_to_another_process():
    with pytest.raises(FrozenInstanceError):
        RECORD.patient = "other"
    here, there = Pipe()
    here.send(RECORD)
    assert there.recv() == RECORD


def test_positive_labels_are_the_label_or_the_flags_that_are_set():
    assert Record("a", 3).positive_labels == [3]
    assert Record("a", [1.0, 0.0, 1.0]).positive_labels == [0, 2]


def test_a_left_out_image_comes_back_from_its_entry():
    left_out = LeftOut(**vars(RECORD), twin="/d/b.png", similarity=0.95, split="test")
    assert left_out.as_dict() == {**ENTRY, "twin": "/d/b.png", "similarity": 0.95, "exact": False, "split": "test"}
    assert LeftOut.from_entry(left_out.as_dict()) == left_out
