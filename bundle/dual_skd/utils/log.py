# SPDX-License-Identifier: Apache-2.0
"""What the package's own commands say on the terminal; ``monai.bundle run`` has configs/logging.conf for it."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from dual_skd.errors import VisibleNames


class _Words(VisibleNames):
    """The message alone; one that warns says so."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.capitalize()}: "
        return level + super().format(record)


def set_up(*, verbose: bool = False, quiet: bool = False) -> None:
    """Sets up the log on stderr: sentences, without names and times.

    Args:
        verbose: also what only explains how the result came about, and what other libraries say.
        quiet: only warnings, and no bars, see :mod:`dual_skd.utils.progress`.
    """
    logging.basicConfig(handlers=[_console()])
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.getLogger("dual_skd").setLevel(level)
    logging.getLogger().setLevel(logging.INFO if verbose else logging.WARNING)
    # ignite reports every error that is shown at the end anyway
    logging.getLogger("ignite").setLevel(logging.INFO if verbose else logging.CRITICAL)
    of_configs = logging.getLogger("monai.bundle.workflows")  # sets its level itself, when it is imported
    (of_configs.removeFilter if verbose else of_configs.addFilter)(_is_error)
    warnings.showwarning = _say  # type: ignore[assignment]


@contextmanager
def shown_in_scripts() -> Iterator[None]:
    """Shows the sentences on stderr while a script runs, if nobody has set up a log; a notebook stays silent."""
    ours, root = logging.getLogger("dual_skd"), logging.getLogger()
    if ours.hasHandlers() or "ipykernel" in sys.modules:
        yield
        return
    console, level = _console(), ours.level
    console.addFilter(lambda record: record.name.startswith("dual_skd") or record.levelno >= logging.WARNING)
    root.addHandler(console)
    ours.setLevel(level or logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(console)
        ours.setLevel(level)


@contextmanager
def silenced(name: str) -> Iterator[None]:
    """Keeps back what a logger, and those below it, would say."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _console() -> logging.Handler:
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(_Words())
    return console


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _say(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning of a library as a line of the log, without the place in its code."""
    level = logging.WARNING if issubclass(category, UserWarning) else logging.DEBUG
    logging.getLogger(__name__).log(level, "%s", " ".join(str(message).split()))
