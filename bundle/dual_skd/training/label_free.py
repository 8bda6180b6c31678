# SPDX-License-Identifier: Apache-2.0
"""Heads of the label-free stage: needed to train, never part of the student's file (BYOL, Grill et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from dual_skd.errors import InputError
from dual_skd.training.ema import update_auxiliary
from dual_skd.training.losses import CosineViewLoss


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

        L = 2 - 2 cos( q(g(f_S(v1))), g_A(f_A(v2)) ) + the views swapped

    Give its parameters to the student's optimiser, and the module to the trainer.

    Args:
        in_features: number of features before the networks' classifier.
        hidden_features: width inside projector and predictor.
        out_features: size of the space in which views are compared.

    Example:
        >>> heads = LabelFreeHeads(in_features=16)
        >>> student = auxiliary = lambda view: view
        >>> heads(student, auxiliary, torch.rand(4, 16), torch.rand(4, 16)).shape
        torch.Size([])
    """

    def __init__(self, in_features: int, hidden_features: int = 512, out_features: int = 128) -> None:
        super().__init__()
        self.projector = perceptron(in_features, hidden_features, out_features)
        self.predictor = perceptron(out_features, hidden_features, out_features)
        self.auxiliary_projector = deepcopy(self.projector).requires_grad_(False)
        self.loss = CosineViewLoss()

    def forward(
        self,
        student: Callable[[Tensor], Tensor],
        auxiliary: Callable[[Tensor], Tensor],
        view_1: Tensor,
        view_2: Tensor,
    ) -> Tensor:
        """Returns the loss of two views.

        Args:
            student: f_S, from images (N, C, H, W[, D]) to features (N, F).
            auxiliary: f_A, likewise; called without gradient.
            view_1: one augmentation of the images.
            view_2: another augmentation of the same images.

        Raises:
            InputError: the batch holds a single image, of which batch statistics can't be taken.
        """
        if len(view_1) < 2:
            raise InputError(
                "the label-free stage needs at least 2 images per batch, found 1; set drop_last in the training loader "
                "or choose a batch_size that leaves no single image over."
            )
        with torch.no_grad():  # the teacher first: its activations are gone before the student's are kept
            target_1 = self.auxiliary_projector(auxiliary(view_1))
            target_2 = self.auxiliary_projector(auxiliary(view_2))
        prediction_1 = self.predictor(self.projector(student(view_1)))
        prediction_2 = self.predictor(self.projector(student(view_2)))
        return self.loss(prediction_1, target_2, prediction_2, target_1)

    def update(self, momentum: float) -> None:
        """Lets the auxiliary's projector follow; its batch statistics are its own."""
        update_auxiliary(self.auxiliary_projector, self.projector, momentum, buffers=False)
