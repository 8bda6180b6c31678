# SPDX-License-Identifier: Apache-2.0
"""The loop that classifies studies as they arrive, with a stand-in for inference and for DCMTK."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from scripts import ROOT

SCRIPT = ROOT / "scripts" / "release" / "watch_studies.sh"
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses GNU find and mv")
INFERENCE = """#!/bin/sh
while [ "$1" != --output_dir ]; do shift; done
run=$2 study=$4
case $study in *broken*) echo "Error: not an image" >&2; exit 1 ;; esac
mkdir -p "$run/sr"; echo image,predicted >"$run/predictions.csv"
case $study in *silent*) ;; *) echo new >"$run/sr/0123456789abcdef.dcm" ;; esac
"""


def program(folder, name, content):
    path = folder / name
    path.write_text(content)
    path.chmod(0o755)


def test_a_study_is_done_when_its_report_is_stored_and_else_failed(tmp_path):
    program(tmp_path, "python", INFERENCE)
    program(tmp_path, "storescu", f'#!/bin/sh\necho "$@" >>"{tmp_path}/stored"\n')
    base, run = tmp_path / "studies", tmp_path / "run"
    for name in ("good one", "broken", "silent"):
        (base / "incoming" / name).mkdir(parents=True)
        (base / "incoming" / name / "1.dcm").write_text("image")
    (run / "sr").mkdir(parents=True)
    (run / "sr" / "fedcba9876543210.dcm").write_text("a report of before")
    os.utime(run / "sr" / "fedcba9876543210.dcm", (1, 1))
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "QUIET": "0", "PAUSE": "0.1"}
    loop = subprocess.Popen(["sh", SCRIPT, base, run, "localhost", "104", "PACS"], env=env, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while len([*base.glob("done/*"), *base.glob("failed/*")]) < 3 and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        loop.terminate()
        loop.wait(10)
    (done,) = base.glob("done/*")
    assert done.name.startswith("good one.")
    assert {path.name for path in done.iterdir()} == {
        "1.dcm", "0123456789abcdef.dcm", "log.txt", "predictions.csv", "started"
    }  # fmt: skip
    work = base / "working" / done.name
    assert (tmp_path / "stored").read_text() == f"-aet DUALSKD -aec PACS localhost 104 {work}/0123456789abcdef.dcm\n"
    assert [path.name for path in (run / "sr").iterdir()] == ["fedcba9876543210.dcm"]
    failed = {path.name.split(".")[0]: path for path in base.glob("failed/*")}
    assert failed.keys() == {"broken", "silent"}
    assert "not an image" in (failed["broken"] / "log.txt").read_text()
