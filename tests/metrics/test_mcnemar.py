# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from dual_skd.errors import InputError
from dual_skd.metrics.delong import delong_test
from dual_skd.metrics.mcnemar import match_tables, mcnemar_test
from dual_skd.metrics.predictions import PredictionTable, read_predictions, write_predictions


@pytest.mark.parametrize(("only_one", "only_other"), [(0, 0), (3, 0), (5, 12), (40, 40), (700, 800), (60_000, 59_000)])
def test_of_one_image_per_patient_the_p_value_is_the_exact_binomial_one_mid_p(only_one, only_other):
    labels = np.zeros(only_one + only_other + 5, int)
    one = np.r_[np.zeros(only_one), np.ones(only_other), 0, 0, 0, 1, 1]
    other = np.r_[np.ones(only_one), np.zeros(only_other), 0, 0, 0, 1, 1]
    found = mcnemar_test(one, other, labels)
    assert (found.both, found.only_one, found.only_other, found.neither) == (3, only_one, only_other, 2)
    count, wanted = only_one + only_other, 1.0
    if only_one != only_other:  # Fagerland et al. 2013: the exact p value minus the chance of what was observed
        wanted = stats.binomtest(only_one, count).pvalue - stats.binom.pmf(only_one, count, 0.5)
    assert found.p == pytest.approx(wanted, rel=1e-6)
    json.dumps(dataclasses.asdict(found), allow_nan=False)


# chi-square statistics of Obuchowski 1998 and Durkalski et al. 2003 as the latter print them; data and numbers are also
# in the R package clust.bin.pair 0.1.2: clust.bin.pair(ak, bk, ck, dk, method = "obuchowski")
# glands of 21 patients that PET and SPECT call normal, minus each other, and psychiatrists' patients who disagree
THYROIDS = [-2, -1, 0, 0, -1, 0, 0, 0, 1, 0, 0, 0, 0, 0, -2, 0, 0, -1, 0, 0, 0]
PSYCHIATRY = [
    [0, 1, 1, 1, 0, 3, 3, 3, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0],
    [4, 2, 3, 2, 1, 3, 0, 2, 2, 4, 2, 4, 3, 2, 1, 3, 1, 2, 0, 0, 0, 2, 1, 2, 2, 0, 0, 1, 1],
]  # fmt: skip
PAIRED = [np.maximum(THYROIDS, 0), np.maximum(-np.array(THYROIDS), 0)]


@pytest.mark.parametrize(("pairs", "obuchowski", "rel"), [(PAIRED, 2.86, 0.35), (PSYCHIATRY, 7.19, 0.35)])
def test_several_images_of_a_patient_count_together_as_obuchowskis_test_has_it(pairs, obuchowski, rel):
    only_one, only_other = (np.array(side) for side in pairs)
    patients = np.repeat(np.arange(len(only_one)), only_one + only_other)
    one_right = np.concatenate([[1] * a + [0] * b for a, b in zip(only_one, only_other, strict=True)])
    found = mcnemar_test(one_right, 1 - one_right, np.ones(len(patients), int), patients=patients.tolist())
    apart = only_one - only_other
    count = len(apart)
    statistic = (count - 1) / count * apart.sum() ** 2 / np.square(apart).sum()
    assert statistic == pytest.approx(obuchowski, abs=0.005)
    assert found.p == pytest.approx(stats.chi2.sf(obuchowski, 1), rel=rel)  # the normal distribution of few patients
    images = mcnemar_test(one_right, 1 - one_right, np.ones(len(patients), int))
    assert images.p < found.p / 2 and (images.only_one, images.only_other) == (found.only_one, found.only_other)


def test_of_many_patients_it_is_obuchowskis_test():
    random = np.random.default_rng(0)
    patients = np.repeat(np.arange(300), 5)
    one, other = (np.repeat(random.random(300), 5) * 0.6 + random.random(1500) * 0.6 < 0.62 for _ in "ab")
    apart = np.bincount(patients, weights=one.astype(float) - other)
    z = apart.sum() / np.sqrt(np.square(apart).sum() * 300 / 299)
    found = mcnemar_test(one, other, np.ones(1500, int), patients=patients.tolist())
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(z)), rel=0.15)  # far in the tail


def table(images, labels, second, names=("well", "ill")):
    second = np.array(second)
    p = np.stack([1 - second, second], axis=1)
    return PredictionTable(list(images), np.array(labels), p, list(names), {"predicted": [f"{v}" for v in second]})


def test_tables_in_another_order_of_images_and_classes_are_brought_into_the_first_ones_order():
    one = table("abc", [0, 1, 1], [0.1, 0.8, 0.3])
    other = table("cab", [0, 1, 0], [0.4, 0.9, 0.2], ("ill", "well"))
    first, second = match_tables(one, other)
    assert first is one and second.images == ["a", "b", "c"] and second.class_names == ["well", "ill"]
    assert second.labels.tolist() == [0, 1, 1] and second.columns == {"predicted": ["0.9", "0.2", "0.4"]}
    assert second.probabilities == pytest.approx(np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]))
    found = mcnemar_test(first.probabilities.argmax(1), second.probabilities.argmax(1), first.labels)
    assert (found.both, found.only_one, found.only_other, found.p) == (2, 0, 1, 0.5)


def test_three_classes_in_another_order_keep_their_labels():
    names, turned = ["a", "b", "c"], ["b", "c", "a"]
    p = np.eye(3)[[0, 1, 2]]
    one = PredictionTable(["x", "y", "z"], np.array([0, 1, 2]), p, names, {})
    other = PredictionTable(["x", "y", "z"], np.array([2, 0, 1]), p[:, [1, 2, 0]], turned, {})
    _, second = match_tables(one, other)
    assert second.labels.tolist() == [0, 1, 2] and np.array_equal(second.probabilities, p)


def test_written_files_can_be_compared(tmp_path):
    random, labels = np.random.default_rng(0), np.arange(40) % 2
    names = [f"{image}.png" for image in range(40)]
    for number in (1, 2):
        second = 1 / (1 + np.exp(-random.normal(size=40) - labels))
        order = random.permutation(40)
        write_predictions(
            tmp_path / f"{number}.csv",
            [names[place] for place in order],
            labels[order],
            np.stack([1 - second, second], axis=1)[order],
            ["well", "ill"],
        )
    one, other = match_tables(read_predictions(tmp_path / "1.csv"), read_predictions(tmp_path / "2.csv"))
    assert one.images == other.images and np.array_equal(one.labels, other.labels)
    test = delong_test(one.probabilities[:, 1], other.probabilities[:, 1], one.labels)
    assert 0 <= test.p <= 1 and test.difference == test.one - test.other


def test_several_labels_per_image_are_matched_as_well():
    p = np.full((2, 2), 0.5)
    one = PredictionTable(["x", "y"], np.array([[1, 0], [1, 1]]), p, ["a", "b"], {})
    other = PredictionTable(["y", "x"], np.array([[1, 1], [0, 1]]), p, ["b", "a"], {})
    assert match_tables(one, other)[1].labels.tolist() == [[1, 0], [1, 1]]
    with pytest.raises(InputError, match="one with several per image"):
        match_tables(one, table("xy", [0, 1], [0.1, 0.2], ("a", "b")))
    with pytest.raises(InputError, match="of several labels per image give one column"):
        mcnemar_test(p, p, p)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (table("abde", [0, 1, 1, 0], [0.1] * 4), r"1 only in one.csv: c; 2 only in two.csv: d, e\); evaluate both"),
        (table("abcc", [0, 1, 1, 1], [0.1] * 4), "two.csv has more than one row for c"),
        (table("abc", [0, 0, 0], [0.1] * 3), "different labels of 2 images: b, c"),
        (table("abc", [0, 1, 1], [0.1] * 3, ("well", "sick")), "one.csv has the classes well, ill, two.csv well, sick"),
    ],
)
def test_what_does_not_match_is_named(other, words):
    with pytest.raises(InputError, match=words):
        match_tables(table("abc", [0, 1, 1], [0.1] * 3), other, names=("one.csv", "two.csv"))


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(InputError, match=r"found one \(2,\), other \(3,\), labels \(3,\)"):
        mcnemar_test(np.zeros(2), np.zeros(3), np.zeros(3))
    with pytest.raises(InputError, match="at least one image"):
        mcnemar_test(np.zeros(0), np.zeros(0), np.zeros(0))
