# SPDX-License-Identifier: Apache-2.0
"""Runs the bundle in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from dual_skd.cli.learning_curve import last_error
from scripts import ROOT


class CellFailed(Exception):
    """A run ended with an error; the message is its last line."""


class Processes:
    """Runs each cell in a process of its own, with one thread, and can end those that are running.

    The imports take longer than an epoch. So one process imports everything, waits for cells, one a line, and forks for
    each. Where forking isn't safe it runs the first cell itself, and the next cell gets a new process.
    """

    # what `python -m monai.bundle run` calls, and what it imports of other packages: ours as it is when a cell starts
    IMPORTS = "import timm, torch.utils.tensorboard, SimpleITK; from monai.bundle import run"
    # the child leaves the loop and ends as any program does
    CODE = """
import json, os, sys
for line in sys.stdin:
    if sys.platform != "linux" or not os.fork():
        break
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
else:
    sys.exit()
runs, log = json.loads(line)
log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
os.dup2(log, 1), os.dup2(log, 2)
for each in runs:
    run(**each)
"""
    # keeps freed memory instead of giving it back to the system at every step: a tenth faster with glibc, else ignored
    MEMORY: ClassVar = {
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "4294967296",
        "MALLOC_TOP_PAD_": "268435456",
    }

    def __init__(self) -> None:
        self.running: set[subprocess.Popen] = set()
        self.waiting: list[subprocess.Popen] = []

    def __call__(self, runs: list[dict[str, Any]], log: Path) -> None:
        """Runs ``run(**each)`` one after the other with the output in ``log``; CellFailed has the last line of it."""
        process = self.waiting.pop() if self.waiting else self._start(log)
        self.running.add(process)
        try:
            process.stdin.write(json.dumps([runs, str(log)]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:  # it ended while it waited
            answer = ""
        self.running.discard(process)
        if answer:
            self.waiting.append(process)
        code = int(answer) if answer else process.wait()
        if code:
            raise CellFailed(last_error(log) or f"exit code {code}")

    def _start(self, log: Path) -> subprocess.Popen:
        env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | self.MEMORY
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "bundle"), *filter(None, [os.environ.get("PYTHONPATH")])])
        command = [sys.executable, "-c", self.IMPORTS + self.CODE]
        pipe = subprocess.PIPE
        with log.open("w", encoding="utf-8") as file:
            return subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=file, text=True, start_new_session=True
            )

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what still runs, with its children: nothing, unless the program was interrupted."""
        for process in [*self.running, *self.waiting]:
            with contextlib.suppress(ProcessLookupError):
                # a session of its own is a group of its own; a cell starts again, so it has nothing to save on SIGTERM
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.running.clear()
        self.waiting.clear()
