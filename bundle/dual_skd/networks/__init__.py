# SPDX-License-Identifier: Apache-2.0
"""Networks by name, 2D and 3D, and where their pretrained weights come from.

The public names are loaded on first use.
"""

from __future__ import annotations

from dual_skd.utils.lazy import on_first_use

_HOME = {
    "build_network": "build",
    "classifier_of": "inspect",
    "count_macs": "inspect",
    "count_parameters": "inspect",
    "penultimate": "inspect",
    "require_architecture": "build",
    "allow_network": "allowed",
    "load_pretrained": "pretrained",
    "load_state_file": "weight_files",
}
__all__ = [*_HOME]
__getattr__, __dir__ = on_first_use(__name__, _HOME)
