# SPDX-License-Identifier: Apache-2.0
"""The words that say how weights are selected, apart from what follows them: help is written without PyTorch."""

from __future__ import annotations

ELEMENT_RULES = ("uniform", "consecutive", "complement", "random", "importance")
LAYER_RULES = ("first", "last", "even")
