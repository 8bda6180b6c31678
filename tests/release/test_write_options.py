# SPDX-License-Identifier: Apache-2.0
"""Configs and the page of options are what the models of options say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dual_skd.options import Evaluation, Prediction, Training
from dual_skd.options.table import groups, table
from scripts import ROOT
from scripts.release import write_options


def test_the_configs_and_the_page_are_those_of_the_options():
    assert write_options.main(["--check"]) == 0


def test_a_difference_is_named_and_mended(tmp_path, monkeypatch, capsys):
    configs = tmp_path / "bundle" / "configs"
    configs.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    sums = Path("bundle", "dual_skd", "options", "known_configs.py")
    (tmp_path / sums).parent.mkdir(parents=True)
    (tmp_path / sums).write_text((ROOT / sums).read_text())
    for name in write_options.KINDS:
        text = (ROOT / "bundle" / "configs" / name).read_text()
        (configs / name).write_text(re.sub(r'(?m)^    "(amp|num_workers)": .*\n', "", text))
    monkeypatch.setattr(write_options, "ROOT", tmp_path)
    assert write_options.main(["--check"]) == 1 and "train.json isn't what the options say" in capsys.readouterr().out
    assert write_options.main([]) == 0 and write_options.main(["--check"]) == 0
    for name in write_options.KINDS:
        assert (configs / name).read_text() == (ROOT / "bundle" / "configs" / name).read_text()


@pytest.mark.parametrize("name", ["train.json", "evaluate.json", "inference.json"])
def test_a_config_reads_its_options_from_one_place(name):
    text = (ROOT / "bundle" / "configs" / name).read_text()
    config = json.loads(text)
    given, read = write_options.ENTRIES.get(
        name.removesuffix(".json").replace("evaluate", "evaluation"), ("given", "options")
    )
    graph = {key: value for key, value in config.items() if key not in (*config[given], given, read)}
    kind = {"train.json": Training, "evaluate.json": Evaluation, "inference.json": Prediction}[name]
    used = set(re.findall(rf"@{read}\.(\w+)", json.dumps(graph)))
    read_elsewhere = set(re.findall(r"@(\w+)", json.dumps(graph))) & set(kind.model_fields)
    assert read_elsewhere == {"device"} | ({"epochs"} if kind is Training else set())  # as consumers of bundles know it
    by_python = (
        {"method", "loss", "timeout_minutes"} if kind is Training else set()
    )  # for the last: multi_gpu_train.json
    assert used | read_elsewhere | by_python == set(kind.model_fields)


def test_every_option_stands_in_one_group_of_the_page():
    for kind in (Training, Evaluation, Prediction):
        titles = groups(kind)
        assert [name for fields in titles.values() for name in fields] == list(kind.model_fields)
        lines = "\n".join(table(kind))
        assert all(f"### {title}\n" in lines for title in titles)
        assert all(lines.count(f"| `{name}` |") == 1 for name in kind.model_fields)
