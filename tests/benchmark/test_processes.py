# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from scripts import TRAIN
from scripts.benchmark.processes import CellFailed, Processes


def test_a_run_in_its_own_process_gives_its_last_error_line(tmp_path):
    with Processes() as execute:
        config = str(TRAIN)
        places = {"dataset_dir": str(tmp_path / "nowhere"), "output_dir": str(tmp_path), "device": "cpu"}
        for name in ("log.txt", "again.txt"):  # a failed cell doesn't harm the process that the next one comes from
            with pytest.raises(CellFailed, match=r"^Error: The data set .*nowhere does not exist"):
                execute([{"run_id": "training", "config_file": config, **places}], tmp_path / name)
        assert not execute.running
        processes = list(execute.waiting)
        assert len(processes) == (1 if sys.platform == "linux" else 0)
    assert all(process.returncode is not None for process in processes)


@pytest.fixture
def quick():
    """Processes with a ``run`` that needs no imports."""
    execute = Processes()
    execute.IMPORTS = """
def run(name):
    print(name, os.environ["MALLOC_TOP_PAD_"], os.environ["OMP_NUM_THREADS"], flush=True)
    if name == "killed": os.kill(os.getpid(), 9)
    if name == "endless": import time; time.sleep(60)
"""
    with execute:
        yield execute


def test_cells_are_forked_from_one_process_with_one_thread_and_memory_that_is_kept(quick, tmp_path):
    for name in "ab":
        quick([{"name": name}, {"name": name.upper()}], tmp_path / f"{name}.txt")
        assert (tmp_path / f"{name}.txt").read_text() == f"{name} 268435456 1\n{name.upper()} 268435456 1\n"
    with pytest.raises(CellFailed, match="^killed 268435456 1$"):
        quick([{"name": "killed"}, {"name": "never"}], tmp_path / "c.txt")
    assert "never" not in (tmp_path / "c.txt").read_text()


def test_leaving_ends_the_cells_that_run(quick, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        cell = pool.submit(quick, [{"name": "endless"}], tmp_path / "log.txt")
        while not ((tmp_path / "log.txt").is_file() and "endless" in (tmp_path / "log.txt").read_text()):
            time.sleep(0.02)
        quick.__exit__()
        with pytest.raises(CellFailed):
            cell.result(timeout=10)
