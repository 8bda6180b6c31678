# SPDX-License-Identifier: Apache-2.0
"""Signals that ask a run to stop: noted, so that it can save its state first."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

REPEATED_SIGTERM_SECONDS = 5.0  # within which SIGTERM may come again by another way


class StopSignals:
    """While it is entered, SIGINT and SIGTERM are noted in ``number``; a second one does what it did before.

    A SIGTERM soon after the first isn't a second one: schedulers send it to all processes, and launchers pass it on.
    Processes that are forked meanwhile, such as a loader's, leave both to this one. Outside the main thread, where
    Python allows no handlers, and for signals that are ignored (``nohup``), nothing is changed.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._former: dict[int, Any] = {}
        self._process = 0
        self._when = 0.0

    def __enter__(self) -> StopSignals:
        self.number, self._process = None, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former if former is not None else signal.SIG_DFL)
        self._former = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        if self.number is not None:
            if number == signal.SIGINT or time.monotonic() - self._when > REPEATED_SIGTERM_SECONDS:
                self.__exit__()
                signal.raise_signal(number)
            return
        self.number, self._when = number, time.monotonic()
        # not by logging, which this may have interrupted
        os.write(2, b"\nStopping: what is in progress is finished and saved. Once more ends it at once, unsaved.\n")
