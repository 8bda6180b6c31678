# SPDX-License-Identifier: Apache-2.0
"""The command ``dual-skd``: one module per word."""

from __future__ import annotations

from dual_skd.utils.lazy import on_first_use

_HOME = {"main": "dispatch"}
__all__ = [*_HOME]
__getattr__, __dir__ = on_first_use(__name__, _HOME)
