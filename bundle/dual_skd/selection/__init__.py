# SPDX-License-Identifier: Apache-2.0
"""Weight selection: initialises a small network with a consistent subset of a large one's weights.

The public names are loaded on first use, so that the command line can ask for its arguments without PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import SelectionError

_HOME = {
    "ELEMENT_RULES": "names",
    "LAYER_RULES": "names",
    "SelectionPlan": "plan",
    "SelectionReport": "report",
    "SelectionRow": "report",
    "compensate": "compensation",
    "plan_selection": "plan",
    "select_weights": "plan",
    "unlabelled_batches": "compensation",
}
__all__ = ["SelectionError", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
