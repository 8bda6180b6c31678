# SPDX-License-Identifier: Apache-2.0
"""The trials of faults find what a fault would leave: damage, drafts, other content, processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image

from scripts.measure.faults import run
from scripts.measure.faults.bench import ROWS
from scripts.measure.faults.files import damaged, differences, digests
from scripts.measure.faults.process import Started


@pytest.fixture
def left(tmp_path):
    """Files as a command leaves them."""
    folder = tmp_path / "left"
    folder.mkdir()
    torch.save({"weight": torch.arange(100.0), "place": [1, "a"]}, folder / "model.pt")
    (folder / "run.json").write_text(json.dumps({"folder": str(folder)}))
    (folder / "table.csv").write_text("a,b\n1,2\n")
    (folder / "page.html").write_text("<html></html>\n")
    Image.effect_noise((64, 64), 50).save(folder / "plot.png")
    return folder


@pytest.mark.parametrize("name", ["model.pt", "run.json", "table.csv", "page.html", "plot.png"])
def test_a_file_that_is_cut_short_is_found(left, name):
    assert damaged(left) == []
    path = left / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    assert [one.split()[0] for one in damaged(left)] == [name]
    path.write_bytes(b"")
    assert [one.split()[0] for one in damaged(left)] == [name]


def test_the_same_content_in_another_folder_is_the_same_and_a_changed_bit_is_not(left, tmp_path):
    expected, compared = digests(left), {"model.pt", "run.json"}
    moved = left.rename(tmp_path / "moved")
    (moved / "run.json").write_text(json.dumps({"folder": str(moved)}))
    assert differences(expected, digests(moved), compared) == []
    states = torch.load(moved / "model.pt", weights_only=True)
    states["weight"][7] += 1e-6
    torch.save(states, moved / "model.pt")
    (moved / "table.csv.tmp").touch()
    (moved / "page.html").unlink()
    found = differences(expected, digests(moved), compared)
    assert found == ["page.html is missing", "table.csv.tmp is left over", "model.pt differs"]


@pytest.mark.skipif(sys.platform != "linux", reason="forks this process")
def test_a_command_is_stopped_and_what_it_leaves_running_is_found(tmp_path):
    started = Started(tmp_path, ["timeit", "-n", "1", "-r", "1", "import time; time.sleep(60)"])
    assert started.wait_for(0.5) is None
    started.send(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL and started.left_behind(0) == []

    def leave() -> None:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    started = Started(tmp_path, ["timeit", "-n", "1", "-r", "1", "print('said')"], first=leave)
    assert started.wait() == 0 and "said" in started.said()
    (name,) = started.left_behind(0)
    assert "sleep(60)" in name and started.members() == []
    assert os.getpid() != started.pid


def test_faults_are_listed_with_what_should_happen(tmp_path, capsys):
    assert run.main(["--work", str(tmp_path / "work"), "--only", "^train: kill", "--list"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("train: kill -9: ") and "no draft" in said and said.count("\n") == 1
    assert len(ROWS) > 60 and not (tmp_path / "work").exists()
