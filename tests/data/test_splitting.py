# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from dual_skd.data.splitting import divide


def record(number: int, label, patient: str = "") -> dict:
    return {"image": f"{number:03d}.png", "label": label, "patient": patient}


@settings(deadline=None)
@given(
    members=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=80),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_nothing_is_lost_and_no_patient_is_divided(members, fraction, seed):
    records = [record(i, label, f"p{patient}" if patient else "") for i, (label, patient) in enumerate(members)]
    taken, left = divide(records, fraction=fraction, seed=seed, purpose="any")
    assert sorted(r["image"] for r in taken + left) == [r["image"] for r in records]
    assert not {r["patient"] for r in taken if r["patient"]} & {r["patient"] for r in left if r["patient"]}


def test_every_class_gives_its_share():
    records = [record(i, i % 10 == 0) for i in range(200)]
    taken, left = divide([{**r, "label": int(r["label"])} for r in records], fraction=0.25, seed=3, purpose="val")
    assert Counter(r["label"] for r in taken) == {0: 45, 1: 5} and len(left) == 150


def test_a_rare_class_stays_on_both_sides():
    records = [record(i, 0) for i in range(50)] + [record(50, 1), record(51, 1)]
    taken, left = divide(records, fraction=0.1, seed=0, purpose="val")
    assert sum(r["label"] for r in taken) == 1 == sum(r["label"] for r in left)


def test_shares_are_nested_and_purposes_are_independent():
    records = [record(i, i % 3) for i in range(300)]
    names = [{r["image"] for r in divide(records, fraction=f, seed=0, purpose="p")[0]} for f in (0.05, 0.1, 0.5)]
    assert names[0] < names[1] < names[2]
    assert names[2] != {r["image"] for r in divide(records, fraction=0.5, seed=0, purpose="q")[0]}


def test_multi_label_records_are_stratified_by_their_rarest_label():
    records = [record(i, [1.0, float(i < 4)]) for i in range(40)]
    taken, _ = divide(records, fraction=0.5, seed=0, purpose="val")
    assert sum(r["label"][1] for r in taken) == 2 and len(taken) == 20
