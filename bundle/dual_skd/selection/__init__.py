# SPDX-License-Identifier: Apache-2.0
"""Weight selection: initialises a small network with a consistent subset of a large one's weights."""

from __future__ import annotations

from ..errors import SelectionError
from .compensation import compensate, unlabelled_batches
from .plan import SelectionPlan, plan_selection, select_weights
from .report import SelectionReport, SelectionRow
from .rules import ELEMENT_RULES, LAYER_RULES

__all__ = [
    "ELEMENT_RULES",
    "LAYER_RULES",
    "SelectionError",
    "SelectionPlan",
    "SelectionReport",
    "SelectionRow",
    "compensate",
    "plan_selection",
    "select_weights",
    "unlabelled_batches",
]
