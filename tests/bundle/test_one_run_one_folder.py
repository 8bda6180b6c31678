# SPDX-License-Identifier: Apache-2.0
"""Every command that writes into an output_dir takes it first, and gives it back however it ends."""

from __future__ import annotations

import os
import shutil

import pytest

import dual_skd
from dual_skd.cli.dispatch import main
from dual_skd.errors import InputError, sentence_of
from dual_skd.evaluation.report import write_report
from dual_skd.runs import lock
from dual_skd.serving.export.export import export

fcntl = pytest.importorskip("fcntl")
COMMANDS = {
    "training": lambda folder, run, tiny: run("train.json", **tiny, output_dir=folder),
    "evaluating": lambda folder, run, tiny: run("evaluate.json", output_dir=folder),
    "inference": lambda folder, run, tiny: run("inference.json", output_dir=folder, dataset_dir=tiny["dataset_dir"]),
    "dual_skd.train": lambda folder, run, tiny: dual_skd.train(**tiny, output_dir=folder, num_workers=0),
    "dual_skd.evaluate": lambda folder, run, tiny: dual_skd.evaluate(folder, num_workers=0, report=False),
    "report": lambda folder, run, tiny: write_report(folder),
    "export": lambda folder, run, tiny: export(folder),
    "export elsewhere": lambda folder, run, tiny: export(os.path.dirname(folder) + "/run", folder),
}


@pytest.fixture
def folder(trained, tmp_path) -> str:
    """A finished run, and a copy that another process seems to have."""
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(trained, tmp_path / "taken")
    descriptor = os.open(tmp_path / "taken" / lock.LOCK, os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield str(tmp_path / "taken")
    os.close(descriptor)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_another_command_has_is_refused_and_nothing_in_it_changes(folder, run, tiny, command):
    def state():
        return sorted((entry.path, entry.stat().st_mtime_ns) for entry in os.scandir(folder))

    before = state()
    with pytest.raises(Exception) as caught:
        COMMANDS[command](folder, run, tiny)
    assert sentence_of(caught.value).startswith(f"{folder} is in use by another process; wait for it, or give")
    assert state() == before and not lock._held


def test_a_curve_takes_its_folder(folder, tiny, capsys):
    assert main(["learning-curve", tiny["dataset_dir"], "-o", folder]) == 1
    assert f"{folder} is in use by another process" in capsys.readouterr().err


def test_commands_after_one_another_in_one_process_need_the_folder_each_and_leave_it_free(trained, tiny, run, tmp_path):
    folder = str(shutil.copytree(trained, tmp_path / "run"))
    for _ in "ab":
        run("inference.json", output_dir=folder, dataset_dir=tiny["dataset_dir"])
        assert not lock._held and not (tmp_path / "run" / lock.LOCK).exists()
    with lock.held(folder, "report"):
        dual_skd.evaluate(folder, num_workers=0, report=False)


def test_a_run_that_fails_gives_its_folder_back_and_leaves_no_new_one(tiny, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        dual_skd.train(**tiny | {"dataset_dir": str(tmp_path / "nowhere")}, output_dir=str(tmp_path / "new"))
    assert not lock._held and not os.listdir(tmp_path)
