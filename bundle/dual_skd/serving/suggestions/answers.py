# SPDX-License-Identifier: Apache-2.0
"""What student and auxiliary say about images, with the features that they say it by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from dual_skd.networks.inspect import penultimate
from dual_skd.serving.suggestions.strategies import Answers
from dual_skd.serving.torch_predictor import TorchPredictor


def ask(predictor: TorchPredictor, batches: Iterable[Sequence[Tensor]], *, features: bool = True) -> Answers:
    """Asks student and, where there is one, auxiliary about prepared images.

    Args:
        predictor: the loaded model.
        batches: images (1, H, W[, D]) as :meth:`TorchPredictor.prepare` gives them, in small lists.
        features: take what enters the last layers too.

    Raises:
        InputError: features are asked for, and a network doesn't end in one linear layer.
    """
    networks = [(predictor.network, predictor.student_probabilities)]
    if predictor.auxiliary is not None:
        networks.append((predictor.auxiliary, predictor.auxiliary_probabilities))
    found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in networks]
    for batch in batches:
        images = torch.stack(list(batch)).to(predictor.device)
        for parts, (network, probabilities) in zip(found, networks, strict=True):
            with torch.inference_mode():
                logits, pooled = penultimate(network, images) if features else (network(images), torch.empty(0))
                parts.append((probabilities(logits.float()).cpu().numpy(), pooled.float().cpu().numpy()))
    if not found[0]:  # no image can be used
        nothing = np.empty((0, len(predictor.rules.class_names)))
        return Answers([nothing] * len(networks), [np.empty((0, 0))] * len(networks), predictor.rules.multi_label)
    columns = [[np.concatenate(part) for part in zip(*parts, strict=True)] for parts in found]
    return Answers(
        [column[0] for column in columns],
        [column[1] for column in columns] if features else None,
        predictor.rules.multi_label,
    )
