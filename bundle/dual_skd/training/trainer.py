# SPDX-License-Identifier: Apache-2.0
"""MONAI's supervised trainer with a second network beside the student."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, get_args

import torch
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.engines.workflow import Workflow
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from dual_skd.errors import InputError
from dual_skd.networks.inspect import penultimate, unwrap
from dual_skd.options.choices import Update
from dual_skd.runs.bad_numbers import (
    BAD_NUMBER_POLICIES,
    Buffers,
    files_of,
    first_names,
    gradient_norm,
    in_any_process,
    is_finite,
)
from dual_skd.runs.distributed import (
    average_gradients,
    average_statistics,
    broadcast_networks,
    lost_process_named,
    several_processes,
)
from dual_skd.training.ema import check_same_architecture, update_auxiliary
from dual_skd.training.label_free import LabelFreeHeads
from dual_skd.training.losses import SelfDistillationLoss
from dual_skd.training.schedule import Moment, Schedule

logger = logging.getLogger(__name__)

MOST_SKIPPED = 100  # batches one after the other, where the length of an epoch isn't known
UPDATES = get_args(Update)


class DualModelTrainer(SupervisedTrainer):
    """Trains a student with the help of an auxiliary network.

        L = label_loss(z_S, y) + w(t) * distillation(z_S, z_A)

    How the auxiliary moves is one word:

    - ``ema``: it follows the student by EMA after every optimiser step, and receives no gradient. While it teaches it
      gathers batch statistics of its own, which fit its weights; while w(t) is 0 they follow the student's. Its dropout
      is off.
    - ``mutual``: it learns too, from the labels and from the student, with its own optimiser (Zhang et al. 2018);
      ``loss`` is the sum for both networks and one backward pass serves them.
    - ``frozen``: it keeps its weights; this is also how a large teacher of another architecture is used.
    - ``none``: there is no auxiliary. This is MONAI's ``SupervisedTrainer``, bit for bit.

    The events and their order are those of ``SupervisedTrainer``. ``engine.state.output`` holds ``image``, ``label``,
    ``pred`` (the student's), ``loss`` (what is differentiated), ``loss_label`` and ``loss_skd`` (the student's parts,
    unweighted, detached), ``skd_weight``, ``momentum`` (1.0 without EMA), and, where they were computed,
    ``auxiliary_pred``, ``loss_auxiliary`` (mutual) and ``gradient_norm`` (of all gradients accumulated so far). In the
    label-free stage ``prepare_batch`` is called twice, for two views, and ``loss_skd`` is the loss of the views. The
    auxiliary's forward pass is skipped while w(t) is 0.

    Networks see plain tensors: a MetaTensor costs more than many a layer of a light network. ``image`` keeps its meta
    data, predictions carry none.

    Args:
        device: where to compute.
        max_epochs: epochs to run.
        train_data_loader: batches, dictionaries with ``image`` (N, C, H, W[, D]) and ``label``.
        network: the student.
        optimizer: the student's optimiser.
        loss_function: loss on the labels (:func:`dual_skd.training.losses.classification_loss`).
        auxiliary: the second network, on ``device``. Unless it learns, its parameters' ``requires_grad`` is set False.
        distillation: (learner's logits, teacher's logits) -> scalar; default ``SelfDistillationLoss()``.
        update: see above; default ``ema`` with an auxiliary, ``none`` without.
        schedule: stages, weight and momentum over time; default ``Schedule(max_epochs)``.
        auxiliary_optimizer: the auxiliary's optimiser, for ``mutual`` alone.
        label_free_heads: heads of the label-free stage, their parameters in ``optimizer``.
        amp: autocast on any device; gradients are scaled where CUDA computes in float16 (``trainer.scaler``, which can
            be put into a checkpoint).
        amp_kwargs: arguments of ``torch.autocast``; its default dtype is float16 on CUDA and bfloat16 on CPU.
        compile: compiles both networks. The label-free stage runs uncompiled, and outside DDP: it averages gradients.
        compile_kwargs: arguments of ``torch.compile``.
        on_bad_number: when input, loss or gradient holds NaN or infinite numbers. ``stop`` ends the training before
            the optimiser's step, with weights and running statistics as they were; ``skip`` leaves the batch out, logs
            it and counts it in ``trainer.skipped`` (with ``accumulation_steps``, a bad gradient takes the batches
            accumulated so far with it); ``ignore`` doesn't look. Where gradients are scaled, infinite ones are left to
            the scaler, which skips the step and lowers its scale.
        kwargs: all other arguments of ``monai.engines.SupervisedTrainer``.

    Raises:
        InputError: the arguments don't fit together; the message says which to change. While it runs: bad numbers,
            with epoch, iteration and, where the images know them, the files.
    """

    def __init__(
        self,
        *,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable,
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable,
        auxiliary: nn.Module | None = None,
        distillation: Callable[[Tensor, Tensor], Tensor] | None = None,
        update: str | None = None,
        schedule: Schedule | None = None,
        auxiliary_optimizer: Optimizer | None = None,
        label_free_heads: LabelFreeHeads | None = None,
        amp: bool = False,
        amp_kwargs: dict | None = None,
        compile: bool = False,
        compile_kwargs: dict | None = None,
        on_bad_number: str = "stop",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss_function,
            amp=amp,
            amp_kwargs=amp_kwargs,
            compile=compile,
            compile_kwargs=compile_kwargs,
            **kwargs,
        )
        self.update = update or ("none" if auxiliary is None else "ema")
        self.auxiliary: Any = None if self.update == "none" else auxiliary
        self.auxiliary_optimizer = auxiliary_optimizer
        self.distillation = distillation or SelfDistillationLoss()
        self.schedule = schedule or Schedule(epochs=max_epochs)
        self.label_free_heads: Any = label_free_heads
        self.on_bad_number = on_bad_number
        self.skipped = 0
        self._skipped_in_a_row = 0
        self._accumulated = 0
        self._check()
        if self.auxiliary is not None and self.update != "mutual":
            self.auxiliary.requires_grad_(False)
        if self.auxiliary is not None and compile:
            self.auxiliary = torch.compile(self.auxiliary, **(compile_kwargs or {}))
        # made once, not in run() as MONAI does, so that a checkpoint can hold its state
        self.scaler = torch.amp.GradScaler("cuda") if self._scales_gradients() else None

    def run(self) -> None:
        """Trains from the present state to the last epoch; several processes start with the weights of the first.

        Raises:
            InputError: bad numbers, a batch too small for batch normalisation, or another process was lost.
        """
        with lost_process_named():
            if several_processes():
                broadcast_networks(self._networks())
            try:
                Workflow.run(self)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise InputError(
                    "Batch normalisation has one number per channel in a batch, and so nothing to normalise by (one "
                    "image, which the network has brought down to one pixel); raise batch_size or image_size."
                ) from error

    def _networks(self) -> list[nn.Module | None]:
        return [self.network, self.auxiliary, self.label_free_heads]

    def _check(self) -> None:
        if self.update not in UPDATES:
            raise InputError(f"unknown update {self.update!r}; choose one of {', '.join(UPDATES)}.")
        if self.on_bad_number not in BAD_NUMBER_POLICIES:
            raise InputError(f"on_bad_number is {self.on_bad_number!r}; use one of {', '.join(BAD_NUMBER_POLICIES)}.")
        if self.update != "none" and self.auxiliary is None:
            raise InputError(f"update {self.update!r} needs an auxiliary network; pass one or set update to 'none'.")
        if (self.update == "mutual") != (self.auxiliary_optimizer is not None):
            raise InputError(
                f"an auxiliary_optimizer goes with update 'mutual' and with no other, found update {self.update!r} "
                f"{'with' if self.auxiliary_optimizer else 'without'} one; change either."
            )
        if self.update == "ema":
            check_same_architecture(self.auxiliary, self.network)
        if self.schedule.epochs != self.state.max_epochs:
            raise InputError(
                f"the schedule is made for {self.schedule.epochs} epochs and the trainer for {self.state.max_epochs}; "
                "give both the same number."
            )
        if self.auxiliary is not None and not self.state.epoch_length:
            raise InputError(
                "the schedule needs the number of batches per epoch, which this loader doesn't tell; pass epoch_length."
            )
        if self.schedule.label_free_epochs:
            self._check_label_free()

    def _check_label_free(self) -> None:
        if self.update != "ema" or self.label_free_heads is None:
            raise InputError(
                f"label-free epochs need update 'ema' and label_free_heads, found update {self.update!r} "
                f"{'with' if self.label_free_heads else 'without'} heads; set method to 'dual', or label_free_epochs "
                "to 0."
            )
        optimised = {id(parameter) for group in self.optimizer.param_groups for parameter in group["params"]}
        if any(p.requires_grad and id(p) not in optimised for p in self.label_free_heads.parameters()):
            raise InputError(
                "the optimizer doesn't know the label-free heads; build it from the parameters of network and heads."
            )

    def _scales_gradients(self) -> bool:
        on_cuda = self.amp and self.state.device.type == "cuda"
        return on_cuda and self.amp_kwargs.get("dtype", torch.float16) == torch.float16

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.state.device.type, **self.amp_kwargs) if self.amp else nullcontext()

    def _moment(self) -> Moment:
        """What the schedule says of this iteration; without auxiliary there is nothing to schedule."""
        if self.auxiliary is None:
            return Moment("fine_tune", 0.0, 1.0)
        moment = self.schedule.at(self.state.iteration - 1, self.state.epoch_length, self.accumulation_steps)
        return moment if self.update == "ema" else moment._replace(momentum=1.0)

    def _accumulation(self) -> tuple[bool, bool]:
        """Whether this iteration opens and whether it closes a group of accumulated batches; an epoch's end closes."""
        length = self.state.epoch_length
        position = (self.state.iteration - 1) % length if length else self.state.iteration - 1
        closes = (position + 1) % self.accumulation_steps == 0 or position + 1 == length
        return position % self.accumulation_steps == 0, closes

    def _prepared(self, batchdata: Any) -> tuple[Any, Any, tuple, dict]:
        """Image, label, and further positional and keyword arguments of the networks."""
        batch = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        return (*batch, (), {}) if len(batch) == 2 else batch

    def _optimizers(self) -> list[Optimizer]:
        return [self.optimizer] if self.auxiliary_optimizer is None else [self.optimizer, self.auxiliary_optimizer]

    def _iteration(self, engine: DualModelTrainer, batchdata: dict[str, Tensor]) -> dict:
        """One mini-batch; see the class for what it returns."""
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        image, label, args, kwargs = self._prepared(batchdata)
        moment = self._moment()
        # augmented in full precision, as the first one: outside of autocast
        other_view = self._prepared(batchdata)[0] if moment.stage == "label_free" else None
        opens, closes = self._accumulation()
        self.state.output = {
            Keys.IMAGE: image,
            Keys.LABEL: label,
            "skd_weight": moment.skd_weight,
            "momentum": moment.momentum,
        }

        self.network.train()
        if opens:
            self._accumulated = 0
            for optimizer in self._optimizers():
                optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        looks = self.on_bad_number != "ignore"
        buffers = Buffers(self._networks()) if looks else None
        with self._autocast():
            if moment.stage == "label_free":
                self._compare_views(plain(image), plain(other_view))
            else:
                self._learn(plain(image), plain(label), moment.skd_weight, args, kwargs)
            self.fire_event(IterationEvents.LOSS_COMPLETED)

        loss = self.state.output[Keys.LOSS]  # read again: a handler may have changed it
        if looks and self._is_bad(is_finite([plain(image), loss])):
            where = "loss" if is_finite([plain(image)]) else "input"
            self._leave_out(batchdata, plain(image), where, buffers)
        else:
            self._differentiate(loss, batchdata, plain(image), buffers)
            if several_processes():
                average_statistics(self._networks())
        if closes and self._accumulated:
            if moment.stage == "label_free" and several_processes():
                average_gradients(self.optimizer)  # DDP doesn't see a forward pass that ends in other heads
            self._step(moment)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _differentiate(self, loss: Tensor, batchdata: Any, image: Tensor, buffers: Buffers | None) -> None:
        """The backward pass; gradients that aren't finite are thrown away."""
        if self.accumulation_steps > 1:
            loss = loss / self.accumulation_steps
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self._accumulated += 1
        if buffers is None or self.scaler is not None:
            self._skipped_in_a_row = 0
            return
        norm = self.state.output["gradient_norm"] = gradient_norm(self._optimizers())
        if self._is_bad(norm.isfinite()):
            self._leave_out(batchdata, image, "gradient", buffers)
            for optimizer in self._optimizers():
                optimizer.zero_grad(set_to_none=self.optim_set_to_none)
            self._accumulated = 0
        else:
            self._skipped_in_a_row = 0

    def _is_bad(self, good: Tensor) -> bool:
        return in_any_process(not good.item(), self.state.device)

    def _leave_out(self, batchdata: Any, image: Tensor, where: str, buffers: Buffers | None) -> None:
        """Takes the batch out of the running statistics, and stops, or goes on without it."""
        if buffers is not None:
            buffers.restore()
        names = files_of(batchdata, image, getattr(self.data_loader, "dataset", None))
        place = f"epoch {self.state.epoch}, iteration {self.state.iteration}"
        files = f" (files: {first_names(names)})" if names else ""
        self._skipped_in_a_row += 1
        endless = self._skipped_in_a_row >= (self.state.epoch_length or MOST_SKIPPED)
        if self.on_bad_number == "stop" or endless:
            remedy = {
                "input": "look at these images with `dual-skd check`",
                "loss": "lower learning_rate, or turn amp off",
                "gradient": "lower learning_rate, or turn amp off",
            }[where]
            skipped = f", as in {self._skipped_in_a_row} batches one after the other" if endless else ""
            raise InputError(
                f"The {where} holds NaN or infinite numbers in {place}{skipped}{files}; the weights are those of "
                f"the step before. {remedy[0].upper()}{remedy[1:]}, or set on_bad_number to skip."
            )
        self.skipped += 1
        logger.warning("Skipped the batch of %s (%d so far): bad %s%s.", place, self.skipped, where, files)

    def _learn(self, image: Tensor, label: Tensor, skd_weight: float, args: tuple, kwargs: dict) -> None:
        """Predictions and loss of the skd and fine-tuning stages."""
        output = self.state.output
        teaches = self.update == "mutual" or (self.auxiliary is not None and skd_weight > 0)
        if teaches:  # before the student, so that no activations of both are kept at the same time
            output["auxiliary_pred"] = self._predict_with_auxiliary(image, args, kwargs)
        output[Keys.PRED] = self.inferer(image, self.network, *args, **kwargs)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)

        pred, auxiliary_pred = output[Keys.PRED], output.get("auxiliary_pred")
        loss = self._label_loss(pred, label)
        output["loss_label"] = loss.detach()
        output["loss_skd"] = torch.zeros_like(output["loss_label"])
        if skd_weight > 0:
            loss_skd = self.distillation(pred, auxiliary_pred)
            output["loss_skd"] = loss_skd.detach()
            loss = loss + skd_weight * loss_skd
        if self.update == "mutual":
            loss_auxiliary = self._label_loss(auxiliary_pred, label)
            if skd_weight > 0:
                loss_auxiliary = loss_auxiliary + skd_weight * self.distillation(auxiliary_pred, pred)
            output["loss_auxiliary"] = loss_auxiliary.detach()
            loss = loss + loss_auxiliary
        output[Keys.LOSS] = loss

    def _label_loss(self, pred: Tensor, label: Tensor) -> Tensor:
        # under autocast the logits are half precision, too coarse for a loss
        return self.loss_function(pred.float() if self.amp else pred, label).mean()

    def _predict_with_auxiliary(self, image: Tensor, args: tuple, kwargs: dict) -> Tensor:
        if self.update == "mutual":
            self.auxiliary.train()
            return self.inferer(image, self.auxiliary, *args, **kwargs)
        self._set_teaching_mode()
        with torch.no_grad():
            return self.inferer(image, self.auxiliary, *args, **kwargs)

    def _set_teaching_mode(self) -> None:
        """Eval mode, but for batch normalisation where the auxiliary gathers its own statistics."""
        self.auxiliary.eval()
        if self.update == "ema":
            for module in self.auxiliary.modules():
                if isinstance(module, _BatchNorm):
                    module.train()

    def _compare_views(self, view_1: Tensor, view_2: Tensor) -> None:
        """Prediction and loss of the label-free stage."""
        output, student, auxiliary = self.state.output, unwrap(self.network), unwrap(self.auxiliary)

        def student_features(view: Tensor) -> Tensor:
            logits, features = penultimate(student, view)
            output.setdefault(Keys.PRED, logits.detach())
            return features

        self.label_free_heads.train()
        self._set_teaching_mode()
        loss = self.label_free_heads(student_features, lambda view: penultimate(auxiliary, view)[1], view_1, view_2)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        output[Keys.LOSS] = loss
        output["loss_skd"] = loss.detach()
        output["loss_label"] = torch.zeros_like(output["loss_skd"])

    def _step(self, moment: Moment) -> None:
        """Moves every network once, the EMA auxiliary last."""
        if self.scaler is None:
            for optimizer in self._optimizers():
                optimizer.step()
        else:
            for optimizer in self._optimizers():
                self.scaler.step(optimizer)
            self.scaler.update()
        if self.update != "ema":
            return
        label_free = moment.stage == "label_free"
        has_statistics = label_free or moment.skd_weight > 0
        update_auxiliary(self.auxiliary, self.network, moment.momentum, buffers=not has_statistics)
        if label_free:
            self.label_free_heads.update(moment.momentum)


def plain(data: Any) -> Any:
    """Returns a MetaTensor's data as an ordinary tensor sharing its memory, and anything else as it is."""
    return data.as_tensor() if isinstance(data, MetaTensor) else data
