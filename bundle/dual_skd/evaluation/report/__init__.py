# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluated run: one HTML page, its plots, and a model card.

The names below are loaded on first use, so that the command line can ask for its arguments without loading torch.
"""

from __future__ import annotations

from dual_skd.utils.lazy import on_first_use

__all__ = ["ReportWriter", "write_report"]
__getattr__, __dir__ = on_first_use(__name__, dict.fromkeys(__all__, "writer"))
