# SPDX-License-Identifier: Apache-2.0
"""The average of a federation, and the table of its benchmark, by hand."""

from __future__ import annotations

import pytest
import torch

from scripts.benchmark.federated import ROWS, add_lines, federated_average, main, read_lines


def test_the_average_counts_images():
    updates = [
        ({"weight": torch.tensor([1.0, 4.0]), "steps": torch.tensor(10)}, 30),
        ({"weight": torch.tensor([5.0, 0.0]), "steps": torch.tensor(20)}, 10),
    ]
    found = federated_average(updates)
    assert found["weight"].tolist() == [2.0, 3.0]  # (30 * 1 + 10 * 5) / 40, (30 * 4 + 10 * 0) / 40
    assert found["steps"].item() == pytest.approx(12.5)


def test_rows_pass_over_their_images_equally_often():
    passes = {name: row.rounds * row.epochs for name, row in ROWS.items()}
    long = [passes.pop(name) for name in ("DU_long", "federated_long")]
    assert set(passes.values()) == {16} and long == [38, 38]


def test_lines_are_kept_and_averaged(tmp_path, capsys):
    path = tmp_path / "federated.csv"
    add_lines(path, [[0, "pooled", "all", 200, 79, 0.9, 0.8, 0.95, 0.3, 0.1, 60]])
    add_lines(path, [[1, "pooled", "all", 204, 80, 0.7, 0.8, None, 0.5, 0.1, 60]])
    assert [line["seed"] for line in read_lines(path)] == ["0", "1"]
    assert main(["--results", str(path), "--table"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("| pooled | 200 to 204 | 2 | 0.800 ± 0.141 | 0.800 ± 0.000 | 0.950 | 0.400 ± 0.141 |")
