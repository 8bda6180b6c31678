# SPDX-License-Identifier: Apache-2.0
"""The method: two networks that start from one large network's weights and teach each other."""

from __future__ import annotations

from dual_skd.utils.lazy import on_first_use

__getattr__, __dir__ = on_first_use(__name__, {})
