# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import pytest

from dual_skd.errors import visible
from dual_skd.utils.wording import WIDTH, check_command, closing, counted, duration, metric_words

NAMES = ["data (Müller)", "it's", 'say "a"', "-x", "--help", "$HOME", "@eaDir", "%x", "'a'", "a#b", "~old", "a;b",
         "a\\b", "2024_06", "dir/", "`id`", "a\nb", "it's\\\x1b[2J", "\u202eabc", "*", "demo"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_command_with_any_path_can_be_pasted(name):
    command = check_command(name)
    assert command[0] == command[-1] == "`"
    shell = ["bash", "-c", f"printf '%s\\0' {command[1:-1]}"]
    words = subprocess.run(shell, capture_output=True, check=True).stdout.decode().split("\0")[:-1]
    assert words[:2] == ["dual-skd", "check"] and words[2] in (name, f"./{name}")
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset_dir")
    assert parser.parse_args(words[2:]).dataset_dir == words[2]
    assert visible(command) == command


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


def test_last_words_are_as_wide_as_a_terminal_and_leave_paths_whole():
    path = Path("/long folder" * 12)
    long = "word " * 40
    first, *lines = closing(
        "Made: x", [("kept", long), ("unknown", ""), ("file here", path)], "dual-skd check x"
    ).split("\n")
    assert first == "Made: x" and lines[-1] == "Next: dual-skd check x"
    assert lines[-2] == f"  file here  {path}"
    assert len(lines) == 6 and max(map(len, lines[:4])) <= WIDTH == 80
    assert lines[0].startswith("  kept       word word") and lines[1].startswith("             word")
    assert " ".join(" ".join(lines[:4]).split()) == f"kept {long.strip()}"
    assert "Next" not in closing("Made: x", [])
