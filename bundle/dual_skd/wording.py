# SPDX-License-Identifier: Apache-2.0
"""How messages say what they count, and what can be pasted into a shell."""

from __future__ import annotations

import shlex
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


def quoted(path: str | Path) -> str:
    """A path as a shell and ``monai.bundle run`` take it: in quotes where it needs them.

    What begins like an option, like an expression or reference of a config, or with a quote gets ``./`` before it.
    """
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith(tuple("-$@%'\"")) else text)


def check_command(dataset_dir: str | Path) -> str:
    """The command that looks through a data set, between backticks."""
    return f"`python -m dual_skd check {quoted(dataset_dir)}`"
