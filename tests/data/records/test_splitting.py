# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dual_skd.data.records.record import Record
from dual_skd.data.records.splitting import divide, divide_into_folds
from dual_skd.errors import InputError


def record(number: int, label, patient: str = "", site: str = "") -> Record:
    return Record(f"{number:03d}.png", label, patient, site)


def fold_sizes(parts: list[list[Record]], key: str) -> list[Counter]:
    return [Counter(getattr(record, key) for record in part) for part in parts]


@given(
    members=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=80),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_nothing_is_lost_and_no_patient_is_divided(members, fraction, seed):
    records = [record(i, label, f"p{patient}" if patient else "") for i, (label, patient) in enumerate(members)]
    taken, left = divide(records, fraction=fraction, seed=seed, purpose="any")
    assert sorted(r.image for r in taken + left) == [r.image for r in records]
    assert not {r.patient for r in taken if r.patient} & {r.patient for r in left if r.patient}


def test_every_class_gives_its_share():
    records = [record(i, int(i % 10 == 0)) for i in range(200)]
    taken, left = divide(records, fraction=0.25, seed=3, purpose="val")
    assert Counter(r.label for r in taken) == {0: 45, 1: 5} and len(left) == 150


def test_a_rare_class_stays_on_both_sides():
    records = [record(i, 0) for i in range(50)] + [record(50, 1), record(51, 1)]
    taken, left = divide(records, fraction=0.1, seed=0, purpose="val")
    assert sum(r.label for r in taken) == 1 == sum(r.label for r in left)


def test_shares_are_nested_and_purposes_are_independent():
    records = [record(i, i % 3) for i in range(300)]
    names = [{r.image for r in divide(records, fraction=f, seed=0, purpose="p")[0]} for f in (0.05, 0.1, 0.5)]
    assert names[0] < names[1] < names[2]
    assert names[2] != {r.image for r in divide(records, fraction=0.5, seed=0, purpose="q")[0]}


def test_multi_label_records_are_stratified_by_their_rarest_label():
    records = [record(i, [1.0, float(i < 4)]) for i in range(40)]
    taken, _ = divide(records, fraction=0.5, seed=0, purpose="val")
    assert sum(r.label[1] for r in taken) == 2 and len(taken) == 20


def test_sites_give_in_proportion_and_shares_stay_nested():
    records = [record(i, i % 2, f"p{i // 2}", "ABBC"[i // 2 % 4]) for i in range(800)]
    parts = [divide(records, fraction=f, seed=1, purpose="p")[0] for f in (0.05, 0.1, 0.4)]
    names = [{r.image for r in part} for part in parts]
    assert names[0] < names[1] < names[2]
    for fraction, part in zip((0.05, 0.1, 0.4), parts, strict=True):
        counts = Counter(r.site for r in part)
        for site, share in (("A", 0.25), ("B", 0.5), ("C", 0.25)):
            assert abs(counts[site] - 800 * fraction * share) <= 4, (fraction, counts)


def test_many_small_sites_do_not_make_a_share_larger():
    records = [record(i, 0, site=f"s{i // 3}") for i in range(300)]
    assert len(divide(records, fraction=0.1, seed=0, purpose="p")[0]) == 30


def test_folds_are_disjoint_equal_in_every_class_and_seeded():
    records = [record(i, 0 if i % 5 else 1) for i in range(100)]
    parts = divide_into_folds(records, folds=5, seed=0, class_names=["a", "b"])
    assert sorted(r.image for part in parts for r in part) == [r.image for r in records]
    assert fold_sizes(parts, "label") == [Counter({0: 16, 1: 4})] * 5
    turned = divide_into_folds(records[::-1], folds=5, seed=0, class_names=["a", "b"])
    assert parts == [part[::-1] for part in turned], "the order of the records doesn't matter"
    assert parts != divide_into_folds(records, folds=5, seed=1, class_names=["a", "b"])


def test_folds_are_equal_in_every_site_too():
    records = [record(i, i % 2, f"p{i // 2}", "AABC"[i // 2 % 4]) for i in range(240)]
    for part in fold_sizes(divide_into_folds(records, folds=4, seed=0, class_names=["a", "b"]), "site"):
        assert abs(part["A"] - 30) <= 4 and abs(part["B"] - 15) <= 4 and abs(part["C"] - 15) <= 4


@given(
    members=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 25)), min_size=1, max_size=80),
    folds=st.integers(2, 5),
)
def test_no_patient_is_in_two_folds_and_nothing_is_lost(members, folds):
    records = [record(i, label, f"p{patient}" if patient else "") for i, (label, patient) in enumerate(members)]
    # so many patients of both classes that any number of folds is possible
    records += [record(100 + i, i % 2, f"q{i}") for i in range(10)]
    parts = divide_into_folds(records, folds=folds, seed=0, class_names=["a", "b"])
    assert sorted(r.image for part in parts for r in part) == [r.image for r in records]
    patients = [{r.patient for r in part if r.patient} for part in parts]
    assert sum(map(len, patients)) == len(set.union(*patients))


def test_folds_of_unequal_patients_are_about_equal():
    records = [record(i, 0, f"p{min(i // 10, 3 + i)}" if i < 40 else f"q{i}") for i in range(100)]
    sizes = [len(part) for part in divide_into_folds(records, folds=5, seed=0, class_names=["a"])]
    assert sum(sizes) == 100 and max(sizes) - min(sizes) <= 2


def test_impossible_folds_are_refused():
    records = [record(i, int(i < 9), f"p{i // 3}") for i in range(30)]
    with pytest.raises(InputError, match="5 folds need as many patients of every class, but there are 3 of ill"):
        divide_into_folds(records, folds=5, seed=0, class_names=["well", "ill"])
