# SPDX-License-Identifier: Apache-2.0
"""``metrics.json`` of a run, whatever version wrote it: its numbers are all on today's scales."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dual_skd.utils.files import read_json, write_json

NAME = "metrics.json"
REVISION = 2  # of the scales: since 2 the Brier score of two classes is from 0 to 1, before it was from 0 to 2


def read_metrics(directory: str | Path) -> dict[str, Any]:
    """The content of ``metrics.json`` in a run's folder; empty without one.

    Args:
        directory: of the run; its ``datalist.json`` says whether an image may have several labels.

    Raises:
        InputError: a file isn't JSON.
    """
    directory = Path(directory)
    record = read_json(directory / NAME)
    if not record or record.get("revision", 1) >= REVISION:
        return record
    if len(record.get("class_names") or []) == 2 and not _several_labels(read_json(directory / "datalist.json")):
        record = _with_half_of_brier(record)
    return record | {"revision": REVISION}


def write_metrics(directory: str | Path, record: Mapping[str, Any]) -> None:
    """Writes ``metrics.json`` into a run's folder: what :func:`read_metrics` gave, with what is new."""
    write_json(Path(directory) / NAME, {**record, "revision": REVISION})


def brier_on_todays_scale(value: float, revision: int, classes: int, *, multi_label: bool) -> float:
    """A Brier score, or its negative, that was kept under another revision of the scales."""
    return value / 2 if revision < REVISION and classes == 2 and not multi_label else value


def _several_labels(datalist: Mapping[str, Any]) -> bool:
    records = [record for section in ("training", "validation", "test") for record in datalist.get(section) or []]
    return any(isinstance(record.get("label"), list) for record in records)


def _with_half_of_brier(content: Any, *, within: bool = False) -> Any:
    """The same with half of every number that stands under the name ``brier``."""
    if isinstance(content, dict):
        return {key: _with_half_of_brier(one, within=within or key == "brier") for key, one in content.items()}
    if isinstance(content, list):
        return [_with_half_of_brier(one, within=within) for one in content]
    return content / 2 if within and isinstance(content, float | int) else content
