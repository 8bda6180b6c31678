# SPDX-License-Identifier: Apache-2.0
"""The acceptance check of an artefact: its outputs against those of the network in PyTorch, on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dual_skd.metrics.classification import classification_metrics
from dual_skd.metrics.probabilities import probabilities

MAX_DIFFERENCE = 1e-5  # largest difference of a probability that another order of summation explains
MAX_AUC_DROP = 0.002
MAX_CHANGED = 0.005  # share of the decisions


@dataclass(frozen=True)
class Comparison:
    """An artefact's outputs beside the reference's.

    Attributes:
        images: how many were compared.
        max_difference: largest difference of a probability; infinite where the artefact's aren't finite numbers.
        auc_reference, auc: macro AUC of both, None where a class has no image.
        changed: share of the images whose decision (the most probable class, or the set of labels above one half) is
            another one.
    """

    images: int
    max_difference: float
    auc_reference: float | None
    auc: float | None
    changed: float

    @property
    def auc_drop(self) -> float | None:
        return None if self.auc is None or self.auc_reference is None else self.auc_reference - self.auc

    def refusal(self, *, reduced: bool) -> str:
        """Why the artefact is refused, with the numbers; "" where it passes.

        Args:
            reduced: whether the format keeps less than 32 bits: then AUC and decisions count, else each probability.
        """
        if not reduced:
            passed = self.max_difference <= MAX_DIFFERENCE
            return "" if passed else f"a probability differs by {self.max_difference:.2g}, more than {MAX_DIFFERENCE:g}"
        reasons = []
        if self.auc_drop is not None and self.auc_drop > MAX_AUC_DROP:
            reasons.append(f"AUC falls from {self.auc_reference:.4f} to {self.auc:.4f}, by more than {MAX_AUC_DROP:g}")
        if self.changed > MAX_CHANGED:
            count = round(self.changed * self.images)
            reasons.append(
                f"{count} of {self.images} decisions change ({self.changed:.2%}), more than {MAX_CHANGED:.1%}"
            )
        if not self.max_difference < float("inf"):
            reasons.append("probabilities are not finite numbers")
        return "; ".join(reasons)


def compare_logits(
    reference: Tensor, logits: Tensor, labels: Tensor, *, temperature: float = 1.0, multi_label: bool = False
) -> Comparison:
    """Compares logits (N, K) of an artefact with those of the reference.

    Args:
        reference, logits: (N, K), before the temperature.
        labels: (N,) class indices, or (N, K) zeros and ones with ``multi_label``.
        temperature: by which logits are divided before probabilities are compared.
        multi_label: sigmoid per class instead of softmax.
    """
    one, other = (
        probabilities(values.double(), temperature, multi_label=multi_label) for values in (reference, logits)
    )
    if reference.shape != logits.shape or not other.isfinite().all():
        return Comparison(len(labels), float("inf"), _auc(reference, labels, multi_label), None, 1.0)
    changed = ((one > 0.5) != (other > 0.5)).any(1) if multi_label else one.argmax(1) != other.argmax(1)
    return Comparison(
        images=len(labels),
        max_difference=(one - other).abs().max().item(),
        auc_reference=_auc(reference, labels, multi_label),
        auc=_auc(logits, labels, multi_label),
        changed=changed.double().mean().item(),
    )


def _auc(logits: Tensor, labels: Tensor, multi_label: bool) -> float | None:
    return classification_metrics(torch.as_tensor(logits), labels, multi_label=multi_label)["macro_auc"]
