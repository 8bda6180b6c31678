# SPDX-License-Identifier: Apache-2.0
"""Weight selection: initialises a small network with a consistent subset of a large one's weights.

The public names are loaded on first use, so that the command line can ask for its arguments without PyTorch.
"""

from __future__ import annotations

from dual_skd.errors import SelectionError
from dual_skd.utils.lazy import on_first_use

_HOME = {
    "ELEMENT_RULES": "rules",
    "LAYER_RULES": "rules",
    "PlanCheck": "check",
    "SelectionPlan": "plan",
    "SelectionReport": "report",
    "SelectionRow": "report",
    "plan_selection": "plan",
    "select_weights": "plan",
}
__all__ = ["SelectionError", *_HOME]
__getattr__, __dir__ = on_first_use(__name__, _HOME, beside=["SelectionError"])
