# SPDX-License-Identifier: Apache-2.0
"""MONAI's supervised evaluator for two networks."""

from __future__ import annotations

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

    ``engine.state.output`` holds ``image``, ``label``, ``pred`` (the student's logits) and ``auxiliary_pred``. So every
    handler and metric made for ``SupervisedEvaluator`` works unchanged. ``amp`` works on CPU too.

    Args:
        auxiliary: the second network, or None.
        kwargs: all arguments of ``monai.engines.SupervisedEvaluator``; ``network`` is the student, ``amp_kwargs`` go to
            ``torch.autocast``, and ``compile`` compiles both networks.
    """

    def __init__(self, *, auxiliary: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.auxiliary: Any = auxiliary
        if auxiliary is not None and self.compile:
            self.auxiliary = torch.compile(auxiliary, **(kwargs.get("compile_kwargs") or {}))

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
