# SPDX-License-Identifier: Apache-2.0
"""What makes a run safe: checkpoints, its lock, its record, its best model, several processes."""

from __future__ import annotations

from dual_skd.utils.lazy import on_first_use

_HOME = {"MetricsRecorder": "recorder", "score": "recorder"}
__all__ = [*_HOME]
__getattr__, __dir__ = on_first_use(__name__, _HOME, former={"goodness": "dual_skd.runs.recorder"})
