# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re

import pytest

from dual_skd.errors import InputError
from dual_skd.runs.command_line import refuse_unknown


@pytest.fixture
def config(tmp_path) -> str:
    tmp_path = tmp_path / "a, b"
    tmp_path.mkdir()
    (tmp_path / "a.json").write_text(json.dumps({"dataset_dir": "x", "epochs": 2, "train": {}, "handlers": []}))
    (tmp_path / "b.yaml").write_text("extra: 1\n")
    return f"['{tmp_path}/a.json','{tmp_path}/b.yaml']"


@pytest.mark.parametrize("words", [
    ["--dataset_dir", "strange", "--epochs=3"], ["--dataset-dir", "d", "--extra", "-1"],
    ["--train#trainer#max_epochs", "2", "--train::key", "3", "--handlers", "[]"], ["--logging_file", "l"],
    ["--rate", "2", "--epochs", "$@rate * 2"],
])  # fmt: skip
def test_options_of_the_configs_and_of_monai_are_taken(config, words):
    refuse_unknown(["run", "training", "--config_file", config, *words])


@pytest.mark.parametrize("word", ["--datasetdir", "--dataset_dirs=x", "--epoch", "--trian#trainer", "-epoch"])
def test_an_option_that_no_config_has_is_refused_with_what_is_near(config, word):
    with pytest.raises(InputError, match="Unknown option --.* .did you mean (dataset_dir|epochs|train)"):
        refuse_unknown(["run", f"--config_file={config}", word, "1"])


def test_a_mistyped_entry_of_a_config_of_ones_own_is_refused(config, tmp_path):
    (tmp_path / "mine.json").write_text('{"epochz": 2, "rate": 1, "epochs": "$@rate"}')
    with pytest.raises(InputError, match="mine.json: nothing reads epochz; did you mean epochs"):
        refuse_unknown(["run", "--config_file", config[:-1] + f",'{tmp_path}/mine.json']"])
    (tmp_path / "mine.json").write_text('{"epochz": 2, "epochs": "@epochz"}')
    refuse_unknown(["run", "--config_file", config[:-1] + f",'{tmp_path}/mine.json']"])


def test_an_option_of_a_former_version_is_refused_in_a_config_of_ones_own(config, tmp_path):
    words = ["run", "--config_file", config[:-1] + f",'{tmp_path}/mine.json']"]
    (tmp_path / "mine.json").write_text('{"compensate": 0, "epochs": 2}')
    refuse_unknown(words)
    (tmp_path / "mine.json").write_text('{"compensate": 64, "epochs": 2}')
    with pytest.raises(InputError, match="mine.json has compensate 64, which this version no longer has; leave it out"):
        refuse_unknown(words)
    with pytest.raises(InputError, match="Unknown option --compensate; there is no such entry in "):
        refuse_unknown(["run", "--config_file", config, "--compensate", "64"])


def test_one_config_is_a_path_as_it_is(tmp_path):
    (tmp_path / "a, b.json").write_text("{}")
    with pytest.raises(InputError, match="Unknown option --epochs"):
        refuse_unknown(["run", "training", "--config_file", str(tmp_path / "a, b.json"), "--epochs", "1"])


def test_a_name_that_a_config_would_evaluate_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("$recycle", "@eadir"):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match=f"give it as ./{re.escape(name)}"):
            refuse_unknown(["run", "--config_file", config, "--dataset_dir", name])
        refuse_unknown(["run", "--config_file", config, "--dataset_dir", f"./{name}"])
    refuse_unknown(["run", "--config_file", config, "--dataset_dir", "$@epochs"])
