# SPDX-License-Identifier: Apache-2.0
"""Small networks for a budget, from a large one and images, as a function and as files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dual_skd.errors import InputError
from dual_skd.evaluation.students import propose_students, table, write_students
from dual_skd.networks.build import build_network
from dual_skd.networks.inspect import count_macs, count_parameters
from dual_skd.networks.weight_files import write_weights

LARGE: dict[str, Any] = {
    "large": "monai_resnet18", "large_options": {"block_inplanes": [16, 32, 64, 128]}, "image_size": 32
}  # fmt: skip


@pytest.fixture
def with_images(tmp_path: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    large = build_network(LARGE["large"], num_classes=3, **LARGE["large_options"])
    write_weights(tmp_path / "large.pt", large.state_dict())
    random = np.random.default_rng(0)
    for number in range(24):
        place = tmp_path / "data" / ("dark", "bright")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        stripes = np.tile(np.arange(32) % (2 + 2 * (number % 2)), (32, 1)) * 60 + random.integers(0, 40, (32, 32))
        Image.fromarray(stripes.astype(np.uint8)).save(place)
    return LARGE | {"pretrained": str(tmp_path / "large.pt"), "dataset_dir": tmp_path / "data", "keep_twins": True}


def network_of(name: str, options: dict[str, Any]) -> torch.nn.Module:
    return build_network(name, num_classes=2, **options)


def test_proposals_are_within_the_budget_and_cost_what_they_say() -> None:
    found = propose_students(parameters=4.5e5, **LARGE)
    assert len(found) >= 2
    for one in found:
        network = network_of(one.name, one.options)
        assert one.parameters == count_parameters(network) <= 4.5e5
        assert one.macs == count_macs(network, (1, 32, 32))
        assert one.milliseconds > 0 and one.probe is None and 0.9 < one.selected <= 1
    assert propose_students(macs=[8e6, 4e6], **LARGE)[-1].macs <= 4e6


def test_a_budget_of_time_is_measured_on_this_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    from dual_skd.evaluation import students

    asked: list[int] = []

    def by_size(network: torch.nn.Module, shape: Any) -> dict[str, float]:
        asked.append(count_parameters(network))
        return {"milliseconds": asked[-1] / 1e5 * asked.count(asked[-1])}  # slower when it is measured again

    monkeypatch.setattr(students, "cpu_milliseconds", by_size)
    by_time, by_parameters = propose_students(milliseconds=4.5, **LARGE), propose_students(parameters=4.5e5, **LARGE)
    assert [one.options for one in by_time] == [one.options for one in by_parameters]
    assert all(one.milliseconds <= 4.5 for one in by_time)


def test_images_rank_the_proposals_and_everything_is_written(with_images: dict[str, Any], tmp_path: Path) -> None:
    found = propose_students(parameters=4.5e5, **with_images)
    scores = [one.probe.value for one in found if one.probe]
    assert len(scores) == len(found) and scores == sorted(scores, reverse=True) and scores[0] > 0.9
    assert {json.dumps(one.options) for one in found} == {
        json.dumps(one.options) for one in propose_students(parameters=4.5e5, **LARGE)
    }
    again = propose_students(parameters=4.5e5, **with_images)
    assert [one.probe for one in again] == [one.probe for one in found]
    write_students(found, "parameters", tmp_path / "out")
    with (tmp_path / "out" / "students.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [json.loads(row["options"]) for row in rows] == [one.options for one in found]
    assert [float(row["probe"]) for row in rows] == scores
    drawing = (tmp_path / "out" / "students.svg").read_text(encoding="utf-8")
    assert "<svg" in drawing and ">million parameters<" in drawing
    lines = table(found)
    assert len(lines) == len(found) + 1 and max(map(len, lines)) <= 110
    assert "probe (95% interval)" in lines[0] and f"{scores[0]:.3f}" in lines[1]


@pytest.mark.parametrize(("given", "message"), [
    ({}, "one kind of budget, found none"),
    ({"parameters": 1e6, "macs": 1e6}, "one kind of budget, found parameters, macs"),
    ({"parameters": [1e6, 0]}, r"A budget is above 0, found \[1000000.0, 0.0\]"),
    ({"parameters": 5e5, "dataset_dir": "demo", "pretrained": "none"}, "pretrained is 'none'"),
    ({"parameters": 1e6, "width": 3}, "Unknown option width"),
])  # fmt: skip
def test_mistakes_are_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        propose_students(**LARGE | given)
