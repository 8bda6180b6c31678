# SPDX-License-Identifier: Apache-2.0
"""Nothing leaves the computer, and nothing is left in HOME or TMPDIR that docs/privacy.md doesn't name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dual_skd
from dual_skd.serving.export.formats import FORMATS

PACKAGES = Path(dual_skd.__file__).parents[1]
# Python imports it first in every process: notes each address that is looked up or connected to, a socket file aside
WATCH = """
import os, sys

def watch(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if args[0].family.name == "AF_UNIX":
            return
    elif event not in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        return
    with open(os.environ["WATCHED"], "a") as file:
        print(event, sys.argv, args[1:], file=file)

sys.addaudithook(watch)
"""
# every step in one process, which takes less time than a process each; export starts processes of its own
STEPS = """
import json, sys
from dual_skd.cli.dispatch import main

data, out, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
where = ["--dataset-dir", data, "--output-dir", out, "--device", "cpu", "--num-workers", "0"]
assert main(["train", *where, *options]) == 0
assert main(["evaluate", *where]) == 0
assert main(["predict", data + "/images", "--model", out]) == 0  # by PyTorch
assert main(["export", out, "--formats", sys.argv[4], "--seconds", "0.01"]) == 0
assert main(["predict", data + "/images", "--model", out]) == 0  # by ONNX Runtime, where it is installed
from dual_skd.serving.predictor import load_predictor
print(load_predictor(out).runtime)
"""


@pytest.fixture
def watched(tmp_path):
    """Runs Python code in a process with a HOME and a TMPDIR of its own; returns its output and the files in both."""
    for name in ("home", "tmp", "watch"):
        (tmp_path / name).mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    log = tmp_path / "addresses.txt"
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")}
    paths = os.pathsep.join([str(tmp_path / "watch"), str(PACKAGES)])
    own = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "tmp", "PYTHONPATH": paths, "WATCHED": log}

    def run(code: str, *arguments: str) -> tuple[str, set[str], str]:
        environment = kept | {name: str(value) for name, value in own.items()}
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        left = {str(path.relative_to(tmp_path)) for name in ("home", "tmp") for path in (tmp_path / name).rglob("*")
                if path.is_file()}  # fmt: skip
        return done.stdout, left, log.read_text() if log.is_file() else ""

    return run


def test_the_watch_sees_what_it_has_to(watched):
    code = "import socket, contextlib\nwith contextlib.suppress(OSError): socket.create_connection(('127.0.0.1', 9), 1)"
    assert "socket.getaddrinfo" in (seen := watched(code)[2]) and "socket.connect" in seen


def test_no_step_connects_to_anything_or_leaves_an_identifier(watched, demo, tiny, tmp_path):
    names = ("image_size", "epochs", "batch_size", "large", "large_options", "pretrained", "small", "small_options")
    options = [word for name in names for word in (f"--{name.replace('_', '-')}", str(tiny[name]))]
    options += ["--method", "single"]  # no auxiliary, which would take as many processes again
    kind = "torchscript" if FORMATS["onnx"].obstacle() else "onnx"
    said, left, addresses = watched(STEPS, str(demo), str(tmp_path / "run"), json.dumps(options), kind)
    assert addresses == ""
    fonts = {name for name in left if name.startswith("home/.cache/matplotlib/fontlist-")}
    assert len(fonts) == 1 and left - fonts == {"home/.cache/dual_skd/signatures.sqlite"}
    assert said.splitlines()[-1] == ("ONNX Runtime" if kind == "onnx" else "PyTorch")


@pytest.mark.skipif(bool(FORMATS["openvino_int8"].obstacle()), reason=FORMATS["openvino_int8"].obstacle())
def test_openvino_leaves_no_identifier(watched):
    assert watched("import dual_skd, openvino, nncf")[1:] == (set(), "")


def test_what_the_user_has_set_stays(watched):
    code = "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '0'; import dual_skd; print(os.environ['{}'])"
    assert watched(code.format("ORT_DISABLE_TELEMETRY"))[0] == "0\n"
    assert watched(code.format("HF_HUB_DISABLE_TELEMETRY"))[0] == "1\n"
