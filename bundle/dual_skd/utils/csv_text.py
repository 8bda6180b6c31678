# SPDX-License-Identifier: Apache-2.0
"""CSV tables that hold the names of strangers: no cell is a formula, and what is read is what was written."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

# What a spreadsheet takes for a formula (OWASP, "CSV injection") begins with one of these, also after ; or a tab or a
# new line, as many countries' spreadsheets divide a line there, and before that some read a quote.
_BEGINS = r"(?<![^;\t\r\n])(\"*){apostrophe}('*)(?=[=+\-@\t\r＝＋－＠])"
_TO_ESCAPE, _ESCAPED = (re.compile(_BEGINS.format(apostrophe=one)) for one in ("", "'"))
# signs alone and numbers are no formulas
_HARMLESS = re.compile(r"[=+\-@]|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


def escaped(cell: Any) -> Any:
    """A cell with an apostrophe before what a spreadsheet would take for a formula; only texts change.

    >>> escaped('=HYPERLINK("http://a.b")'), escaped("normal"), escaped("-0.5"), escaped("'=1+1")
    ('\\'=HYPERLINK("http://a.b")', 'normal', '-0.5', "''=1+1")
    """
    text = str(cell) if isinstance(cell, Path) else cell
    if not isinstance(text, str) or _HARMLESS.fullmatch(text):
        return text
    return _TO_ESCAPE.sub(r"\1'\2", text)


def unescaped(cell: str) -> str:
    """The text that :func:`escaped` was given."""
    return _ESCAPED.sub(r"\1\2", cell) if "'" in cell else cell


def write_rows(file: IO[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes rows of a table, every cell :func:`escaped`."""
    csv.writer(file).writerows(map(escaped, row) for row in rows)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table that this package wrote, by column, as ``csv.DictReader`` has them; none without the file."""
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                yield {
                    unescaped(name) if name else name: unescaped(cell) if isinstance(cell, str) else cell
                    for name, cell in row.items()
                }
