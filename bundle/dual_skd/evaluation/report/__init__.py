# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluated run: one HTML page, its plots, and a model card.

The names below are loaded on first use, so that the command line can ask for its arguments without loading torch.
"""

from __future__ import annotations

__all__ = ["ReportWriter", "write_report"]


def __getattr__(name: str):
    if name in __all__:
        from dual_skd.evaluation.report import writer

        return getattr(writer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
