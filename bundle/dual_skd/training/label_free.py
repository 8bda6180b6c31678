# SPDX-License-Identifier: Apache-2.0
"""The label-free stage: two views of an image have to agree, before any label is used (BYOL, Grill et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dual_skd.errors import InputError
from dual_skd.networks.inspect import classifier_of, penultimate, unwrap
from dual_skd.runs.distributed import average_gradients, several_processes
from dual_skd.training.ema import update_auxiliary
from dual_skd.training.losses import view_loss
from dual_skd.training.schedule import ScheduleValues
from dual_skd.training.task import Batch, DualModelTask


def perceptron(in_features: int, hidden_features: int, out_features: int) -> nn.Sequential:
    """Builds Linear, BatchNorm, ReLU, Linear: the form of BYOL's projector and predictor."""
    return nn.Sequential(
        nn.Linear(in_features, hidden_features, bias=False),
        nn.BatchNorm1d(hidden_features),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_features, out_features),
    )


class LabelFreeHeads(nn.Module):
    """Projector g and predictor q of the student, and the auxiliary's projector g_A, which follows g by EMA.

    They are never part of the student's file. Give their parameters to the student's optimiser.

    Args:
        in_features: number of features before the networks' classifier.
        hidden_features: width inside projector and predictor.
        out_features: size of the space in which views are compared.
    """

    def __init__(self, in_features: int, hidden_features: int = 512, out_features: int = 128) -> None:
        super().__init__()
        self.projector = perceptron(in_features, hidden_features, out_features)
        self.predictor = perceptron(out_features, hidden_features, out_features)
        self.auxiliary_projector = deepcopy(self.projector).requires_grad_(False)

    @classmethod
    def for_network(cls, network: nn.Module) -> LabelFreeHeads:
        """Builds the heads for a network's features."""
        return cls(classifier_of(network)[1].in_features)


class LabelFreeTask:
    """Label-free epochs, then another task; what isn't defined here is the other task's.

        L = 2 - 2 cos( q(g(f_S(v1))), g_A(f_A(v2)) ) + the views swapped

    f are the features before the classifier, v two augmentations of the same images. The networks run uncompiled and
    outside DistributedDataParallel, which doesn't see a forward pass that ends in other heads: the gradients are
    averaged here.

    Args:
        task: what follows; its auxiliary moves by EMA, and its schedule has the label-free epochs.
        heads: with their parameters in the student's optimiser.

    Raises:
        InputError: the auxiliary moves otherwise.
    """

    def __init__(self, task: DualModelTask, heads: LabelFreeHeads) -> None:
        if task.update != "ema":
            raise InputError(
                f"label-free epochs need update 'ema', found {task.update!r}; set method to 'dual', or "
                "label_free_epochs to 0."
            )
        self.task = task
        self.heads = heads

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    @property
    def networks(self) -> list[nn.Module]:
        """All modules with weights or statistics of this task."""
        return [*self.task.networks, self.heads]

    def check(self, *, epochs: int, epoch_length: int | None, optimizer: Optimizer) -> None:
        """Checks that the task fits the trainer, as :meth:`DualModelTask.check`, and the optimiser knows the heads."""
        self.task.check_schedule(epochs, epoch_length)
        optimised = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if any(p.requires_grad and id(p) not in optimised for p in self.heads.parameters()):
            raise InputError(
                "the optimizer doesn't know the label-free heads; build it from the parameters of network and heads."
            )

    def predict(self, batch: Batch, now: ScheduleValues) -> dict[str, Tensor]:
        """Returns z_S of the first view as ``pred``, and what :func:`view_loss` compares.

        Raises:
            InputError: the batch holds a single image, of which batch statistics can't be taken.
        """
        if now.stage != "label_free":
            return self.task.predict(batch, now)
        if len(batch.image) < 2:
            raise InputError(
                "the label-free stage needs at least 2 images per batch, found 1; set drop_last in the training loader "
                "or choose a batch_size that leaves no single image over."
            )
        student, auxiliary = unwrap(self.task.student), unwrap(self.task.auxiliary)
        heads = self.heads.train()
        self.task.set_teaching_mode()
        views = [batch.image, batch.another_view()]
        with torch.no_grad():  # the teacher first: its activations are gone before the student's are kept
            output = {
                f"target_{n}": heads.auxiliary_projector(penultimate(auxiliary, view)[1])
                for n, view in enumerate(views, 1)
            }
        for n, view in enumerate(views, 1):
            logits, features = penultimate(student, view)
            output.setdefault("pred", logits.detach())
            output[f"prediction_{n}"] = heads.predictor(heads.projector(features))
        return output

    def loss(self, output: Mapping[str, Any], label: Tensor, now: ScheduleValues) -> dict[str, Any]:
        """Returns the parts of :meth:`DualModelTask.loss`; ``loss_skd`` is the loss of the views."""
        if now.stage != "label_free":
            return self.task.loss(output, label, now)
        loss = view_loss(output["prediction_1"], output["target_2"], output["prediction_2"], output["target_1"])
        return {
            "loss": loss,
            "loss_label": torch.zeros_like(loss.detach()),
            "loss_skd": loss.detach(),
            "skd_weight": now.skd_weight,
            "momentum": now.momentum,
        }

    def before_step(self, optimizer: Optimizer, now: ScheduleValues) -> None:
        """Averages the gradients of several processes."""
        if now.stage == "label_free" and several_processes():
            average_gradients(optimizer)

    def after_step(self, now: ScheduleValues) -> None:
        """Moves the auxiliary and its projector; their batch statistics are their own."""
        if now.stage != "label_free":
            return self.task.after_step(now)
        update_auxiliary(self.task.auxiliary, self.task.student, now.momentum, buffers=False)
        update_auxiliary(self.heads.auxiliary_projector, self.heads.projector, now.momentum, buffers=False)
