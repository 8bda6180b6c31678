# SPDX-License-Identifier: Apache-2.0
"""Tables in Markdown, which is what most of these programs print."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def table_row(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def table_head(names: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [table_row(names), table_row(["---"] * len(names))]


def mean_and_deviation(values: Sequence[float] | np.ndarray) -> str:
    """Mean and sample standard deviation, "0.912 ± 0.013"; empty without values. NaN is left out."""
    known = np.asarray([value for value in values if not np.isnan(value)])
    if not len(known):
        return ""
    return f"{known.mean():.3f}" + (f" ± {known.std(ddof=1):.3f}" if len(known) > 1 else "")
