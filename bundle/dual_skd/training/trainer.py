# SPDX-License-Identifier: Apache-2.0
"""MONAI's supervised trainer for tasks of more than one network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.engines.workflow import Workflow
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from torch.optim import Optimizer

from dual_skd.errors import InputError
from dual_skd.runs.bad_numbers import BAD_NUMBER_POLICIES, Buffers, files_of, gradient_norm, in_any_process, is_finite
from dual_skd.runs.distributed import average_statistics, broadcast_networks, lost_process_named, several_processes
from dual_skd.training.former_arguments import task_of
from dual_skd.training.task import Batch, UnlabelledBatch
from dual_skd.utils.wording import first_few

logger = logging.getLogger(__name__)

MAX_SKIPPED_BATCHES = 100  # one after the other, where the length of an epoch isn't known
FILES_NAMED = 5  # of a skipped batch, in a message
UNLABELLED = "unlabelled"  # key of a batch
LOWER_RATE = "Lower learning_rate, or turn amp off"


class DualModelTrainer(SupervisedTrainer):
    """Trains a task: MONAI's ``SupervisedTrainer`` with another iteration.

    The task knows the networks, their losses, and what moves after a step (:class:`dual_skd.DualModelTask`). Of a task
    without auxiliary this is ``SupervisedTrainer``, bit for bit.

    The events and their order are those of ``SupervisedTrainer``. ``engine.state.output`` holds ``image``, ``label``,
    what the task predicts (``pred``, the student's), ``loss`` (what is differentiated), its parts as the task names
    them, and ``gradient_norm`` (of all gradients accumulated so far) unless bad numbers are ignored.

    Networks see plain tensors: a MetaTensor costs more than many a layer of a light network. ``image`` keeps its meta
    data, predictions carry none.

    Args:
        device: where to compute.
        max_epochs: epochs to run.
        train_data_loader: batches, dictionaries with ``image`` (N, C, H, W[, D]) and ``label``, and with images without
            labels ``unlabelled`` (N, R, C, H, W[, D]), R for each labelled one
            (:class:`dual_skd.data.PairedDataset`).
        optimizer: the student's optimiser.
        task: a :class:`dual_skd.DualModelTask`, or a :class:`dual_skd.training.label_free.LabelFreeTask` around it.
        prepare_learned: ``prepare_batch`` of the view of unlabelled images that is learned on, where it is to be
            another one than its teacher sees; default: one view.
        amp: autocast on any device; gradients are scaled where CUDA computes in float16 (``trainer.scaler``, which can
            be put into a checkpoint).
        amp_kwargs: arguments of ``torch.autocast``; its default dtype is float16 on CUDA and bfloat16 on CPU.
        compile: compiles the task's networks.
        compile_kwargs: arguments of ``torch.compile``.
        on_bad_number: when input, loss or gradient holds NaN or infinite numbers. ``stop`` ends the training before
            the optimiser's step, with weights and running statistics as they were; ``skip`` leaves the batch out, logs
            it and counts it in ``trainer.skipped`` (with ``accumulation_steps``, a bad gradient takes the batches
            accumulated so far with it); ``ignore`` doesn't look. Where gradients are scaled, infinite ones are left to
            the scaler, which skips the step and lowers its scale.
        kwargs: all other arguments of ``monai.engines.SupervisedTrainer``. Until version 0.3 also ``network``,
            ``loss_function`` and the task's arguments, in place of ``task``.

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
        optimizer: Optimizer,
        task: Any = None,
        prepare_learned: Callable | None = None,
        amp: bool = False,
        amp_kwargs: dict | None = None,
        compile: bool = False,
        compile_kwargs: dict | None = None,
        on_bad_number: str = "stop",
        **kwargs: Any,
    ) -> None:
        self.task: Any = task_of(task, kwargs, epochs=max_epochs)
        if compile:
            self.task.compile(**(compile_kwargs or {}))
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=self.task.student,
            optimizer=optimizer,
            loss_function=self.task.criterion,
            amp=amp,
            amp_kwargs=amp_kwargs,
            **kwargs,
        )
        self.task.check(epochs=max_epochs, epoch_length=self.state.epoch_length, optimizer=optimizer)
        if on_bad_number not in BAD_NUMBER_POLICIES:
            raise InputError(f"on_bad_number is {on_bad_number!r}; use one of {', '.join(BAD_NUMBER_POLICIES)}.")
        self.on_bad_number = on_bad_number
        self.prepare_learned = prepare_learned
        self.skipped = 0
        self._skipped_in_a_row = 0
        self._accumulated = 0
        # made once, not in run() as MONAI does, so that a checkpoint can hold its state
        self.scaler = torch.amp.GradScaler("cuda") if self._scales_gradients() else None

    def run(self) -> None:
        """Trains from the present state to the last epoch; several processes start with the weights of the first.

        Raises:
            InputError: bad numbers, a batch too small for batch normalisation, or another process was lost.
        """
        schedule = self.task.schedule
        if schedule is not None and (self.state.max_epochs or 0) > schedule.epochs:
            logger.warning(
                "This training goes to epoch %d, and its schedules are made for %d: the learning rate rises again. "
                "For a federation set the option rounds to the number of its rounds.",
                self.state.max_epochs, schedule.epochs,
            )  # fmt: skip
        with lost_process_named():
            if several_processes():
                broadcast_networks(self.task.networks)
            try:
                self._run()
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise InputError(
                    "Batch normalisation has one number per channel in a batch, and so nothing to normalise by (one "
                    "image, which the network has brought down to one pixel); raise batch_size or image_size."
                ) from error

    def _run(self) -> None:
        try:
            Workflow.run(self)
        except BaseException:
            self._internal_run_generator = None  # else ignite's next run would end at once, with nothing done
            raise

    def _iteration(self, engine: DualModelTrainer, batchdata: dict[str, Tensor]) -> dict:
        """One mini-batch; see the class for what it returns."""
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        image, label, args, kwargs = self._prepared(batchdata)
        batch = Batch(
            plain(image),
            infer=lambda network: self.inferer(plain(image), network, *args, **kwargs),
            another_view=lambda: self._another_view(batchdata),
            unlabelled=self._unlabelled(batchdata),
        )
        now = self.task.at(self.state.iteration - 1, self.state.epoch_length, self.accumulation_steps)
        output = self.state.output = {Keys.IMAGE: image, Keys.LABEL: label}
        opens, closes = self._accumulation()
        self.network.train()
        if opens:
            self._forget_gradients()
        buffers = None if self.on_bad_number == "ignore" else Buffers(self.task.networks)
        with self._autocast():
            output.update(self.task.predict(batch, now))
            self.fire_event(IterationEvents.FORWARD_COMPLETED)
            output.update(self.task.loss(output, plain(label), now))
            self.fire_event(IterationEvents.LOSS_COMPLETED)

        loss = self.state.output[Keys.LOSS]  # read again: a handler may have changed it
        if buffers is not None and self._is_bad(is_finite([*batch.images, loss])):
            where = "loss" if is_finite(batch.images) else "input"
            self._leave_out(batchdata, batch, where, buffers)
        else:
            self._differentiate(loss, batchdata, batch, buffers)
            if several_processes():
                average_statistics(self.task.networks)
        if closes and self._accumulated:
            self.task.before_step(self.optimizer, now)
            self._step()
            self.task.after_step(now)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _prepared(self, batchdata: Any) -> tuple[Any, Any, tuple, dict]:
        """Image, label, and further positional and keyword arguments of the networks."""
        batch = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        return (*batch, (), {}) if len(batch) == 2 else batch

    def _unlabelled(self, batchdata: Any) -> UnlabelledBatch | None:
        """The images without labels of a batch, in the views of teacher and learner."""
        given = batchdata.get(UNLABELLED) if isinstance(batchdata, Mapping) else None
        if given is None:
            return None
        images = {Keys.IMAGE: given.flatten(0, 1)}
        image, learned = self._view(self.prepare_batch, images), None
        if self.prepare_learned is not None:
            learned = self._view(self.prepare_learned, images)

        def infer(view: Tensor, network: Any) -> Tensor:
            return self.inferer(view, network)

        learned = image if learned is None else learned
        return UnlabelledBatch(image, partial(infer, image), learned, partial(infer, learned))

    def _view(self, prepare: Callable, images: dict[str, Tensor]) -> Tensor:
        return plain(prepare(images, self.state.device, self.non_blocking, **self.to_kwargs)[0])

    def _another_view(self, batchdata: Any) -> Tensor:
        with torch.autocast(self.state.device.type, enabled=False):  # augmented in full precision, as the first one
            return plain(self._prepared(batchdata)[0])

    def _optimizers(self) -> list[Optimizer]:
        return [self.optimizer, *self.task.optimizers]

    def _forget_gradients(self) -> None:
        self._accumulated = 0
        for optimizer in self._optimizers():
            optimizer.zero_grad(set_to_none=self.optim_set_to_none)

    def _scales_gradients(self) -> bool:
        on_cuda = self.amp and self.state.device.type == "cuda"
        return on_cuda and self.amp_kwargs.get("dtype", torch.float16) == torch.float16

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.state.device.type, **self.amp_kwargs) if self.amp else nullcontext()

    def _accumulation(self) -> tuple[bool, bool]:
        """Whether this iteration opens and whether it closes a group of accumulated batches; an epoch's end closes."""
        length = self.state.epoch_length
        position = (self.state.iteration - 1) % length if length else self.state.iteration - 1
        closes = (position + 1) % self.accumulation_steps == 0 or position + 1 == length
        return position % self.accumulation_steps == 0, closes

    def _differentiate(self, loss: Tensor, batchdata: Any, batch: Batch, buffers: Buffers | None) -> None:
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
            self._leave_out(batchdata, batch, "gradient", buffers)
            self._forget_gradients()
        else:
            self._skipped_in_a_row = 0

    def _is_bad(self, good: Tensor) -> bool:
        return in_any_process(not good.item(), self.state.device)

    def _leave_out(self, batchdata: Any, batch: Batch, where: str, buffers: Buffers) -> None:
        """Takes the batch out of the running statistics, and stops, or goes on without it."""
        buffers.restore()
        names = self._files_of(batchdata, batch)
        place = f"epoch {self.state.epoch}, iteration {self.state.iteration}"
        files = f" (files: {first_few(names, FILES_NAMED)})" if names else ""
        self._skipped_in_a_row += 1
        endless = self._skipped_in_a_row >= (self.state.epoch_length or MAX_SKIPPED_BATCHES)
        if self.on_bad_number == "stop" or endless:
            remedy = "Look at these images with `dual-skd check`" if where == "input" else LOWER_RATE
            skipped = f", as in {self._skipped_in_a_row} batches one after the other" if endless else ""
            raise InputError(
                f"The {where} holds NaN or infinite numbers in {place}{skipped}{files}; the weights are those of "
                f"the step before. {remedy}, or set on_bad_number to skip."
            )
        self.skipped += 1
        logger.warning("Skipped the batch of %s (%d so far): bad %s%s.", place, self.skipped, where, files)

    def _files_of(self, batchdata: Any, batch: Batch) -> list[str]:
        """The files of a bad batch: labelled ones, or those without labels where these alone have bad numbers."""
        dataset = getattr(self.data_loader, "dataset", None)
        if batch.unlabelled is None:
            return files_of(batchdata, batch.image, dataset)
        if is_finite([batch.image]) and not is_finite(batch.images):
            images = {Keys.IMAGE: batchdata[UNLABELLED].flatten(0, 1)}
            return files_of(images, batch.unlabelled.image, getattr(dataset, UNLABELLED, None))
        return files_of(batchdata, batch.image, getattr(dataset, "labelled", None))

    def _step(self) -> None:
        for optimizer in self._optimizers():
            if self.scaler is None:
                optimizer.step()
            else:
                self.scaler.step(optimizer)
        if self.scaler is not None:
            self.scaler.update()


def plain(data: Any) -> Any:
    """Returns a MetaTensor's data as an ordinary tensor sharing its memory, and anything else as it is."""
    return data.as_tensor() if isinstance(data, MetaTensor) else data
