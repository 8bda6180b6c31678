# SPDX-License-Identifier: Apache-2.0
"""Whole runs that are stopped by signals and killed, in this process or in a forked one, and started again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dual_skd import TrainingResult
from dual_skd.api.results import last_words
from dual_skd.errors import input_error_behind
from dual_skd.runs.checkpoint import Checkpoints

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks this process")
# model.safetensors is left out: the order of its header is drawn anew in every process
WRITTEN = ("models/model.pt", "models/auxiliary.pt", "metrics.json", "predictions_validation.csv", "datalist.json",
           "selection_report.csv")  # fmt: skip


def same(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def assert_equal_runs(whole: Path, parts: Path) -> None:
    states = [torch.load(folder / "last.pt", weights_only=True) for folder in (whole, parts)]
    assert states[0].keys() == states[1].keys()
    assert [key for key in states[0] if key not in ("run", "record") and not same(states[0][key], states[1][key])] == []
    for name in WRITTEN:
        first, second = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (whole, parts))
        assert first == second, name


def stop_at(patch: pytest.MonkeyPatch, iteration: int, number: int) -> None:
    """Makes every trainer send its process a signal in one iteration."""
    attach = Checkpoints._attach

    def attach_and_stop(self, trainer):
        attach(self, trainer)
        trainer.add_event_handler(Events.ITERATION_STARTED(once=iteration), lambda: os.kill(os.getpid(), number))

    patch.setattr(Checkpoints, "_attach", attach_and_stop)


@pytest.fixture(scope="module")
def settings(tiny):
    """All stages, with loader processes: nothing is kept in memory."""
    return tiny | {"epochs": 3, "method": "dual", "label_free_epochs": 1, "fine_tune_epochs": 1, "cache": "none",
                   "key_metric": "macro_auc", "patience": 2}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, run, settings) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run("train.json", **settings, num_workers=0, output_dir=str(folder))
    return folder


def test_a_run_killed_in_every_stage_equals_one_that_ran_through(tmp_path, run, settings, whole, monkeypatch):
    arguments = settings | {"output_dir": str(tmp_path), "num_workers": 2, "checkpoint_minutes": 0}
    for iteration, number in ((2, signal.SIGKILL), (5, signal.SIGTERM), (6, signal.SIGKILL), (8, signal.SIGINT)):
        child = os.fork()
        if child == 0:
            stop_at(monkeypatch, iteration, number)
            try:
                run("train.json", **arguments)
            except SystemExit as stopped:
                os._exit(stopped.code)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == (-9 if number == signal.SIGKILL else 128 + number)
    run("train.json", **arguments)
    assert_equal_runs(whole, tmp_path)

    # TensorBoard shows every iteration and epoch once, with the values of the run that ran through
    curves = []
    for folder in (whole, tmp_path):
        events = EventAccumulator(str(folder / "tensorboard")).Reload()
        curves.append({tag: [(event.step, event.value) for event in events.Scalars(tag)]
                       for tag in events.Tags()["scalars"]})  # fmt: skip
    assert [step for step, _ in curves[0]["train_loss"]] == list(range(1, 10))
    assert curves[0] == curves[1]


def test_the_number_of_loader_processes_does_not_change_a_bit(tmp_path, run, settings, whole):
    run("train.json", **settings, num_workers=1, output_dir=str(tmp_path))
    assert_equal_runs(whole, tmp_path)


def test_a_run_with_two_learning_networks_goes_on_by_resume_json_too(tmp_path, run, tiny, caplog):
    arguments = tiny | {"epochs": 2, "method": "mutual"}
    run("train.json", **arguments, output_dir=str(tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        stop_at(patch, 4, signal.SIGTERM)
        run("train.json", **arguments, output_dir=str(tmp_path / "parts"))
    assert stopped.value.code == 143
    with caplog.at_level(logging.INFO, logger="dual_skd"):
        caplog.clear()
        run("train.json", "resume.json", **arguments, output_dir=str(tmp_path / "parts"))
    assert "Going on from" in caplog.text and "First weights" not in caplog.text  # which a new run says
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    record = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert [epoch["epoch"] for epoch in record["timings"]["epochs"]] == [1, 2] and record["finished"]


def test_a_finished_run_is_not_trained_again(tmp_path, tmp_path_factory, run, tiny, caplog, capsys, monkeypatch):
    arguments = tiny | {"output_dir": str(tmp_path)}
    run("train.json", **arguments)
    names = (*WRITTEN, "run.json", "last.pt")
    before = [(tmp_path / name).read_bytes() for name in names]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    run("train.json", **arguments)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times and not list(Path().iterdir())
    assert "holds this run, finished after 3 iterations: nothing is left to train." in caplog.text
    assert capsys.readouterr().out.endswith(last_words(TrainingResult(tmp_path)) + "\n")
    with pytest.raises(Exception) as caught:
        run("train.json", **arguments | {"epochs": 2, "seed": 3})
    assert "other settings: epochs 1, now 2; seed 0, now 3" in str(input_error_behind(caught.value))
    assert [(tmp_path / name).read_bytes() for name in names] == before
    run("train.json", **arguments | {"seed": 3}, fresh=True)
    assert [(tmp_path / "former_1" / name).read_bytes() for name in names] == before
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 3


def test_there_has_to_be_a_checkpoint_for_resume_json(tmp_path, run, tiny):
    with pytest.raises(Exception) as caught:
        run("train.json", "resume.json", **tiny, output_dir=str(tmp_path))
    assert "No checkpoint" in str(input_error_behind(caught.value)) and not list(tmp_path.iterdir())
