# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from dual_skd.errors import InputError
from dual_skd.options import refuse_unknown, switch


@pytest.mark.parametrize("value, wanted", [
    (True, True), ("true", True), ("True", True), ("TRUE", True),
    (False, False), ("false", False), ("False", False), ("FALSE", False),
])  # fmt: skip
def test_true_and_false_are_understood_in_any_case(value, wanted):
    assert switch(value, "amp") is wanted


@pytest.mark.parametrize("value", ["nonsense", "", "no", 0, 1, None])
def test_anything_else_is_refused_under_the_name_of_the_option(value):
    with pytest.raises(InputError) as caught:
        switch(value, "amp")
    assert str(caught.value) == f"Unknown amp {str(value).lower()!r}; valid: true, false."


@pytest.fixture
def config(tmp_path) -> str:
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


@pytest.mark.parametrize("word", ["--datasetdir", "--dataset_dirs=x", "--epoch", "--trian#trainer"])
def test_an_option_that_no_config_has_is_refused_with_what_is_near(config, word):
    with pytest.raises(InputError, match="Unknown option --.* .did you mean (dataset_dir|epochs|train)"):
        refuse_unknown(["run", f"--config_file={config}", word, "1"])


def test_another_program_has_options_of_its_own():
    refuse_unknown(["--workers", "3"])
