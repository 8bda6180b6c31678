# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path

import fire
import pytest

from dual_skd.errors import InputError
from dual_skd.options.typed import text
from dual_skd.runs.command_line import refuse_unknown


@pytest.fixture
def typed(monkeypatch):
    """Puts options on the command line, and gives what fire makes of the first: its name and its value."""

    def put(*words: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", "training", *words])
        read: dict = {}
        fire.Fire(lambda *_, **options: read.update(options), ["run", "training", *words])
        return next((value, name) for name, value in read.items())

    return put


@pytest.mark.parametrize("word", [
    "2024_06", "202406", "007", "0x10", "1e3", "True", "None", "site,b", "(a)", "[a]", "{a: b}", "scan#3", "a ",
    "plain", "a b (Müller's) [2].csv", "~old", "50%", "x@y", "a$b", "dir/", "1e999", "--", "'a' 'b", "x=y",
])  # fmt: skip
@pytest.mark.parametrize("form", ["--output_dir={}", "--output-dir={}", "-output_dir={}", "--output_dir {}"])
def test_a_text_is_what_was_typed(typed, word, form):
    words = [part.format(word) for part in form.split(" ")]
    if word == "--" and len(words) == 2:
        pytest.skip("fire takes it for the end of the options")
    assert text(*typed(*words)) == word


@pytest.mark.parametrize("word, meant", [("'2024_06'", "2024_06"), ('"a,b"', "a,b")])
def test_a_text_in_quotes_of_its_own_is_what_stands_between_them(typed, word, meant):
    assert text(*typed("--output_dir", word)) == meant


def test_the_last_of_several_counts(typed):
    assert text(*typed("--output_dir", "1_0", "--output_dir=2_0")) == "2_0"


@pytest.mark.parametrize("words", [["--output_dir"], ["--output_dir", "--epochs", "1"], ["--output_dir", "-abc"]])
def test_an_option_without_its_text_is_refused(typed, words):
    with pytest.raises(InputError, match="output_dir is True; expected a text: .* with ./ before a path"):
        text(*typed(*words))


def test_what_comes_from_a_file_or_a_program_is_a_text_or_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["other", "--output_dir", "2024_06"])  # a program with an option of the same name
    assert text("run", "output_dir") == "run" and text(None, "output_dir") is None
    assert text(Path("run"), "output_dir") == "run"
    for value in (7, 1000.0, True, ("site", "b"), ["a"]):
        with pytest.raises(InputError, match="expected a text: in quotes in a file"):
            text(value, "output_dir")


@pytest.mark.parametrize("word, meant", [
    ("['a','b']", ["a", "b"]), ("('a','b')", ["a", "b"]), ("[a, b]", ["a", "b"]), ("a,b", "a,b"), ("1e3", "1e3"),
    ("no", "no"),
])  # fmt: skip
def test_texts_are_one_or_a_list(typed, word, meant):
    assert text(*typed("--label_column", word), several=True) == meant


def test_a_list_of_other_things_than_texts_is_refused(typed):
    with pytest.raises(InputError, match=r"label_column is \[1, 'b'\]; expected names, each in quotes"):
        text(*typed("--label_column", "[1,b]"), several=True)
    assert text(["a", "b"], "label", several=True) == ["a", "b"] and text(None, "label", several=True) is None


def test_another_program_has_options_of_its_own():
    refuse_unknown(["--workers", "3"])
    refuse_unknown([])
