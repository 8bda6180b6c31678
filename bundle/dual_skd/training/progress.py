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

from dual_skd.training.schedule import ADVISED_STEPS, advised_epochs
from dual_skd.utils.progress import bar, is_terminal
from dual_skd.utils.wording import counted, duration, metric_words

logger = logging.getLogger(__name__)


class _Progress:
    """A bar that is closed when the engine ends, also by an error."""

    def __init__(self) -> None:
        self._bar = tqdm(disable=True)

    def _close(self) -> None:
        self._bar.close()

    def _fail(self, engine: Engine, error: BaseException) -> NoReturn:
        self._close()
        raise error  # ignite takes an error for handled where a handler looks at it


class EvaluationProgress(_Progress):
    """Shows how far an evaluator is; attach it last, so that it counts what is done.

    Args:
        what: the words before the bar.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: self._bar.update())
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        self._bar = bar(None, self.what, engine.state.epoch_length)


class TrainingProgress(_Progress):
    """Shows how far a whole training is: loss, validation metric, and the time that is left.

    On a terminal it is one bar over all epochs; in a file, or where the log goes to one, a line per epoch. Attach it
    after the validation. A resumed run begins where it stopped, and the time that is left is estimated from there on.

    Args:
        validator: the evaluator whose metrics a :class:`dual_skd.evaluation.MetricsRecorder` measures, or None.
        metric: of the student, such as ``macro_auc``; ``last`` shows ``macro_auc``.
        advise: whether a short training is advised to take more epochs.
    """

    def __init__(self, validator: Engine | None = None, metric: str = "macro_auc", advise: bool = False) -> None:
        super().__init__()
        self.validator = validator
        self.advise = advise
        self.metric = "macro_auc" if metric == "last" else metric
        self._resumed_at: int | None = None  # iteration; None before the first step
        self._started = self._epoch_started = 0.0
        self._losses: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Registers the handler."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish_epoch)
        engine.add_event_handler(Events.TERMINATE, self._close)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)
        if self.validator is not None:
            self.validator.add_event_handler(Events.ITERATION_COMPLETED, self._validate)

    def _start_epoch(self, engine: Engine) -> None:
        state, words = engine.state, f"Epoch {engine.state.epoch}/{engine.state.max_epochs}"
        self._epoch_started, self._losses = time.monotonic(), []
        if self._resumed_at is None:
            self._advise(state.max_epochs, state.epoch_length)
            self._resumed_at, self._started = state.iteration, self._epoch_started
            self._bar = bar(None, words, state.max_epochs * state.epoch_length, done=state.iteration, stays=True)
        self._bar.set_description_str(words)

    def _advise(self, epochs: int, length: int) -> None:
        if self.advise and epochs * length < ADVISED_STEPS:
            logger.info(
                "%s of %s: %s in all; %d or more are advised: --epochs %d.",
                counted(epochs, "epoch"), counted(length, "step"), counted(epochs * length, "step"), ADVISED_STEPS,
                advised_epochs(length),
            )  # fmt: skip

    def _step(self, engine: Engine) -> None:
        loss = torch.as_tensor(engine.state.output["loss"]).item()
        if math.isfinite(loss):  # that of a skipped batch isn't
            self._losses.append(loss)
        self._bar.set_postfix_str(self._numbers(), refresh=False)
        self._bar.update()

    def _validate(self, validator: Engine) -> None:
        self._bar.set_postfix_str(f"validation {validator.state.iteration}/{validator.state.epoch_length}")

    def _finish_epoch(self, engine: Engine) -> None:
        state, now = engine.state, time.monotonic()
        self._bar.set_postfix_str(self._numbers())
        validated = self.validator is not None and self.validator.state.epoch == state.epoch
        done = state.iteration - (self._resumed_at or 0)
        left = (now - self._started) / done * (state.max_epochs * state.epoch_length - state.iteration)
        level = logging.DEBUG if not self._bar.disable and _log_is_on_terminal() else logging.INFO
        times = f"{duration(now - self._epoch_started)}, {duration(left)} left"
        numbers = ", ".join(filter(None, [self._numbers(with_metric=validated), times]))
        logger.log(level, "Epoch %d of %d: %s.", state.epoch, state.max_epochs, numbers)

    def _numbers(self, with_metric: bool = True) -> str:
        """The mean loss over the epoch so far, and the metric of the last validation."""
        numbers = [f"loss {sum(self._losses) / len(self._losses):.3f}"] if self._losses else []
        value = self.validator.state.metrics.get(self.metric) if self.validator and with_metric else None
        return ", ".join([*numbers, *([] if value is None else [f"{metric_words(self.metric)} {value:.3f}"])])

    def _finish(self, engine: Engine) -> None:
        self._close()
        if engine.state.epoch < engine.state.max_epochs:
            logger.info("Stopped early, after epoch %d of %d.", engine.state.epoch, engine.state.max_epochs)


def _log_is_on_terminal() -> bool:
    streams = [getattr(handler, "stream", None) for handler in logging.getLogger().handlers]
    return all(is_terminal(stream) for stream in streams if stream is not None)
