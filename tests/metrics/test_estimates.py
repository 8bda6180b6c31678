# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from dual_skd.metrics.estimates import (
    Estimate,
    from_resamples,
    percentiles,
)


def test_percentiles_leave_out_what_is_undefined_and_are_numpys_of_the_rest():
    drawn = np.random.default_rng(0).normal(size=(101, 4))
    drawn[::3, 1] = np.nan
    drawn[:, 2] = np.nan
    drawn[1:, 3] = np.nan
    wanted = [np.nanpercentile(drawn[:, k], (5, 95)) for k in (0, 1, 3)]
    low, high, share = percentiles(drawn.copy(), 0.9)
    assert np.stack([low, high], axis=1)[[0, 1, 3]] == pytest.approx(np.array(wanted))
    assert np.isnan(low[2]) and np.isnan(high[2])
    assert share == pytest.approx([1, 67 / 101, 0, 1 / 101])


def test_resamples_that_say_nothing_make_no_interval_but_a_reason():
    assert from_resamples(0.5, 0.4, 0.6, 1.0) == Estimate(0.5, 0.4, 0.6, "")
    assert from_resamples(0.5, 0.4, 0.6, 0.8).reason.startswith("no interval: undefined in 20% of the resamples")
    assert from_resamples(0.5, 0.5, 0.5, 1.0) == Estimate(
        0.5, None, None, "no interval: (almost) all resamples give the same value"
    )
