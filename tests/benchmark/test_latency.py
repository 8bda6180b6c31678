# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import shutil

import pytest
import torch
from tiny_benchmark import LARGE, SMALL, changed, lines

from scripts.benchmark import latency, report
from scripts.benchmark.latency import Latencies, milliseconds
from scripts.benchmark.plan import read_plan


def test_each_network_of_the_plan_is_timed_once_and_shown_in_the_tables(done, plan, tmp_path, capsys):
    results = shutil.copytree(done / "results", tmp_path / "results")
    latency.main(["--results", str(results), "--plan", str(plan), "--rounds", "3"])
    with (results / "latency.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [line["network"] for line in found] == [f"resnet18 {json.dumps(o, sort_keys=True)}" for o in (LARGE, SMALL)]
    large, small = found
    assert {line["size"] for line in found} == {"32x32"} and "1 thread, torch" in large["machine"]
    assert float(large["of_large"]) == 1 and float(small["milliseconds"]) > 0
    sizes = {(line["row"], line["network"]): line for line in lines(done)}
    for line, row in ((small, "single"), (large, "large")):
        assert int(line["macs"]) == pytest.approx(int(sizes[row, "student"]["macs"]), rel=0.01)

    report.main(["--results", str(results), "--plan", str(plan), "--no_pictures"])
    text = (results / "tables.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]]
            for line in text[text.index("## phantoms") :].splitlines() if line.startswith("| ")]  # fmt: skip
    shown = {tuple(row[:2]): row[rows[0].index("CPU ms")] for row in rows[2:10]}
    one, two = (f"{float(line['milliseconds']):.1f} ({float(line['of_large']):.2f})" for line in (small, large))
    assert shown["single", "student"] == shown["dual", "auxiliary"] == one
    assert shown["large", "student"] == shown["distill", "auxiliary"] == two
    both = float(small["of_large"]) + 1
    assert shown["distill", "mean"].endswith(f"({both:.2f})")


def test_a_time_is_not_shown_for_a_result_of_another_network(done, plan, tmp_path):
    narrow = changed(plan, "narrow.json", lambda c: c["common"].update(small_options=LARGE | {"channels": [4] * 4}))
    latency.main(["--results", str(tmp_path), "--plan", str(narrow), "--rounds", "1"])
    latencies = Latencies(tmp_path, read_plan(narrow))
    macs = {line["row"]: float(line["macs"]) for line in lines(done) if line["network"] == "student"}
    assert latencies.text("phantoms", "single", "student", macs["single"]) == ""
    assert latencies.text("phantoms", "large", "student", macs["large"])


def test_networks_take_turns_and_the_first_two_rounds_do_not_count():
    calls = []

    class Noted(torch.nn.Module):
        def forward(self, x):
            calls.append(len(x))

    times = milliseconds({n: (Noted(), torch.zeros(n, 1)) for n in (1, 2)}, 3)
    assert calls == [1, 2] * 5 and [len(values) for values in times.values()] == [3, 3]
