# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import torch
from torch import nn

from dual_skd.evaluation.report import speed
from dual_skd.evaluation.report.speed import cpu_milliseconds


class Slow(nn.Module):
    """Takes five milliseconds and notes how many threads there are."""

    threads = 0

    def forward(self, x):
        Slow.threads = torch.get_num_threads()
        time.sleep(0.005)
        return x


def test_the_median_of_one_image_on_one_thread_is_measured():
    before = torch.get_num_threads()
    found = cpu_milliseconds(Slow(), (1, 4, 4))
    assert 5 <= found["milliseconds"] < 100 and found["runs"] == speed.MAX_RUNS and found["threads"] == 1
    assert Slow.threads == 1 and torch.get_num_threads() == before


def test_slow_networks_are_measured_a_few_times_only(monkeypatch):
    monkeypatch.setattr(speed, "MAX_SECONDS", 0.0)
    assert cpu_milliseconds(Slow(), (1, 4, 4))["runs"] == speed.MIN_RUNS
