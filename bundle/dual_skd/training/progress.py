# SPDX-License-Identifier: Apache-2.0
"""Handlers that show how far a training or an evaluation is."""

from __future__ import annotations

import logging
import math
import time
from typing import NoReturn

import torch
from ignite.engine import Engine, Events
from tqdm import tqdm

from dual_skd.training.schedule import LEAST_STEPS, advised_epochs
from dual_skd.utils.progress import bar, is_terminal
from dual_skd.utils.wording import counted, duration, metric_words

logger = logging.getLogger(__name__)


class EvaluationProgress:
    """Handler of an evaluator that shows how far it is; attach it last, so that it counts what is done.

    Args:
        what: the words before the bar.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._bar = tqdm(disable=True)

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self._bar.update())
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: self._bar.close())
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        self._bar = bar(None, self.what, engine.state.epoch_length)

    def _fail(self, engine: Engine, error: BaseException) -> NoReturn:
        self._bar.close()
        raise error


class TrainingProgress:
    """Handler of the trainer that shows how far the whole run is: loss, validation metric, and the time that is left.

    On a terminal it is one bar over all epochs; in a file, or where the log goes to one, a line per epoch. Attach it
    after the validation. A resumed run begins where it is, and its time is reckoned from there.

    Args:
        validator: the evaluator whose metrics a :class:`dual_skd.evaluation.MetricsRecorder` measures, or None.
        metric: of the student, such as ``macro_auc``, which also stands for ``last``.
        advise: say before the first step when so few come that more epochs are advised.
    """

    def __init__(self, validator: Engine | None = None, metric: str = "macro_auc", advise: bool = False) -> None:
        self.validator = validator
        self.advise = advise
        self.metric = "macro_auc" if metric == "last" else metric
        self._bar = tqdm(disable=True)
        self._before: int | None = None  # iterations of a run that is resumed
        self._began = self._epoch_began = 0.0
        self._losses: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)
        engine.add_event_handler(Events.TERMINATE, lambda _: self._bar.close())
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)
        if self.validator is not None:
            self.validator.add_event_handler(Events.ITERATION_COMPLETED, self._validate)

    def _start_epoch(self, engine: Engine) -> None:
        state, words = engine.state, f"Epoch {engine.state.epoch}/{engine.state.max_epochs}"
        self._epoch_began, self._losses = time.monotonic(), []
        if self._before is None:  # by now a resumed run is where it goes on
            self._advise(state.max_epochs, state.epoch_length)
            self._before, self._began = state.iteration, self._epoch_began
            self._bar = bar(None, words, state.max_epochs * state.epoch_length, done=state.iteration, stays=True)
        self._bar.set_description_str(words)

    def _advise(self, epochs: int, length: int) -> None:
        if self.advise and epochs * length < LEAST_STEPS:
            steps, better = counted(epochs * length, "step"), advised_epochs(length)
            said = f"{counted(epochs, 'epoch')} of {counted(length, 'step')} are {steps}; {LEAST_STEPS} or more"
            logger.info("%s are advised: --epochs %d.", said, better)

    def _step(self, engine: Engine) -> None:
        loss = torch.as_tensor(engine.state.output["loss"]).item()
        if math.isfinite(loss):  # of a batch that is skipped it isn't
            self._losses.append(loss)
        self._bar.set_postfix_str(", ".join([*self._loss(), *self._metric()]), refresh=False)
        self._bar.update()

    def _validate(self, validator: Engine) -> None:
        self._bar.set_postfix_str(f"validation {validator.state.iteration}/{validator.state.epoch_length}")

    def _finish_epoch(self, engine: Engine) -> None:
        state, now = engine.state, time.monotonic()
        self._bar.set_postfix_str(", ".join([*self._loss(), *self._metric()]))
        validated = self.validator is not None and self.validator.state.epoch == state.epoch
        numbers = [*self._loss(), *(self._metric() if validated else [])]
        done, whole = state.iteration - (self._before or 0), state.max_epochs * state.epoch_length
        left = (now - self._began) / done * (whole - state.iteration)
        times = [duration(now - self._epoch_began), f"{duration(left)} left"]
        level = logging.DEBUG if not self._bar.disable and _log_is_on_terminal() else logging.INFO
        logger.log(level, "Epoch %d of %d: %s.", state.epoch, state.max_epochs, ", ".join([*numbers, *times]))

    def _loss(self) -> list[str]:
        """The mean over the epoch so far."""
        return [f"loss {sum(self._losses) / len(self._losses):.3f}"] if self._losses else []

    def _metric(self) -> list[str]:
        """Of the last validation."""
        value = self.validator.state.metrics.get(self.metric) if self.validator else None
        return [] if value is None else [f"{metric_words(self.metric)} {value:.3f}"]

    def _finish(self, engine: Engine) -> None:
        self._bar.close()
        if engine.state.epoch < engine.state.max_epochs:
            logger.info("Stopped early, after epoch %d of %d.", engine.state.epoch, engine.state.max_epochs)

    def _fail(self, engine: Engine, error: BaseException) -> NoReturn:
        self._bar.close()
        raise error


def _log_is_on_terminal() -> bool:
    streams = [getattr(handler, "stream", None) for handler in logging.getLogger().handlers]
    return all(is_terminal(stream) for stream in streams if stream is not None)
