# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dual_skd.errors import InputError
from dual_skd.runs import lock
from dual_skd.runs.lock import LOCK, held, hold, release, released_afterwards
from dual_skd.utils.files import DRAFT_SUFFIX

fcntl = pytest.importorskip("fcntl")
LOADING = """
    import sys, time
    from dual_skd.runs.lock import hold
    hold(sys.argv[1], "training")
    import torch
    from torch.utils.data import DataLoader, Dataset
    class Slow(Dataset):
        def __len__(self): return 99
        def __getitem__(self, place):
            print("working", flush=True)
            time.sleep(60)
            return place
    for _ in DataLoader(Slow(), num_workers=1, multiprocessing_context="fork"): pass
"""
HOLDING = """
    import sys, time
    from dual_skd.runs.lock import hold
    hold(sys.argv[1], "training")
    print("working", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def nothing_held():
    yield
    for place in list(lock._held):
        release(place)


@pytest.fixture
def another():
    """Starts a process that has taken a folder, and ends it after the test."""
    started = []

    def start(folder: Path, program: str = HOLDING) -> subprocess.Popen:
        command = [sys.executable, "-c", textwrap.dedent(program), str(folder)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout.readline() == "working\n"
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what a loader has started
        process.communicate()


def test_a_folder_is_taken_and_given_back_as_it_was(tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("old", "new"):
        with held(tmp_path / name, "training"):
            content = json.loads((tmp_path / name / LOCK).read_text())
            assert content["pid"] == os.getpid() and content["command"] == "training" and content["host"]
            assert not hold(tmp_path / name, "report")  # of this process too
    assert os.listdir(tmp_path) == ["old"] and not os.listdir(tmp_path / "old")
    with held(tmp_path / "new" / "deep", "training"):
        (tmp_path / "new" / "deep" / "model.pt").write_text("")
    assert os.listdir(tmp_path / "new" / "deep") == ["model.pt"]


def test_another_process_is_told_who_has_it_and_goes_on_at_once_when_that_is_killed(tmp_path, another):
    process = another(tmp_path)
    with pytest.raises(InputError) as caught:
        hold(tmp_path, "evaluating")
    holder = rf"process {process.pid} \(training, since \d{{4}}-\d\d-\d\d \d\d:\d\d, host .+\)"
    sentence = rf"{tmp_path} is in use by {holder}; wait for it, or give another folder \(output_dir\)\."
    assert re.fullmatch(sentence, str(caught.value))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert hold(tmp_path, "evaluating")


def test_a_holder_that_has_not_said_who_it_is_is_another_process(tmp_path, another):
    another(tmp_path)
    (tmp_path / LOCK).write_text("")
    with pytest.raises(InputError, match="in use by another process; wait"):
        hold(tmp_path, "evaluating")


def test_processes_of_a_loader_that_outlive_a_killed_one_do_not_keep_its_folder(tmp_path, another):
    process = another(tmp_path, LOADING)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert hold(tmp_path, "training")
    os.killpg(process.pid, 0)  # the loader's process still works


def test_a_forked_process_that_ends_leaves_the_lock_of_its_parent(tmp_path):
    hold(tmp_path, "training")
    child = os.fork()
    if child == 0:
        lock._release_all()
        os._exit(0)
    os.waitpid(child, 0)
    other = "import sys; from dual_skd.runs.lock import hold; hold(sys.argv[1], 'report')"
    done = subprocess.run([sys.executable, "-c", other, tmp_path], capture_output=True, text=True, check=False)
    assert f"in use by process {os.getpid()}" in done.stderr


def test_a_file_that_its_last_holder_removes_meanwhile_is_no_lock(tmp_path, monkeypatch):
    path, flock, raced = tmp_path / LOCK, fcntl.flock, []

    def while_it_is_removed(descriptor, how):
        if not raced:
            path.unlink()
            raced.append(descriptor)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", while_it_is_removed)
    descriptor = lock.lock_file(path)
    assert os.path.samestat(os.fstat(descriptor), path.stat())
    os.close(descriptor)


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert hold(tmp_path, "training")
    assert f"{tmp_path / LOCK} can't be locked (No locks available): let no other command" in caplog.text


def test_of_processes_that_train_together_the_first_takes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert not hold(tmp_path, "training") and not os.listdir(tmp_path)


def test_a_block_gives_back_what_was_taken_in_it_and_no_more(tmp_path):
    hold(tmp_path / "a", "training")
    with released_afterwards(), pytest.raises(KeyError):
        hold(tmp_path / "b", "training")
        raise KeyError
    with released_afterwards():
        hold(tmp_path / "b", "training")
    assert os.listdir(tmp_path) == ["a"]


def test_drafts_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    for place in ("a", "models/a", "report/plots/a"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        for ending in (DRAFT_SUFFIX, ".tmp"):
            (tmp_path / (place + ending)).write_text("")
    with held(tmp_path, "training"):
        assert not list(tmp_path.rglob(f"*{DRAFT_SUFFIX}")) and len(list(tmp_path.rglob("*.tmp"))) == 3


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("text")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "victim")
    with pytest.raises(InputError, match=f"{LOCK} can't be written"):
        hold(tmp_path / "run", "training")
    assert (tmp_path / "victim").read_text() == "text"
