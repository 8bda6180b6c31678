# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import shlex
import subprocess

import pytest

from dual_skd.wording import check_command, counted, duration, metric_words, quoted

NAMES = ["data (Müller)", "it's", 'say "a"', "-x", "--help", "$HOME", "@eaDir", "%x", "'a'", "a#b", "~old", "a;b",
         "a\\b", "2024_06", "dir/", "`id`", "a\nb", "*", "demo"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_command_with_any_path_can_be_pasted(name):
    command = check_command(name)
    assert command[0] == command[-1] == "`"
    words = shlex.split(command[1:-1])
    assert words[:4] == ["python", "-m", "dual_skd", "check"] and words[4] in (name, f"./{name}")
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset_dir")
    assert parser.parse_args(words[4:]).dataset_dir == words[4]
    shell = ["bash", "-c", f"printf %s {quoted(name)}"]
    assert subprocess.run(shell, capture_output=True, check=True).stdout.decode() == words[4]


def test_a_number_has_its_words():
    assert [counted(n, "file is", "files are") for n in (0, 1, 2)] == ["0 files are", "1 file is", "2 files are"]


def test_times_and_metrics_have_words():
    assert [duration(seconds) for seconds in (0, 89, 90, 5300, 5400)] == [
        "0 s",
        "89 s",
        "2 min",
        "88 min",
        "1 h 30 min",
    ]
    names = ("macro_auc", "nll", "balanced_accuracy", "f1")
    assert [metric_words(name) for name in names] == ["macro AUC", "NLL", "balanced accuracy", "F1"]
