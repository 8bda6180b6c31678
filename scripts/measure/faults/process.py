# SPDX-License-Identifier: Apache-2.0
"""A command in a process of its own, whose imports are done."""

from __future__ import annotations

import atexit
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

import psutil

from scripts import ROOT

SECONDS = 600.0  # that a command may take; a tiny one takes ten, on a busy computer more
LOG = "output.log"
IMPORTED = """
    sqlite3 encodings.utf_8_sig multiprocessing.popen_fork multiprocessing.resource_sharer
    matplotlib.pyplot SimpleITK timm monai.bundle monai.handlers
    torch.utils.tensorboard torch.utils.flop_counter
    dual_skd.api.functions dual_skd.api.results dual_skd.cli.check_page dual_skd.cli.check dual_skd.cli.dispatch
    dual_skd.cli.export dual_skd.cli.predict dual_skd.data.checking.findings dual_skd.evaluation.report.writer
    dual_skd.evaluation.analysis dual_skd.runs.workflow dual_skd.runs.checkpoint dual_skd.runs.recorder
    dual_skd.runs.best_model dual_skd.serving.torch_predictor dual_skd.training.trainer dual_skd.training.start
""".split()


class Started:
    """A command that runs, in a session of its own.

    Args:
        folder: where it runs, and where its output goes to :data:`LOG`.
        words: what stands after ``python -m``.
        env: variables beside those of this process; None takes one away.
        first: called in the new process before the command.
        fresh: starts Python anew instead of forking: for faults that its start or the imports would meet.
        streams: closed in the new process, of 0, 1 and 2.
    """

    def __init__(
        self,
        folder: Path,
        words: Sequence[str],
        *,
        env: Mapping[str, str | None] | None = None,
        first: Callable[[], object] | None = None,
        fresh: bool = False,
        streams: Sequence[int] = (),
    ) -> None:
        self.folder = folder
        self.log_start = log.stat().st_size if (log := folder / LOG).is_file() else 0
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        temporary.chmod(0o777)
        env = {"TMPDIR": str(temporary), **(env or {})}
        sys.stdout.flush(), sys.stderr.flush()
        self.pid = os.fork()
        self.code: int | None = None
        self._said: str | None = None
        if self.pid == 0:
            _become(folder, list(words), env, first, fresh, streams)

    def poll(self) -> int | None:
        """The exit code, as :mod:`subprocess` has it; None while the command runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code, self._said = os.waitstatus_to_exitcode(status), self.said()
        return self.code

    def wait(self, seconds: float = SECONDS, until: Callable[[], bool] = lambda: False) -> int | None:
        """Waits for the end, or until something else; None if that comes first, -9 for a command that was too slow."""
        end = time.monotonic() + seconds
        while self.poll() is None and not until():
            if time.monotonic() > end:
                self.kill()
                return -signal.SIGKILL
            time.sleep(0.01)
        return self.code

    def wait_for(self, seconds: float) -> int | None:
        """Waits so long, or until it ends."""
        end = time.monotonic() + seconds
        return self.wait(until=lambda: time.monotonic() >= end)

    def send(self, number: int) -> None:
        """Sends the command itself a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the command and all processes that it started."""
        for one in self.members():
            one.kill()
        while self.poll() is None:
            time.sleep(0.01)

    def members(self) -> list[psutil.Process]:
        """The processes of its session that haven't ended."""
        found = []
        for one in psutil.process_iter():
            try:
                if os.getsid(one.pid) == self.pid and one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
            except (OSError, psutil.Error):  # it has just ended
                continue
        return found

    def left_behind(self, seconds: float = 15.0) -> list[str]:
        """Command lines of the processes that outlive it, which are ended then."""
        end = time.monotonic() + seconds
        while (left := self.members()) and time.monotonic() < end:
            time.sleep(0.1)
        names = [" ".join(one.cmdline())[-80:] for one in left]
        for one in left:
            one.kill()
        psutil.wait_procs(left, timeout=5)
        return names

    def said(self) -> str:
        """What it wrote."""
        if self._said is not None:
            return self._said
        log = self.folder / LOG
        return log.read_bytes()[self.log_start :].decode(errors="replace") if log.is_file() else ""


def _become(
    folder: Path, words: list[str], env: Mapping[str, str | None], first: Callable[[], object] | None, fresh: bool,
    streams: Sequence[int],
) -> None:  # fmt: skip
    """Makes this forked process the command; never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.closerange(3, 64)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        for name, value in env.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        if first is not None:
            first()
        for number in streams:
            os.close(number)
        if fresh:
            paths = (str(ROOT), str(ROOT / "bundle"), os.environ.get("PYTHONPATH", ""))
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
            os.execv(sys.executable, [sys.executable, "-m", *words])  # noqa: S606 - a shell would change the words
        code = _run(words)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            atexit._run_exitfuncs()
            sys.stdout.flush(), sys.stderr.flush()
        finally:
            os._exit(code)


def _run(words: list[str]) -> int:
    tempfile.tempdir = None
    sys.argv = words
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
            return 1
        return end.code or 0
    except BaseException as error:
        try:
            sys.excepthook(type(error), error, error.__traceback__)
        except SystemExit as end:  # which is how a hook sets the exit code
            return end.code
        return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def import_all() -> None:
    """Imports what commands use, so that forked processes have it; starts no threads."""
    for name in IMPORTED:
        import_module(name)


def as_nobody() -> None:
    """Makes a root process one of a user without rights, since root may write anywhere."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def own_mounts() -> None:
    """Gives this process mounts of its own; what it mounts then is gone with it."""
    os.unshare(os.CLONE_NEWNS) if hasattr(os, "unshare") else _unshare()
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _unshare() -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(0x00020000):  # CLONE_NEWNS; os.unshare is there from Python 3.12
        raise OSError(ctypes.get_errno(), "unshare")


def mount_small(folder: str, size: str) -> None:
    """Mounts a file system in memory, of that size, over a folder, for this process and its own alone."""
    own_mounts()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], check=True)
