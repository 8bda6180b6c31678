# SPDX-License-Identifier: Apache-2.0
"""The method: a student, an auxiliary network, their losses, and how the auxiliary moves.

A task is what :class:`dual_skd.DualModelTrainer` trains. It reads like the formulas; mixed precision, accumulation,
several processes and bad numbers are the trainer's. Another method is a subclass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from dual_skd.errors import InputError
from dual_skd.options.choices import Update
from dual_skd.training.ema import check_same_architecture, update_auxiliary
from dual_skd.training.losses import SelfDistillationLoss, TeachingLoss
from dual_skd.training.schedule import Schedule, ScheduleValues

UPDATES = get_args(Update)


@dataclass(frozen=True)
class Batch:
    """The images of an iteration.

    Attributes:
        image: (N, C, H, W[, D]).
        infer: network -> its logits (N, K) for these images.
        another_view: () -> the same images with other random changes.
        unlabelled: images without labels that come with them, if there are any.
    """

    image: Tensor
    infer: Callable[[nn.Module], Tensor]
    another_view: Callable[[], Tensor]
    unlabelled: UnlabelledBatch | None = None

    @property
    def images(self) -> list[Tensor]:
        """All images, with and without labels."""
        return [self.image, *([] if self.unlabelled is None else [self.unlabelled.image, self.unlabelled.learned])]


@dataclass(frozen=True)
class UnlabelledBatch:
    """Images without labels of an iteration, in two views. One view may serve as both.

    Attributes:
        image: the view that the teacher sees (M, C, H, W[, D]).
        infer: network -> its logits (M, K) for that view.
        learned: the view that the learner sees, which may be changed more strongly; ``image`` where there is one view.
        infer_learned: network -> its logits (M, K) for that one.
    """

    image: Tensor
    infer: Callable[[nn.Module], Tensor]
    learned: Tensor
    infer_learned: Callable[[nn.Module], Tensor]

    @property
    def has_two_views(self) -> bool:
        """Whether learner and teacher see different views."""
        return self.learned is not self.image


class DualModelTask:
    """A student that learns with the help of an auxiliary network.

        L = criterion(z_S, y) + w(t) * distillation(z_S, z_A) + v(t) * teaching(z_S(u), z_A(u))

    u are images without labels, where a run has some. There the auxiliary teaches the student; without one the student
    is its own teacher.

    ``update`` is how the auxiliary moves:

    - ``ema``: it follows the student by EMA after every optimiser step, and receives no gradient. Its batch
      normalisation uses statistics of its own while it teaches, which fit its weights, else the EMA of the student's.
      Its dropout is off.
    - ``mutual``: it learns too, from the labels and from the student, with its own optimiser (Zhang et al. 2018).
      ``loss`` is the sum for both networks, and one backward pass serves them. On u each teaches the other.
    - ``frozen``: it keeps its weights. A large teacher of another architecture is used this way.
    - ``none``: there is no auxiliary.

    The auxiliary's forward passes are skipped while w(t) and v(t) are 0, unless it learns too.

    Args:
        student: the network to keep.
        criterion: loss on the labels (:func:`dual_skd.training.losses.classification_loss`).
        auxiliary: the second network, on the same device. Unless it learns, its parameters' ``requires_grad`` is set
            to False.
        distillation: (learner's logits, teacher's logits) -> scalar; default ``SelfDistillationLoss()``.
        update: see above; default ``ema`` with an auxiliary, ``none`` without.
        schedule: weight and momentum over time; needed with an auxiliary.
        auxiliary_optimizer: the auxiliary's optimiser, for ``mutual`` alone.
        teaching: (learner's logits, teacher's logits) -> scalar, on images without labels; default ``TeachingLoss()``.

    Raises:
        InputError: the arguments don't fit together; the message says which to change.
    """

    def __init__(
        self,
        student: nn.Module,
        criterion: Callable[[Tensor, Tensor], Tensor],
        auxiliary: nn.Module | None = None,
        *,
        distillation: Callable[[Tensor, Tensor], Tensor] | None = None,
        update: str | None = None,
        schedule: Schedule | None = None,
        auxiliary_optimizer: Optimizer | None = None,
        teaching: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.update = update or ("none" if auxiliary is None else "ema")
        self.student: Any = student
        self.auxiliary: Any = None if self.update == "none" else auxiliary
        self.criterion = criterion
        self.distillation = distillation or SelfDistillationLoss()
        self.teaching = teaching or TeachingLoss()
        self.schedule: Any = schedule
        self.auxiliary_optimizer = auxiliary_optimizer
        if self.update not in UPDATES:
            raise InputError(f"unknown update {self.update!r}; choose one of {', '.join(UPDATES)}.")
        if self.update != "none" and (auxiliary is None or schedule is None):
            lacking = "an auxiliary network" if auxiliary is None else "a schedule"
            raise InputError(f"update {self.update!r} needs {lacking}; pass one or set update to 'none'.")
        if (self.update == "mutual") != (auxiliary_optimizer is not None):
            raise InputError(
                f"an auxiliary_optimizer goes with update 'mutual' and with no other, found update {self.update!r} "
                f"{'with' if auxiliary_optimizer else 'without'} one; change either."
            )
        if auxiliary is not None and self.update == "ema":
            check_same_architecture(auxiliary, student)
        if self.auxiliary is not None and self.update != "mutual":
            self.auxiliary.requires_grad_(False)

    # --- the method ---------------------------------------------------------------------------------------------------

    def predict(self, batch: Batch, now: ScheduleValues) -> dict[str, Tensor]:
        """Returns z_S as ``pred`` and, where the auxiliary teaches or learns, z_A as ``auxiliary_pred``."""
        output = {}
        if self.update == "mutual" or (self.auxiliary is not None and now.skd_weight > 0):
            # before the student, so that no activations of both are kept at the same time
            output["auxiliary_pred"] = self._auxiliary_pred(batch)
        output["pred"] = batch.infer(self.student)
        if batch.unlabelled is not None and now.unlabelled_weight > 0:
            output |= self.predict_unlabelled(batch.unlabelled)
        return output

    def predict_unlabelled(self, batch: UnlabelledBatch) -> dict[str, Tensor]:
        """Returns z_S(u) as ``unlabelled_pred`` and its teacher's logits as ``unlabelled_target``.

        Where the auxiliary learns too, also ``unlabelled_auxiliary_pred`` and ``unlabelled_auxiliary_target``.
        """
        if self.update == "mutual":
            z_S, z_A = batch.infer_learned(self.student), batch.infer_learned(self.auxiliary)
            of_S, of_A = z_S.detach(), z_A.detach()
            if batch.has_two_views:
                of_S, of_A = self._answer(batch, self.student), self._answer(batch, self.auxiliary)
            learns_too = {"unlabelled_auxiliary_pred": z_A, "unlabelled_auxiliary_target": of_S}
            return {"unlabelled_pred": z_S, "unlabelled_target": of_A} | learns_too
        if self.auxiliary is not None:
            answer = self._auxiliary_pred(batch)
            return {"unlabelled_pred": batch.infer_learned(self.student), "unlabelled_target": answer}
        z_S = batch.infer_learned(self.student)
        answer = self._answer(batch, self.student) if batch.has_two_views else z_S.detach()
        return {"unlabelled_pred": z_S, "unlabelled_target": answer}

    @staticmethod
    def _answer(batch: UnlabelledBatch, network: nn.Module) -> Tensor:
        with torch.no_grad():
            return batch.infer(network)

    def loss(self, output: Mapping[str, Tensor], label: Tensor, now: ScheduleValues) -> dict[str, Any]:
        """Returns the loss and its parts by name.

        Args:
            output: what :meth:`predict` returned.
            label: (N,) or (N, K), as the criterion takes them.
            now: the schedule's values.

        Returns:
            ``loss``, which is differentiated. ``loss_label`` and ``loss_skd`` of the student, unweighted, and
            ``loss_auxiliary`` (``mutual``), all detached. ``skd_weight`` and ``momentum`` of this iteration. With
            images without labels also ``loss_unlabelled`` of the student, and ``unlabelled_weight``.
        """
        w = now.skd_weight
        loss_label = self._label_loss(output["pred"], label)
        loss_skd = self.distill(output) if w > 0 else torch.zeros_like(loss_label)
        parts: dict[str, Any] = {
            "loss": loss_label + w * loss_skd,
            "loss_label": loss_label.detach(),
            "loss_skd": loss_skd.detach(),
            "skd_weight": w,
            "momentum": now.momentum,
        }
        if self.update == "mutual":
            z_S, z_A = output["pred"], output["auxiliary_pred"]
            loss_auxiliary = self._label_loss(z_A, label)
            if w > 0:
                loss_auxiliary = loss_auxiliary + w * self.distillation(z_A, z_S)
            parts |= {"loss": parts["loss"] + loss_auxiliary, "loss_auxiliary": loss_auxiliary.detach()}
        if "unlabelled_pred" in output:
            v = now.unlabelled_weight
            loss_unlabelled = self.teaching(output["unlabelled_pred"], output["unlabelled_target"])
            parts |= {"loss": parts["loss"] + v * loss_unlabelled, "loss_unlabelled": loss_unlabelled.detach()}
            if "unlabelled_auxiliary_pred" in output:
                of_A = self.teaching(output["unlabelled_auxiliary_pred"], output["unlabelled_auxiliary_target"])
                parts["loss"] = parts["loss"] + v * of_A
            parts["unlabelled_weight"] = v
        return parts

    def distill(self, output: Mapping[str, Tensor]) -> Tensor:
        """Returns the student's SKD loss, a scalar; called while w(t) is above 0."""
        return self.distillation(output["pred"], output["auxiliary_pred"])

    def before_step(self, optimizer: Optimizer, now: ScheduleValues) -> None:
        """Hook for subclasses, called before each optimiser step."""

    def after_step(self, now: ScheduleValues) -> None:
        """Moves the auxiliary after every optimiser step: theta_A <- m theta_A + (1 - m) theta_S."""
        if self.update == "ema":
            teaches = now.skd_weight > 0 or now.unlabelled_weight > 0
            update_auxiliary(self.auxiliary, self.student, now.momentum, buffers=not teaches)

    def _auxiliary_pred(self, batch: Batch | UnlabelledBatch) -> Tensor:
        if self.update == "mutual":
            self.auxiliary.train()
            return batch.infer(self.auxiliary)
        self.set_teaching_mode()
        with torch.no_grad():
            return batch.infer(self.auxiliary)

    def set_teaching_mode(self) -> None:
        """Puts the auxiliary into eval mode, except for batch normalisation where it gathers its own statistics."""
        self.auxiliary.eval()
        if self.update == "ema":
            for module in self.auxiliary.modules():
                if isinstance(module, _BatchNorm):
                    module.train()

    def _label_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        # under autocast the logits are half precision, too coarse for a loss
        half = torch.is_autocast_enabled(logits.device.type)
        return self.criterion(logits.float() if half else logits, label).mean()

    # --- what the trainer asks ----------------------------------------------------------------------------------------

    @property
    def networks(self) -> list[nn.Module]:
        """All modules with weights or statistics of this task."""
        return [self.student] if self.auxiliary is None else [self.student, self.auxiliary]

    @property
    def optimizers(self) -> list[Optimizer]:
        """Optimisers that step together with the student's."""
        return [] if self.auxiliary_optimizer is None else [self.auxiliary_optimizer]

    def compile(self, **kwargs: Any) -> None:
        """Compiles the networks; ``kwargs`` go to ``torch.compile``."""
        self.student = torch.compile(self.student, **kwargs)
        if self.auxiliary is not None:
            self.auxiliary = torch.compile(self.auxiliary, **kwargs)

    def at(self, iteration: int, steps_per_epoch: int | None, accumulation_steps: int = 1) -> ScheduleValues:
        """Returns weights and momentum in an iteration, as :meth:`Schedule.at`; momentum is 1 without EMA."""
        if self.schedule is None or (self.auxiliary is None and not self.schedule.unlabelled_weight):
            return ScheduleValues("fine_tune", 0.0, 1.0)
        now = self.schedule.at(iteration, steps_per_epoch, accumulation_steps)
        if self.auxiliary is None:
            now = now._replace(skd_weight=0.0)
        return now if self.update == "ema" else now._replace(momentum=1.0)

    def check(self, *, epochs: int, epoch_length: int | None, optimizer: Optimizer) -> None:
        """Checks that the task fits the trainer's epochs, batches per epoch and optimiser.

        Raises:
            InputError: it doesn't; the message says what to change.
        """
        self.check_schedule(epochs, epoch_length)
        if self.schedule is not None and self.schedule.label_free_epochs:
            raise InputError("label-free epochs need a LabelFreeTask; build one, or set label_free_epochs to 0.")

    def check_schedule(self, epochs: int, epoch_length: int | None) -> None:
        """Checks that the schedule is made for these epochs, of every round, and that their length is known."""
        if self.schedule is not None and self.schedule.epochs != epochs * self.schedule.rounds:
            raise InputError(
                f"the schedule is made for {self.schedule.epochs} epochs and the trainer for {epochs}; give both the "
                "same number."
            )
        follows = self.auxiliary is not None or (self.schedule is not None and self.schedule.unlabelled_weight > 0)
        if follows and not epoch_length:
            raise InputError(
                "the schedule needs the number of batches per epoch, which this loader doesn't tell; pass epoch_length."
            )
