# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

from scripts.measure.step_time import step_ratios


def test_a_dual_step_is_compared_with_a_plain_one_of_the_same_round():
    found = step_ratios(1, 3, 32, 2, torch.device("cpu"))
    assert list(found) == ["student step, ms", "dual EMA step / student step", "dual mutual step / student step"]
    assert found["student step, ms"] > 0
    assert found["dual mutual step / student step"] > 1  # two networks learn
