# SPDX-License-Identifier: Apache-2.0
"""MONAI's supervised evaluator with the auxiliary's prediction beside the student's."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn

from dual_skd.training.trainer import plain


class DualModelEvaluator(SupervisedEvaluator):
    """Evaluates the student and, where there is one, the auxiliary on the same images.

    ``engine.state.output`` holds ``image``, ``label``, ``pred`` (the student's logits) and ``auxiliary_pred``. Unlike
    MONAI's ensemble evaluator this keeps ``pred`` for the student, so that every handler and metric made for
    ``SupervisedEvaluator`` works unchanged, and ``amp`` works on CPU too.

    Args:
        device: where to compute.
        val_data_loader: batches, dictionaries with ``image`` (N, C, H, W[, D]) and ``label``.
        network: the student.
        auxiliary: the second network, or None.
        compile: compiles both networks.
        compile_kwargs: arguments of ``torch.compile``.
        kwargs: all other arguments of ``monai.engines.SupervisedEvaluator``; ``amp_kwargs`` go to ``torch.autocast``.
    """

    def __init__(
        self,
        *,
        device: str | torch.device,
        val_data_loader: Iterable,
        network: nn.Module,
        auxiliary: nn.Module | None = None,
        compile: bool = False,
        compile_kwargs: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            device=torch.device(device),
            val_data_loader=val_data_loader,
            network=network,
            compile=compile,
            compile_kwargs=compile_kwargs,
            **kwargs,
        )
        self.auxiliary: Any = auxiliary
        if auxiliary is not None and compile:
            self.auxiliary = torch.compile(auxiliary, **(compile_kwargs or {}))

    def _iteration(self, engine: DualModelEvaluator, batchdata: dict[str, Tensor]) -> dict:
        """One mini-batch; see the class for what it returns."""
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        batch = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        image, label, args, kwargs = (*batch, (), {}) if len(batch) == 2 else batch
        self.state.output = {Keys.IMAGE: image, Keys.LABEL: label}

        networks = {Keys.PRED: self.network}
        if self.auxiliary is not None:
            networks["auxiliary_pred"] = self.auxiliary
        autocast = torch.autocast(self.state.device.type, **self.amp_kwargs) if self.amp else nullcontext()
        with self.mode(*networks.values()), autocast:
            for key, network in networks.items():
                # float32 whatever autocast chose: half-precision probabilities tie, and ties cost AUC
                self.state.output[key] = self.inferer(plain(image), network, *args, **kwargs).float()
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output
