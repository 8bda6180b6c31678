# SPDX-License-Identifier: Apache-2.0
"""From the predictions of a run to its report: analysis, comparison, explanation, robustness, pages.

The public names are loaded on first use, so that nothing pays for what it does not need.
"""

from __future__ import annotations

from dual_skd import metrics, runs
from dual_skd.utils.lazy import on_first_use

_HOME = {
    "choose_cases": "explanation",
    "explain": "explanation",
    "overlay": "explanation",
    "panels": "explanation",
    "MeasuredImages": "measured_images",
    "evaluation_name": "measured_images",
}
__all__ = [*_HOME]
__getattr__, __dir__ = on_first_use(
    __name__,
    _HOME,
    former={
        **dict.fromkeys(metrics.__all__, "dual_skd.metrics"),
        **dict.fromkeys(runs.__all__, "dual_skd.runs"),
        "bootstrap_intervals": "dual_skd.metrics.intervals",
        "goodness": "dual_skd.runs.recorder",
    },
)
