# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from dual_skd.errors import InputError
from dual_skd.metrics.validation import checked_class_names, checked_predictions

HALF = np.full((3, 2), 0.5)


@pytest.mark.parametrize(
    ("probabilities", "labels", "multi_label", "words"),
    [
        (HALF, np.zeros(2), False, r"found \(3, 2\) and labels \(2,\)"),
        (HALF, np.zeros(3), True, r"labels \(N, K\) of at least one image"),
        (np.zeros((0, 2)), np.zeros(0), False, "at least one image"),
        (np.zeros((3, 0)), np.zeros(3), False, r"K classes, found an array \(3, 0\)"),
        (
            np.array([[np.nan, 1], [0.5, 0.5], [2, -1]]),
            np.zeros(3),
            False,
            "from 0 to 1, found others in 2 of 3 images",
        ),
        (HALF * 0.5, np.zeros(3), False, "sum to 1, found 0.5 in an image; with several"),
        (HALF, np.array([0, 1, 2]), False, "from 0 to 1, found 2; check class_names"),
        (HALF, np.array([0, 0.5, 1]), False, "whole numbers from 0 to 1, found 0.5"),
        (HALF, np.array([0, -1, 1]), False, "found -1"),
        (HALF, np.array([0, np.nan, 1]), False, "found nan"),
        (HALF, np.array(["well", "ill", "ill"]), False, "found 'well'"),
        (HALF, np.array([0, None, 1], dtype=object), False, "found None"),
        (HALF, np.array([[0, 1], [0, 2], [0, 0]]), True, "from 0 to 1, found 2; check class_names"),
    ],
)
def test_what_cannot_be_measured_is_said_plainly(probabilities, labels, multi_label, words):
    with pytest.raises(InputError, match=words):
        checked_predictions(probabilities, labels, multi_label)


def test_probabilities_of_a_table_with_six_digits_pass_and_never_exceed_one():
    p, labels = checked_predictions(np.array([[0.333333] * 3, [1.0000004, 0.0, 0.0]]), np.array([0.0, 2.0]))
    assert p.max() == 1 and labels.dtype == np.int64


def test_names_of_classes_are_their_numbers_unless_given():
    assert checked_class_names(None, 2) == ["0", "1"]
    assert checked_class_names(("no", "yes"), 2) == ["no", "yes"]
    with pytest.raises(InputError, match=r"2 probabilities per image, but 3 class_names \(a, b, c\)"):
        checked_class_names("abc", 2)
