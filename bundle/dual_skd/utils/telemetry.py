# SPDX-License-Identifier: Apache-2.0
"""Switches off what libraries would send to their makers; docs/privacy.md has the list."""

from __future__ import annotations

import os
import sys
from typing import Any

VARIABLES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime looks at it when it is imported, no later
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
SENDERS = ("openvino_telemetry",)  # OpenVINO and NNCF send through it, and do without where it isn't installed


def switch_off_telemetry() -> None:
    """Switches it off in this process and in those that it starts; a variable that the user has set stays."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    modules: dict[str, Any] = sys.modules
    for name in SENDERS:
        modules.setdefault(name, None)  # what imports it takes it for not installed
