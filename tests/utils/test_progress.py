# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import os
import struct

import pytest

from dual_skd.utils.progress import bar, is_terminal, shown


def test_a_bar_that_stays_is_one_line_and_lines_of_the_log_stand_above_it(terminal):
    with bar(None, "Reading", 4, stays=True) as steps:
        for step in range(4):
            steps.update()
            logging.getLogger("dual_skd").info("line %d", step)
            steps.refresh()
    *lines, last, empty = terminal.screen()
    assert lines == [f"line {step}" for step in range(4)] and empty == ""
    assert last.startswith("Reading 100%|") and len(last) <= 80


def test_a_short_step_shows_nothing(terminal):
    assert list(bar(range(3), "Reading")) == [0, 1, 2]
    assert terminal.screen() == [""]


def test_nothing_is_shown_in_a_file_by_other_processes_or_where_the_log_is_quiet(terminal, monkeypatch, caplog):
    assert shown()
    with caplog.at_level(logging.WARNING, logger="dual_skd"):
        assert not shown()
    monkeypatch.setenv("RANK", "1")
    assert not shown() and list(bar(range(2), "Reading", stays=True)) == [0, 1] and terminal.getvalue() == ""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    assert not shown() and list(bar(range(2), "Reading", stays=True)) == [0, 1] and terminal.getvalue() == ""


@pytest.mark.parametrize(("rows", "columns", "shows"), [(24, 80, True), (0, 80, False), (24, 0, False)])
def test_a_terminal_without_rows_or_columns_is_taken_for_a_file(rows, columns, shows):
    termios, fcntl = pytest.importorskip("termios"), pytest.importorskip("fcntl")
    other_end, descriptor = os.openpty()
    try:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        with open(descriptor, "w") as stream:
            assert stream.isatty() and is_terminal(stream) is shows
    finally:
        os.close(other_end)
