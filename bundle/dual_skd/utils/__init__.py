# SPDX-License-Identifier: Apache-2.0
"""What every room uses: files written whole, wording of messages, the log, progress bars."""

from __future__ import annotations

from dual_skd.utils.lazy import on_first_use

__getattr__, __dir__ = on_first_use(__name__, {})
