# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from dual_skd.errors import (
    STATS_LOGGERS,
    InputError,
    SelectionError,
    choose,
    input_error_behind,
    show_input_errors_plainly,
)


def wrapped(error: Exception, explicit: bool) -> Exception:
    """The error as it arrives through three layers of a library."""
    for layer in range(3):
        try:
            try:
                raise error
            except Exception as inner:
                raise RuntimeError(f"layer {layer}") from (inner if explicit else None)
        except RuntimeError as outer:
            error = outer
    return error


@pytest.mark.parametrize("explicit", [True, False])
def test_the_input_error_is_found_behind_its_wrappings(explicit):
    cause = SelectionError("too wide")
    assert input_error_behind(wrapped(cause, explicit)) is cause
    assert input_error_behind(cause) is cause


def test_other_errors_and_circles_hold_none():
    assert input_error_behind(None) is None
    assert input_error_behind(wrapped(ValueError("else"), True)) is None
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert input_error_behind(first) is None


def test_an_input_error_is_shown_as_its_sentence_and_others_as_before(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(sys, "excepthook", lambda *arguments: seen.append(arguments))
    show_input_errors_plainly()
    hook = sys.excepthook
    show_input_errors_plainly()  # a second run in the same process
    assert sys.excepthook is hook
    error = wrapped(InputError("No images in here; add some."), True)
    sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == "\nError: No images in here; add some.\n" and not seen
    other = KeyError("x")
    sys.excepthook(KeyError, other, None)
    assert seen == [(KeyError, other, None)] and capsys.readouterr().err == ""


def test_the_stats_handlers_show_no_stacks(monkeypatch, caplog):
    monkeypatch.setattr(sys, "excepthook", lambda *arguments: None)
    show_input_errors_plainly()
    for name in STATS_LOGGERS:
        logging.getLogger(name).error("Exception", exc_info=ValueError("a"))
        logging.getLogger(name).warning("kept")
    assert [record.getMessage() for record in caplog.records] == ["kept"] * len(STATS_LOGGERS)


def test_every_stats_handler_of_the_configs_is_one_of_them():
    def named(content) -> list[str]:
        if isinstance(content, list):
            return [name for one in content for name in named(one)]
        if not isinstance(content, dict):
            return []
        own = [content.get("name", "")] if content.get("_target_") == "StatsHandler" else []
        return own + named(list(content.values()))

    configs = (Path(__file__).parents[1] / "bundle" / "configs").glob("*.json")
    found = [name for path in configs for name in named(json.loads(path.read_text()))]
    assert len(found) >= 4 and set(found) <= set(STATS_LOGGERS)


def test_input_errors_are_value_errors():
    assert issubclass(SelectionError, InputError) and issubclass(InputError, ValueError)


def test_choose_lists_the_valid_words():
    assert choose({"ema": 1, "mutual": 2}, "mutual", "update") == 2
    with pytest.raises(InputError, match=r"Unknown update 'mutal' \(did you mean mutual\?\); valid: ema, mutual"):
        choose({"ema": 1, "mutual": 2}, "mutal", "update")
