# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from scripts.benchmark.probes import prior


def test_the_prior_spares_most_of_what_few_images_cost_and_nothing_of_what_many_give(capsys, monkeypatch):
    monkeypatch.setattr(prior, "IMAGES", (1, 100))
    monkeypatch.setattr(prior, "STRENGTHS", (0.0, 4.0))
    prior.main(["--repeats", "25"])
    rows = [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines()[2:]]
    cost = {(float(row[0]), int(row[1])): [float(cell.split("/")[0]) for cell in row[2:]] for row in rows}
    assert cost[1, 1][1] < 0.2 * cost[1, 1][0]
    assert np.subtract(*cost[2, 100][::-1]) < 0.002
