# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from dual_skd.serving.export.scratch import scratch_folder

pytest.importorskip("fcntl")
PREFIX = "dual_skd_export_"
WORKING = """
import sys, time
from dual_skd.serving.export.scratch import scratch_folder
with scratch_folder("dual_skd_export_") as folder:
    (folder / "images.npy").write_text("a patient")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def names(folder) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.startswith(PREFIX))


def test_what_a_killed_export_left_is_removed_by_the_next_and_what_is_in_use_stays(tmp_path):
    processes = [subprocess.Popen([sys.executable, "-c", WORKING], stdout=subprocess.PIPE, text=True) for _ in "ab"]
    killed, working = (process.stdout.readline().strip() for process in processes)
    processes[0].send_signal(signal.SIGKILL)
    processes[0].wait()
    assert os.stat(killed).st_mode & 0o777 == 0o700 and len(names(tmp_path)) == 2
    with scratch_folder(PREFIX) as folder:
        assert names(tmp_path) == sorted([os.path.basename(working), folder.name])
    assert names(tmp_path) == [os.path.basename(working)]
    processes[1].send_signal(signal.SIGKILL)
    for process in processes:
        process.communicate()


def test_links_and_folders_of_others_or_without_a_lock_stay(tmp_path, monkeypatch):
    (tmp_path / "precious").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "precious")
    (tmp_path / f"{PREFIX}young").mkdir()
    (tmp_path / f"{PREFIX}file").write_text("")
    (tmp_path / f"{PREFIX}old").mkdir()
    long_ago = time.time() - 7200
    os.utime(tmp_path / f"{PREFIX}old", (long_ago, long_ago))
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    with scratch_folder(PREFIX):
        assert len(names(tmp_path)) == 5
    monkeypatch.setattr(os, "getuid", lambda: user)
    with scratch_folder(PREFIX):
        assert (tmp_path / "precious").is_dir()
    assert names(tmp_path) == [f"{PREFIX}{name}" for name in ("file", "link", "young")]
