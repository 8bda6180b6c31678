# SPDX-License-Identifier: Apache-2.0
"""What all tests share: one thread, signals that arrive, forks first, a cache of their own, and a terminal."""

from __future__ import annotations

import io
import logging
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from hypothesis import settings

pytest_plugins = ["run_folders", "small_models"]  # of tests/helpers

torch.set_num_threads(1)  # networks here are so small that threads only cost time, and one thread sums in one order

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell starts its background jobs so
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("busy machine", deadline=None)  # the first example may import MONAI beside other tests
settings.load_profile("busy machine")

FORKING = ("test_distributed.py", "test_resume.py", "test_checkpoints.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that train in forked processes come first: once PyTorch's autograd has threads, a fork can't use it."""
    items.sort(key=lambda item: item.path.name not in FORKING)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Signatures of images and unpacked archives stay out of the user's cache folder, and none is found there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def same_log():
    """Commands set the log up; a test leaves it as it was."""
    loggers = [logging.getLogger(name) for name in ("", "dual_skd", "ignite")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """The lines that stand on it in the end."""
        lines = []
        for line in self.getvalue().split("\n"):
            row = ""
            for text in line.split("\r"):
                row = text + row[len(text) :]
            lines.append(row.rstrip())
        return lines


@pytest.fixture
def terminal(monkeypatch, caplog) -> Iterator[Terminal]:
    """A terminal that bars and the log of this package are shown on."""
    made = Terminal()
    monkeypatch.setattr("dual_skd.utils.progress.sys", SimpleNamespace(stderr=made))
    caplog.set_level(logging.INFO, logger="dual_skd")
    console = logging.StreamHandler(made)
    logging.getLogger().addHandler(console)
    yield made
    logging.getLogger().removeHandler(console)
