# SPDX-License-Identifier: Apache-2.0
"""Runs modules of this package in worker processes: one that crashes or hangs is one line here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

PACKAGES = Path(__file__).resolve().parents[3]  # where dual_skd is found, installed or not


class WorkerFailed(Exception):
    """A worker process failed; the message is one line that says why."""


def run_module(module: str, arguments: Sequence[str], *, work: Path, seconds: float, threads: int = 1) -> None:
    """Runs ``python -m MODULE ARGUMENTS`` and waits for it.

    Args:
        module: of this package.
        arguments: of the command line.
        work: working directory; holds the process's output, ``output.log``, too.
        seconds: after which it is ended.
        threads: for OpenMP, which PyTorch uses.

    Raises:
        WorkerFailed: it ended with an error, by a signal, or took too long.
    """
    paths = os.pathsep.join(filter(None, (str(PACKAGES), os.environ.get("PYTHONPATH", ""))))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads)}
    log = work / "output.log"
    try:
        # into a file: a pipe that a grandchild still holds would make us wait for it
        with log.open("wb") as file:
            done = subprocess.run(  # noqa: S603 - this Python, this package's modules, no shell
                [sys.executable, "-m", module, *arguments], cwd=work, env=environment, stdin=subprocess.DEVNULL,
                stdout=file, stderr=subprocess.STDOUT, timeout=seconds,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise WorkerFailed(f"took more than {seconds:g} s and was ended") from None
    if done.returncode < 0:
        raise WorkerFailed(f"crashed ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        raise WorkerFailed(last_error(log)[:300] or "ended without a message")


def end_with_parent() -> None:
    """Ends this worker soon after the process that started it has ended, killed for instance."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def last_error(log: Path) -> str:
    """The line of a process's output that says why it failed: the last error, else the last line; "" without any."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Failure)\b", line)]
    return (errors or lines or [""])[-1]
