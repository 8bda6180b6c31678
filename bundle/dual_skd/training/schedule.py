# SPDX-License-Identifier: Apache-2.0
"""The schedule of a training: label_free -> skd -> fine_tune, a pure function of the iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from dual_skd.errors import InputError
from dual_skd.training.ema import momentum_at

ADVISED_STEPS = 300  # the benchmark's shortest trainings


class ScheduleValues(NamedTuple):
    """The schedule in one iteration.

    Attributes:
        stage: ``label_free``, ``skd`` or ``fine_tune``.
        skd_weight: factor of the distillation loss.
        momentum: share of itself that the EMA auxiliary keeps in the update after this iteration.
        unlabelled_weight: factor of the loss on images without labels.
    """

    stage: str
    skd_weight: float
    momentum: float
    unlabelled_weight: float = 0.0


def advised_epochs(steps_per_epoch: int) -> int:
    """Returns the smallest number of epochs, in tens, that makes :data:`ADVISED_STEPS` or more.

    >>> advised_epochs(steps_per_epoch=9), advised_epochs(steps_per_epoch=100)
    (40, 10)
    """
    return 10 * math.ceil(ADVISED_STEPS / steps_per_epoch / 10)


def refuse_rounds(rounds: int) -> None:
    """Raises an ``InputError`` for a training by itself that has rounds: it would end within its schedule."""
    if rounds != 1:
        raise InputError(
            f"rounds is {rounds}, and only a federation has rounds (docs/howto/federated.md); leave it out, and give "
            "the number of epochs."
        )


@dataclass(frozen=True)
class Schedule:
    """The three stages of training.

    ``label_free_epochs`` come first, ``fine_tune_epochs`` last, self-knowledge distillation (skd) takes what is left.
    The weight of the distillation rises linearly from 0 over the first part of the skd stage, while the auxiliary is
    still unaligned. It falls linearly during fine-tuning, to 0 in the last iteration. Without an skd stage it is 0. The
    weight of images without labels rises and falls with it.

    Everything follows from the iteration number, so a resumed run needs no state of its own.

    Args:
        epochs: all epochs of the run, those of all rounds of a federation.
        label_free_epochs: epochs of the label-free stage.
        fine_tune_epochs: epochs of the fine-tuning stage.
        skd_weight: weight of the distillation once it has ramped up.
        unlabelled_weight: the same for images without labels.
        ramp_up: share of the skd stage that the rise takes, in [0, 1].
        momentum: final momentum of the EMA, in [0, 1].
        momentum_warmup: start with a low momentum (:func:`.ema.momentum_at`). The auxiliary then follows from the first
            steps on, and loses its own initial weights.
        rounds: of a federation, whose trainers run the epochs of one round at a time.

    Raises:
        InputError: the stages don't fit into the epochs, or a number is out of its range.

    Example:
        >>> schedule = Schedule(epochs=10, fine_tune_epochs=2, ramp_up=0.5)
        >>> schedule.stage(0), schedule.stage(8)
        ('skd', 'fine_tune')
        >>> schedule.at(20, steps_per_epoch=10).skd_weight
        0.5
    """

    epochs: int
    label_free_epochs: int = 0
    fine_tune_epochs: int = 0
    skd_weight: float = 1.0
    ramp_up: float = 0.3
    momentum: float = 0.99
    momentum_warmup: bool = True
    unlabelled_weight: float = 0.0
    rounds: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "rounds", "label_free_epochs", "fine_tune_epochs"):
            least = 1 if name in ("epochs", "rounds") else 0
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InputError(f"{name} must be a whole number, {least} or more, found {value!r}; correct it.")
        if self.label_free_epochs + self.fine_tune_epochs > self.epochs:
            raise InputError(
                f"{self.label_free_epochs} label-free and {self.fine_tune_epochs} fine-tuning epochs don't fit into "
                f"{self.epochs} epochs; raise epochs or lower label_free_epochs and fine_tune_epochs."
            )
        for name in ("ramp_up", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie between 0 and 1, found {getattr(self, name)}; correct it.")
        for name, what in (("skd_weight", "distillation"), ("unlabelled_weight", "the loss on images without labels")):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must be 0 or more, found {getattr(self, name)}; 0 turns {what} off.")

    @property
    def skd_epochs(self) -> int:
        """Epochs of the skd stage."""
        return self.epochs - self.label_free_epochs - self.fine_tune_epochs

    def stage(self, epoch: int) -> str:
        """Returns the stage of ``epoch``, counted from 0; epochs beyond the last belong to the last stage."""
        epoch = min(epoch, self.epochs - 1)
        if epoch < self.label_free_epochs:
            return "label_free"
        return "skd" if epoch < self.label_free_epochs + self.skd_epochs else "fine_tune"

    def at(self, iteration: int, steps_per_epoch: int, accumulation_steps: int = 1) -> ScheduleValues:
        """Returns stage, weights and momentum of an iteration.

        Args:
            iteration: mini-batches seen before, so 0 for the first of the run.
            steps_per_epoch: mini-batches in an epoch.
            accumulation_steps: mini-batches per optimiser step; the EMA moves, and its warm-up counts, once per step.
        """
        stage = self.stage(iteration // steps_per_epoch)
        momentum = momentum_at(iteration // accumulation_steps, self.momentum, self.momentum_warmup)
        share = self._share(stage, iteration, steps_per_epoch)
        return ScheduleValues(stage, self.skd_weight * share, momentum, self.unlabelled_weight * share)

    def _share(self, stage: str, iteration: int, steps_per_epoch: int) -> float:
        """The share of their full values that the weights have, in [0, 1]."""
        if stage == "label_free" or not self.skd_epochs:
            return 0.0
        skd_start = self.label_free_epochs * steps_per_epoch
        skd_steps = self.skd_epochs * steps_per_epoch
        if stage == "skd":
            rise = self.ramp_up * skd_steps
            return min(1.0, (iteration - skd_start) / rise) if rise else 1.0
        done = (iteration - skd_start - skd_steps + 1) / (self.fine_tune_epochs * steps_per_epoch)
        return max(0.0, 1.0 - done)
