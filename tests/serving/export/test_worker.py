# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import subprocess
import sys
import time

import psutil
import pytest

from dual_skd.serving.export.worker import WorkerFailed, run_module

PROGRAMS = {
    "import os; os.abort()": "crashed (SIGABRT)",
    "import time; time.sleep(60)": "took more than 5 s and was ended",
    "import sys; print('noise'); sys.exit('no such thing')": "no such thing",
    "print('Error: early'); raise ValueError('what it was')": "ValueError: what it was",
    "import sys; sys.exit(3)": "ended without a message",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_whatever_ends_a_process_is_one_line(tmp_path, program):
    (tmp_path / "program.py").write_text(program)
    with pytest.raises(WorkerFailed, match=re.escape(PROGRAMS[program])) as found:
        run_module("program", [], work=tmp_path, seconds=5)
    assert "\n" not in str(found.value)


def test_arguments_threads_and_this_package_reach_the_process(tmp_path):
    (tmp_path / "program.py").write_text(
        "import os, sys, dual_skd, pathlib\n"
        "pathlib.Path('seen').write_text(' '.join([*sys.argv[1:], os.environ['OMP_NUM_THREADS'], dual_skd.__file__]))"
    )
    run_module("program", ["one", "$(two)"], work=tmp_path, seconds=60, threads=2)
    import dual_skd

    assert (tmp_path / "seen").read_text() == f"one $(two) 2 {dual_skd.__file__}"


def test_a_worker_ends_with_the_process_that_started_it(tmp_path):
    (tmp_path / "program.py").write_text(
        "import os, pathlib, time\n"
        "from dual_skd.serving.export.worker import end_with_parent\n"
        "end_with_parent()\n"
        "pathlib.Path('number.tmp').write_text(str(os.getpid()))\n"
        "os.replace('number.tmp', 'number')\n"
        "time.sleep(300)"
    )
    start = (
        "from dual_skd.serving.export.worker import *\n"
        f"run_module('program', [], work=Path({str(tmp_path)!r}), seconds=300)"
    )
    with subprocess.Popen([sys.executable, "-c", start]) as parent:
        while not (tmp_path / "number").exists():
            assert parent.poll() is None
            time.sleep(0.05)
        worker = psutil.Process(int((tmp_path / "number").read_text()))
        parent.kill()
    psutil.wait_procs([worker], timeout=20)
    assert not worker.is_running()
