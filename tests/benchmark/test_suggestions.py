# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from scripts.benchmark.suggestions import (
    ROUNDS,
    START,
    STRATEGIES,
    Curves,
    Row,
    add_row,
    interval,
    labels_needed,
    main,
    read_rows,
    table,
)


def rows(seeds=(0, 1)) -> list[Row]:
    """Curves by hand: chance rises by 0.02 each round, badge by 0.04, from 0.8 and 0.81."""
    found = []
    for seed in seeds:
        first = 0.8 + 0.01 * seed
        found.append(Row("brain_mri", seed, START, ROUNDS[0], 300, first, 0.5, 60.0))
        for strategy in STRATEGIES:
            step = 0.04 if strategy == "badge" else 0.02
            found += [
                Row("brain_mri", seed, strategy, count, 300, round(first + step * place, 4), 0.5, 60.0)
                for place, count in enumerate(ROUNDS[1:], 1)
            ]
    return found


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "results" / "suggestions.csv"
    for row in rows():
        add_row(path, row)
    assert read_rows(path) == rows() and read_rows(tmp_path / "none.csv") == []


def test_labels_needed_are_read_from_the_curve_by_the_logarithm():
    assert labels_needed([0.8, 0.9, 0.95, 1.0], 0.9) == pytest.approx(80)
    assert labels_needed([0.8, 0.9, 0.95, 1.0], 0.925) == pytest.approx(80 * 2**0.5)
    assert labels_needed([0.8, 0.9, 0.95, 1.0], 0.7) == 40
    assert labels_needed([0.8, 0.81, 0.82, 0.83], 0.9) == math.inf


def test_the_table_compares_with_chance_seed_by_seed():
    lines = table(Curves(rows()))
    (badge,) = [line for line in lines if "| badge |" in line]
    cells = [cell.strip() for cell in badge.strip("|").split("|")]
    assert cells[2] == "0.845 (0.840-0.850)"
    assert cells[5] == "+0.040 (+0.040 to +0.040)"  # 0.02, 0.04 and 0.06
    # chance's AUC at 80, 160 and 320 labels is badge's half way to 80, at 80, and half way to 160
    assert cells[6:] == ["57", "80", "113"]


def test_the_interval_is_that_of_a_t_test_over_seeds():
    # mean 2, standard deviation 1, t of 2 degrees of freedom 4.3027: half width 4.3027 / sqrt(3)
    assert interval(np.array([1.0, 2.0, 3.0])) == "+2.000 (-0.484 to +4.484)"


def test_a_seed_counts_when_all_of_its_trainings_are_there(tmp_path):
    assert Curves(rows()[:-1]).seeds("brain_mri") == [0]
    with pytest.raises(SystemExit, match="no complete seed yet"):
        main(["--plot", "--results", str(tmp_path)])


def test_the_plot_is_drawn_for_a_light_and_a_dark_page(tmp_path, capsys):
    for row in rows():
        add_row(tmp_path / "suggestions.csv", row)
    main(["--plot", "--results", str(tmp_path)])
    text = (tmp_path / "suggestions.svg").read_text()
    assert "prefers-color-scheme:dark" in text and "badge" in text and "| badge |" in capsys.readouterr().out
