# SPDX-License-Identifier: Apache-2.0
"""The commands `dual-skd train`, `evaluate` and `suggest` for Python, and what they return."""

from __future__ import annotations

from dual_skd.utils.lazy import on_first_use

_HOME = {"train": "functions", "evaluate": "functions", "show_batch": "shown_images", "suggest": "suggestions"}
__all__ = [*_HOME]
__getattr__, __dir__ = on_first_use(__name__, _HOME)
