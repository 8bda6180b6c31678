# SPDX-License-Identifier: Apache-2.0
"""What a trained student becomes outside of training: files for other runtimes, and reports for archives."""

from __future__ import annotations

from dual_skd.utils.lazy import on_first_use

__getattr__, __dir__ = on_first_use(__name__, {})
