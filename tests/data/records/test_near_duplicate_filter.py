# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dual_skd.data.records.near_duplicate_filter import NearDuplicateFilter
from dual_skd.data.records.record import LeftOut, Record
from dual_skd.options.data import ReadOptions


@pytest.fixture
def records(tmp_path) -> list[Record]:
    """Four pictures, of which the last is a copy of the first."""
    for number, seed in enumerate((0, 1, 2, 0)):
        coarse = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(coarse).resize((80, 80)).save(tmp_path / f"{number}.png")
    return [Record(str(tmp_path / f"{number}.png"), 0, f"p{number}") for number in range(4)]


def test_a_copy_of_a_training_image_is_left_out_named_and_counted(records):
    notes: list[str] = []
    copies = NearDuplicateFilter([record.image for record in records], ReadOptions(), "`dual-skd check D`", notes)
    assert copies.searched and copies.without_copies(records[2:], records[:2], "val") == [records[2]]
    assert copies.left_out == [
        LeftOut(records[3].image, 0, "p3", twin=records[0].image, similarity=1.0, exact=True, split="val")
    ]
    assert notes == ["1 of 2 val images was left out because of a twin in training (1 exact, 0 near copies)"]


@pytest.mark.parametrize("given", [{"keep_twins": True}, {"twin_search": "never"}])
def test_without_a_search_all_stay(records, given):
    copies = NearDuplicateFilter([record.image for record in records], ReadOptions(**given), "`dual-skd check D`", [])
    assert not copies.searched and copies.without_copies(records[2:], records[:2], "val") == records[2:]
