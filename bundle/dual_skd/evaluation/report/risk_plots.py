# SPDX-License-Identifier: Apache-2.0
"""The calibration curve of each class: the observed share against the predicted risk."""

from __future__ import annotations

import numpy as np

from dual_skd.evaluation.analysis import Analysis
from dual_skd.evaluation.report import drawing

READING = (
    "{units} are sorted by the risk of the class, in groups of about equal size. The height is the share of a group "
    "that is of the class. On the dotted line risks are right, below it too high, above it too low. The 95% bars take "
    "into account that images of one patient are alike."
)


def risk_curves(analysis: Analysis) -> list[drawing.Plot]:
    """The curves, a few classes in each plot; of two classes that of the second, as the other is its mirror image."""
    classes = analysis.risk_calibration
    if len(classes) == 2 and not analysis.multi_label:
        classes = classes[1:]
    found, reading = [], READING.format(units=analysis.unit.many.capitalize())
    for start in range(0, len(classes), drawing.CURVES_PER_PLOT):
        part = classes[start : start + drawing.CURVES_PER_PLOT]
        figure, axis = drawing.new_figure(3.9)
        axis.plot([0, 1], [0, 1], color=drawing.GREY, linewidth=0.8, linestyle=":")
        lines, names = [], []
        for place, one in enumerate(part):
            x, y, low, high = np.array([(point.risk, point.observed, point.low, point.high) for point in one.curve]).T
            lines.append(axis.errorbar(
                x, y, yerr=np.abs([y - low, high - y]), color=drawing.PALETTE[place], marker="os^D"[place],
                markersize=4, linewidth=1.2, linestyle=drawing.DASHES[place], elinewidth=0.8, capsize=2,
            ))  # fmt: skip
            names.append(drawing.cut(one.class_name))
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.02, 1.02), xlabel="predicted risk", ylabel="observed share")
        figure.legend(lines, names, loc="outside lower center", ncols=2)
        number = f"_{start // drawing.CURVES_PER_PLOT + 1}" if len(classes) > drawing.CURVES_PER_PLOT else ""
        described = ", ".join(f"{one.class_name} in {len(one.curve)} groups" for one in part)
        found.append(drawing.Plot(
            f"risk_calibration{number}", figure, "Calibration curve", f"observed share against risk of {described}",
            "The next classes, read as the first ones." if start else reading,
        ))  # fmt: skip
    return found
