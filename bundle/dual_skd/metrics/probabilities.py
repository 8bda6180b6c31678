# SPDX-License-Identifier: Apache-2.0
"""Probabilities from logits, of PyTorch or NumPy: what ONNX Runtime answers needs no PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Logits = TypeVar("Logits", "Tensor", "np.ndarray[Any, Any]")


def probabilities(logits: Logits, temperature: float | None = None, *, multi_label: bool = False) -> Logits:
    """Softmax, or with several labels per image sigmoid, of logits (N, K) divided by the temperature; same type."""
    scaled = logits / (temperature or 1.0)
    if not isinstance(scaled, np.ndarray):
        return scaled.sigmoid() if multi_label else scaled.softmax(1)
    if multi_label:
        with np.errstate(over="ignore"):  # exp of much is infinite, and the probability 0
            return 1 / (1 + np.exp(-scaled))
    odds = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)
