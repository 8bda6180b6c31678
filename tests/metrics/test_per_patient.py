# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from dual_skd.errors import InputError
from dual_skd.metrics.per_patient import combine_patients
from dual_skd.metrics.predictions import PredictionTable


def table(labels, p, images=None, names=None):
    p = np.asarray(p, dtype=float)
    names = names or [f"class{k}" for k in range(p.shape[1])]
    images = images or [f"image{place}" for place in range(len(p))]
    return PredictionTable(images, np.asarray(labels), p, names, {"predicted": ["?"] * len(p)})


THREE = [[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]]


def test_two_classes_by_hand():
    p = [[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.8, 0.2]]
    patients = ["Ben", "Ann", "Ben", ""]
    mean = combine_patients(table([0, 0, 1, 0], p, ["z", "y", "b", "a"]), patients)
    assert mean.table.images == ["b", "y", "a"]  # the first path of each, in the order of the patients' first image
    assert mean.table.labels.tolist() == [1, 0, 0]
    assert np.allclose(mean.table.probabilities, [[0.75, 0.25], [0.3, 0.7], [0.8, 0.2]], atol=1e-15)
    assert mean.table.columns == {"images": ["2", "1", "1"]} and mean.members == [[0, 2], [1], [3]]
    assert (mean.left_out_patients, mean.left_out_images) == (0, 0)
    largest = combine_patients(table([0, 0, 1, 0], p), patients, "max").table
    assert np.allclose(largest.probabilities, [[0.6, 0.4], [0.3, 0.7], [0.8, 0.2]], atol=1e-15)


def test_of_more_classes_the_largest_are_normalised_and_mixed_patients_left_out():
    found = combine_patients(table([0, 0, 2, 1], THREE), ["a", "a", "b", "b"], "max")
    assert np.allclose(found.table.probabilities, [[0.7 / 1.5, 0.5 / 1.5, 0.3 / 1.5]], atol=1e-15)
    assert found.table.labels.tolist() == [0] and found.members == [[0, 1]]
    assert (found.left_out_patients, found.left_out_images) == (1, 2)


def test_several_labels_are_those_of_any_image():
    labels = [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    p = np.array(THREE)
    found = combine_patients(table(labels, p), ["a", "a", "b", "c"], "max", multi_label=True)
    assert found.table.labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]] and found.left_out_patients == 0
    assert found.table.probabilities.tolist() == [[0.7, 0.5, 0.3], THREE[2], THREE[3]]
    mean = combine_patients(table(labels, p), ["a", "a", "b", "c"], multi_label=True).table.probabilities
    assert np.allclose(mean[0], p[:2].mean(axis=0), atol=1e-15)


def test_the_mean_is_what_a_table_grouped_by_patient_gives():
    random = np.random.default_rng(0)
    p = random.dirichlet([1, 1], size=200)
    patients = [f"p{number}" for number in random.integers(60, size=200)]
    found = combine_patients(table(random.integers(2, size=200), p), patients).table
    of_patient: dict[str, list[float]] = {}
    for patient, value in zip(patients, p[:, 1], strict=True):
        of_patient.setdefault(patient, []).append(value)
    assert np.allclose(found.probabilities[:, 1], [sum(one) / len(one) for one in of_patient.values()], atol=1e-15)


def test_what_cannot_be_combined_is_refused():
    images = table([0, 1, 2, 1], THREE)
    with pytest.raises(InputError, match="mean or max to combine the images of a patient, found 'median'"):
        combine_patients(images, ["a"] * 4, "median")
    with pytest.raises(InputError, match="of 4 images no patient is known"):
        combine_patients(images, ["", None, float("nan"), ""])
    with pytest.raises(InputError, match="found 1 of 1 with images of different labels"):
        combine_patients(images, ["a"] * 4)
    with pytest.raises(InputError, match="4 images, but 3 patients"):
        combine_patients(images, ["a"] * 3)


@pytest.mark.parametrize("mixed", [2, 3])
def test_a_table_that_would_lose_most_of_its_patients_is_refused(mixed):
    labels = [0, 1] * mixed + [0, 0] * (4 - mixed)  # two images of each of four patients
    table = PredictionTable(
        [f"{n}.png" for n in range(8)], np.array(labels), np.full((8, 3), 1 / 3), ["a", "b", "c"], {}
    )
    patients = [f"p{n // 2}" for n in range(8)]
    if mixed == 2:
        assert combine_patients(table, patients).left_out_patients == 2
    else:
        with pytest.raises(InputError, match="found 3 of 4 with images of different labels; measure per image"):
            combine_patients(table, patients)
