# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from dual_skd.errors import InputError
from dual_skd.options import Training, evaluation, read
from dual_skd.options.data import DataOptions, ReadOptions


def test_options_of_the_data_have_the_defaults_of_a_training():
    whole = Training()
    assert {name: getattr(whole, name) for name in DataOptions.model_fields} == DataOptions().model_dump()


def test_a_volume_has_no_frame():
    assert ReadOptions(frame="middle").frame_in_2d == "middle"
    assert ReadOptions(frame="middle", spatial_dims=3).frame_in_2d is None


def test_options_of_a_division_are_no_options_of_an_evaluation():
    with pytest.raises(InputError, match="Unknown option val_fraction"):
        read(ReadOptions, {"val_fraction": 0.1})


def test_numbers_of_numpy_are_numbers():
    options = read(DataOptions, {"seed": np.int64(3), "val_fraction": np.float32(0.25)})
    assert (options.seed, options.val_fraction) == (3, 0.25) and type(options.seed) is int
    with pytest.raises(InputError, match=r"seed is 2.5; expected a whole number"):
        read(DataOptions, {"seed": np.float64(2.5)})


def test_a_recalibration_needs_the_report_that_it_is_measured_for():
    assert evaluation(recalibrate="slope").recalibrate_share == 0.33
    with pytest.raises(InputError, match="recalibrate is slope, which is measured for the report, and report is off"):
        evaluation(recalibrate="slope", report=False)
