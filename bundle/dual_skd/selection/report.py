# SPDX-License-Identifier: Apache-2.0
"""What a selection did, one row per tensor, as CSV and as a notebook shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from dual_skd.utils.files import write_csv


@dataclass(frozen=True)
class SelectionRow:
    """What happens to one tensor of the small network; ``dataclasses.asdict`` makes a dictionary of it.

    Args:
        name: name in the small network.
        source: name in the large network, None where nothing is selected.
        shape: shape in the small network.
        source_shape: shape in the large network, None without a source.
        kept: axis name -> indices kept of the large network's axis.
        norm_share: squared norm of the kept entries over that of the whole source tensor, None without values.
        reason: why nothing is selected, ``""`` for selected tensors.
        note: what was adapted besides (input channels, kernel, positions), ``""`` for a plain copy.
    """

    name: str
    source: str | None
    shape: tuple[int, ...]
    source_shape: tuple[int, ...] | None
    kept: dict[str, list[int]]
    norm_share: float | None
    reason: str = ""
    note: str = ""

    @property
    def selected(self) -> bool:
        return not self.reason


class SelectionReport(list[SelectionRow]):
    """The rows of a selection, one per tensor of the small network, in its order."""

    def __init__(self, rows: Sequence[SelectionRow], *, verified: bool) -> None:
        super().__init__(rows)
        self.verified = verified

    def __repr__(self) -> str:
        return f"SelectionReport: {sum(row.selected for row in self)} of {len(self)} tensors selected; a row for each"

    def _repr_html_(self) -> str:
        head = ("tensor", "shape", "from", "of shape", "share of its norm", "not selected because", "adapted")
        rows = [(row.name, _by(row.shape), row.source or "", _by(row.source_shape or ()),
                 "" if row.norm_share is None else f"{row.norm_share:.3f}", row.reason, row.note)
                for row in self]  # fmt: skip
        return as_table([head, *rows])

    def write(self, path: str | Path, *, extra: Mapping[str, Any] | None = None) -> Path:
        """Writes the report as CSV; ``extra`` columns (constant) come first. Returns the path."""
        extra = dict(extra or {})
        header = [*extra, *(column.name for column in fields(SelectionRow)), "verified"]
        write_csv(path, [header, *([*extra.values(), *cells, self.verified] for cells in map(_cells, self))])
        return Path(path)


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """HTML of rows, every text escaped."""
    cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _cells(row: SelectionRow) -> list[Any]:
    kept = json.dumps({axis: _compact(indices) for axis, indices in row.kept.items()}) if row.kept else ""
    share = "" if row.norm_share is None else f"{row.norm_share:.6f}"
    shape = "x".join(map(str, row.shape))
    source_shape = "" if row.source_shape is None else "x".join(map(str, row.source_shape))
    return [row.name, row.source or "", shape, source_shape, kept, share, row.reason, row.note]


def _compact(indices: list[int]) -> str | list[int]:
    """An evenly spaced list as ``start:stop:step``, any other as it is."""
    steps = {after - before for before, after in pairwise(indices)}
    if len(steps) > 1 or not indices:
        return indices
    step = steps.pop() if steps else 1
    return f"{indices[0]}:{indices[-1] + 1}:{step}"
