# SPDX-License-Identifier: Apache-2.0
"""How far a long step is: a bar on a terminal, and nothing in a file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from typing import TextIO
from weakref import WeakSet

from tqdm import tqdm

logger = logging.getLogger(__name__)

FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
_open: WeakSet[tqdm] = WeakSet()


def shown() -> bool:
    """Whether bars are shown: on a terminal, by the first process, and unless the log is quiet."""
    return is_terminal(sys.stderr) and int(os.environ.get("RANK", 0)) == 0 and logger.isEnabledFor(logging.INFO)


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that a bar can stand on; one without rows or columns is taken for a file."""
    if not stream.isatty():
        return False
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:  # it stands in for one, and has no descriptor
        return True
    return size.lines > 0 and size.columns > 0


def bar(iterable: Iterable | None, what: str, total: int | None = None, *, done: int = 0, stays: bool = False) -> tqdm:
    """A bar on stderr, or nothing where none is :func:`shown`; lines of the log don't break it.

    Args:
        iterable: what is gone through, ``for image in bar(images, "Reading images")``; None where the steps are
            counted by hand, ``with bar(None, "Reading images", 20) as steps: steps.update()``.
        what: the words before the bar.
        total: number of steps, where ``iterable`` has no length.
        done: how many of them were done before; the time is reckoned from the others.
        stays: show it at once and leave it there at the end. Else it comes after a second and goes when it is full.
    """
    made = tqdm(
        iterable, what, total, stays, sys.stderr, disable=not shown(), initial=done, delay=0 if stays else 1,
        smoothing=0, dynamic_ncols=True, bar_format=FORMAT,
    )  # fmt: skip
    if not made.disable:
        _open.add(made)
        for handler in logging.getLogger().handlers:
            handler.addFilter(_make_room)
    return made


def _make_room(record: logging.LogRecord) -> bool:
    """Takes the bars away before a line is written; they come again with the next step."""
    for one in _open:
        one.clear()
    return True
