# SPDX-License-Identifier: Apache-2.0
"""The result of predicting, read from its table."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dual_skd.api.result_base import Result
from dual_skd.errors import InputError
from dual_skd.utils.csv_text import read_rows
from dual_skd.utils.files import expanded
from dual_skd.utils.wording import quoted

MAX_LINES = 5  # classes, and kinds of problems, in the text
MAX_PROBLEM_CHARACTERS = 240  # characters of a problem in the text


@dataclass(frozen=True, repr=False)
class InferenceResult(Result):
    """A table of predictions, ``predictions.csv`` of a folder.

    Args:
        table: the file.

    Raises:
        InputError: there is no such file.
    """

    table: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", expanded(self.table))
        if not self.table.is_file():
            raise InputError(f"There is no table of predictions {self.table}; give the one that predicting wrote.")

    @property
    def predictions(self) -> list[dict[str, str]]:
        """The rows."""
        return list(read_rows(self.table))

    @cached_property
    def answers(self) -> dict[str, int]:
        """Predicted class, "" for none -> number of images, the most frequent first."""
        found = Counter(row["predicted"] for row in read_rows(self.table) if not row.get("problem"))
        return dict(found.most_common())

    @cached_property
    def problems(self) -> dict[str, int]:
        """Why images can't be used -> how many; reasons that differ in names and numbers alone are one."""
        first: dict[str, str] = {}
        found: Counter[str] = Counter()
        for row in read_rows(self.table):
            if problem := row.get("problem"):
                image = row["image"]
                kind = re.sub(r"\d+", "n", problem.replace(image, "").replace(Path(image).name, ""))
                found[kind] += 1
                first.setdefault(kind, problem.replace(image, Path(image).name))
        return {first[kind]: count for kind, count in found.most_common()}

    def title(self) -> str:
        return f"Predicted: {self.table}"

    def rows(self) -> list[tuple[str, str | Path]]:
        answered, unused = sum(self.answers.values()), sum(self.problems.values())
        shown = [f"{name or 'none'} {count}" for name, count in self.answers.items()]
        rest = ["..."] if len(shown) > MAX_LINES else []
        rows: list[tuple[str, str | Path]] = [
            ("images", f"{answered + unused}, {answered} answered" + (f", {unused} not" if unused else "")),
            ("answers", ", ".join(shown[:MAX_LINES] + rest)),
        ]
        kinds = [f"{count}: {_shortened(problem)}" for problem, count in self.problems.items()]
        rest = [f"{len(kinds) - MAX_LINES} more reasons, in the column problem"] if len(kinds) > MAX_LINES else []
        return rows + [("" if place else "not used", kind) for place, kind in enumerate(kinds[:MAX_LINES] + rest)]

    def next_command(self) -> str:
        run = self.table.parent
        return f"dual-skd export {quoted(run)}" if (run / "models" / "model.pt").is_file() else ""


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_PROBLEM_CHARACTERS else f"{text[: MAX_PROBLEM_CHARACTERS - 4]} ..."
