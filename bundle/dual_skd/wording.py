# SPDX-License-Identifier: Apache-2.0
"""How messages say what they count, and what can be pasted into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its words: "1 image", "7 images".

    Args:
        count: the number.
        one: the words after 1, of a plural in s unless ``many`` says more: "image was left out".
        many: the words after every other number.

    >>> counted(1, "image"), counted(0, "image"), counted(2, "class", "classes")
    ('1 image', '0 images', '2 classes')
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table for a terminal: the first column to the left, the others to the right.

    >>> aligned([["", "images"], ["normal", "7"]])
    ['        images', 'normal       7']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def as_word(path: str | Path) -> str:
    """A path as a command takes it for a path: with ``./`` before what begins like something else.

    That is an option (a dash), an expression or reference of a config, and a text in quotes of its own.
    """
    return f"./{path}" if str(path).startswith(tuple("-$@%'\"")) else str(path)


def quoted(path: str | Path) -> str:
    """The same for a shell: in quotes where it needs them."""
    return shlex.quote(as_word(path))


def check_command(dataset_dir: str | Path) -> str:
    """The command that looks through a data set, between backticks."""
    return f"`python -m dual_skd check {quoted(dataset_dir)}`"
