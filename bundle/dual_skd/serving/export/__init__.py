# SPDX-License-Identifier: Apache-2.0
"""Files of a trained student for other runtimes."""

from __future__ import annotations

from dual_skd.utils.lazy import on_first_use

__getattr__, __dir__ = on_first_use(__name__, {})
