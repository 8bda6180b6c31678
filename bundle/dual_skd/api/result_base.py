# SPDX-License-Identifier: Apache-2.0
"""What all results share: a text, its form in a notebook, and the files of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dual_skd.runs.metrics_file import read_metrics
from dual_skd.utils.files import expanded, read_json
from dual_skd.utils.wording import closing

if TYPE_CHECKING:
    from torch import nn


class Result(ABC):
    """A result with a text, which a notebook shows as HTML."""

    @abstractmethod
    def title(self) -> str:
        """The first line: what was made, and where."""

    @abstractmethod
    def rows(self) -> list[tuple[str, str | Path]]:
        """Name and text of each further line; "" for what isn't known."""

    @abstractmethod
    def next_command(self) -> str:
        """The command that comes next; "" for none."""

    def __repr__(self) -> str:
        return closing(self.title(), self.rows())

    def _repr_html_(self) -> str:
        from dual_skd.api.notebook import result_html

        return result_html(self)


@dataclass(frozen=True, repr=False)
class RunResult(Result):
    """What is read from the folder of a run."""

    output_dir: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_dir", expanded(self.output_dir))

    @cached_property
    def _run(self) -> dict[str, Any]:
        return read_json(self.output_dir / "run.json")

    @cached_property
    def _record(self) -> dict[str, Any]:
        return read_metrics(self.output_dir)

    def model(self) -> tuple[nn.Module, dict[str, Any]]:
        """The run's student and what describes it, see :func:`dual_skd.load_model`."""
        from dual_skd.runs.model_file import load_model

        return load_model(self.output_dir)


def last_words(result: Result) -> str:
    """The end of a command: what was made, where, the main numbers, and the next command, ready to paste."""
    return closing(result.title(), result.rows(), result.next_command())
