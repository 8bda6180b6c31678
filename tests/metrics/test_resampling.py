# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from dual_skd.errors import InputError
from dual_skd.metrics import resampling
from dual_skd.metrics.resampling import drawn_weights, patient_numbers


def test_images_of_one_patient_share_a_number_and_unknown_patients_stand_for_themselves():
    assert patient_numbers(["b", "a", "", "b", None, ""], 6).tolist() == [0, 1, 2, 0, 3, 4]
    nan = float("nan")  # one object, as numpy and pandas have it
    assert patient_numbers([nan, "a", nan, np.float64("nan"), "a"], 5).tolist() == [0, 1, 2, 3, 1]
    assert patient_numbers([7, 0, 7], 3).tolist() == [0, 1, 0]  # the number 0 is a name like any other
    assert patient_numbers(None, 3).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="3 images, but 2 patients"):
        patient_numbers(["a", "b"], 3)


def test_every_resample_draws_as_many_patients_as_there_are_with_all_of_their_images():
    units = np.array([0, 1, 1, 2, 0, 0])
    weights = np.vstack(list(drawn_weights(np.random.default_rng(0), units, 500)))
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 4]).all() and (weights[:, 1] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    # binomial: mean 1, variance 3 * 1/3 * 2/3
    assert weights.mean() == pytest.approx(1, abs=0.1) and weights[:, 3].var() == pytest.approx(2 / 3, abs=0.12)


@pytest.mark.parametrize("block", [1, 17, 1000])
def test_the_draws_do_not_depend_on_how_many_are_held_at_once(block, monkeypatch):
    wanted = np.vstack(list(drawn_weights(np.random.default_rng(1), np.arange(7), 20)))
    monkeypatch.setattr(resampling, "WEIGHTS_PER_BLOCK", block)
    blocks = list(drawn_weights(np.random.default_rng(1), np.arange(7), 20))
    assert max(len(one) for one in blocks) <= max(1, block // 7)
    assert np.array_equal(np.vstack(blocks), wanted)
