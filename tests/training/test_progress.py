# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from dual_skd.training.progress import EvaluationProgress, TrainingProgress

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"


def pair(losses: list[float], metrics: list[dict[str, float]], interval: int = 1) -> tuple[Engine, Engine]:
    """A trainer of as many iterations per epoch as there are losses, and a validator."""
    trainer = Engine(lambda engine, batch: {"loss": torch.tensor(losses[batch])})
    validator = Engine(lambda engine, batch: None)

    def validate(engine: Engine) -> None:
        validator.state.epoch = engine.state.epoch - 1
        validator.state.max_epochs = engine.state.epoch
        validator.run([0, 1])
        validator.state.metrics = metrics[engine.state.epoch - 1]

    trainer.add_event_handler(Events.EPOCH_COMPLETED(every=interval), validate)
    return trainer, validator


def lines(caplog, level: int = logging.INFO) -> list[str]:
    messages = [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("dual_skd") and record.levelno == level
    ]
    return [re.sub(r"\d+ (s|min)\b", r"T", message) for message in messages]


METRICS = [{"macro_auc": 0.5, "nll": 1.0}, {"nll": 0.75}, {"macro_auc": 0.875, "nll": 0.5}]


def test_in_a_file_every_epoch_is_a_line(caplog, capsys):
    caplog.set_level(logging.DEBUG, logger="dual_skd")
    trainer, validator = pair([1.0, 2.0, float("nan")], METRICS)
    TrainingProgress(validator, "last").attach(trainer)
    trainer.run(range(3), max_epochs=3)
    assert lines(caplog) == [
        "Epoch 1 of 3: loss 1.500, macro AUC 0.500, T, T left.",  # the bad batch counts for nothing
        "Epoch 2 of 3: loss 1.500, T, T left.",  # the AUC isn't defined
        "Epoch 3 of 3: loss 1.500, macro AUC 0.875, T, T left.",
    ]
    assert capsys.readouterr() == ("", "")


def test_a_short_training_begins_with_the_epochs_that_are_advised(caplog):
    caplog.set_level(logging.INFO, logger="dual_skd")
    for epochs in (2, 30):
        trainer, _ = pair([1.0] * 10, METRICS * 10)
        TrainingProgress(advise=True).attach(trainer)
        trainer.run(range(10), max_epochs=epochs)
    found = [line for line in lines(caplog) if "advised" in line]
    assert (
        found == [lines(caplog)[0]] == ["2 epochs of 10 steps: 20 steps in all; 300 or more are advised: --epochs 30."]
    )


def test_a_metric_is_of_the_epoch_that_the_line_names(caplog):
    caplog.set_level(logging.INFO, logger="dual_skd")
    trainer, validator = pair([1.0], METRICS, interval=2)
    TrainingProgress(validator, "nll").attach(trainer)
    trainer.run(range(1), max_epochs=3)
    assert ["NLL" in line for line in lines(caplog)] == [False, True, False]


def test_the_time_that_is_left_is_that_of_all_epochs(caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="dual_skd")
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    trainer, _ = pair([1.0, 1.0], METRICS)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: clock.__setitem__(0, clock[0] + 10))
    TrainingProgress().attach(trainer)
    trainer.run(range(2), max_epochs=3)
    assert [record.getMessage() for record in caplog.records] == [
        "Epoch 1 of 3: loss 1.000, 20 s, 40 s left.",
        "Epoch 2 of 3: loss 1.000, 20 s, 20 s left.",
        "Epoch 3 of 3: loss 1.000, 20 s, 0 s left.",
    ]


def test_a_resumed_run_begins_where_it_is_and_reckons_its_own_time(caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="dual_skd")
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    trainer, _ = pair([1.0, 1.0], METRICS)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: clock.__setitem__(0, clock[0] + 10))
    TrainingProgress().attach(trainer)
    trainer.add_event_handler(  # after the progress, as the checkpoints do
        Events.STARTED, lambda engine: engine.load_state_dict({"iteration": 2, "epoch_length": 2, "max_epochs": 3})
    )
    trainer.run(range(2), max_epochs=3)
    assert [record.getMessage() for record in caplog.records] == [
        "Epoch 2 of 3: loss 1.000, 20 s, 20 s left.",
        "Epoch 3 of 3: loss 1.000, 20 s, 0 s left.",
    ]


def test_on_a_terminal_the_whole_run_is_one_bar(terminal, caplog, monkeypatch):
    for handler in logging.getLogger().handlers:  # of pytest
        if getattr(handler, "stream", terminal) is not terminal:
            monkeypatch.setattr(handler.stream, "isatty", lambda: True, raising=False)
    trainer, validator = pair([1.0, 2.0], METRICS)
    TrainingProgress(validator, "nll").attach(trainer)
    trainer.run(range(2), max_epochs=3)
    last, empty = terminal.screen()
    assert last.startswith("Epoch 3/3 100%|") and last.endswith(" left, loss 1.500, NLL 0.500") and empty == ""
    assert len(last) <= 80 and lines(caplog) == []


def test_early_stopping_is_said_and_ends_the_bar(terminal, caplog):
    trainer, validator = pair([1.0], METRICS)
    TrainingProgress(validator).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), lambda engine: engine.terminate())
    trainer.run(range(1), max_epochs=3)
    assert lines(caplog)[-1] == "Stopped early, after epoch 2 of 3."
    assert terminal.screen()[-2:] == ["Stopped early, after epoch 2 of 3.", ""]


@pytest.mark.parametrize("handler", [EvaluationProgress("Evaluating"), TrainingProgress()])
def test_an_error_ends_the_bar_and_goes_on(terminal, handler):
    def fail(engine: Engine, batch: int) -> None:
        raise ValueError("in the middle")

    engine = Engine(fail)
    handler.attach(engine)
    with pytest.raises(ValueError, match="in the middle"):
        engine.run(range(1))
    assert handler._bar.disable  # closed


def test_the_configs_attach_them():
    handlers = json.loads((CONFIGS / "train.json").read_text())["train"]["handlers"]
    (found,) = [one for one in handlers if one["_target_"] == "dual_skd.training.progress.TrainingProgress"]
    names = [one["_target_"] for one in handlers]
    assert names.index("ValidationHandler") < names.index(found["_target_"])
    assert found["metric"] == "$@options.key_metric"
    evaluate, inference = (json.loads((CONFIGS / f"{name}.json").read_text()) for name in ("evaluate", "inference"))
    for last in (evaluate["validate"]["handlers"][-1], inference["handlers"][-1]):
        assert last["_target_"] == "dual_skd.training.progress.EvaluationProgress"
