# SPDX-License-Identifier: Apache-2.0
"""How messages say what they count, and what can be pasted into a shell."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dual_skd.errors import visible

WIDTH = 80  # columns of a terminal


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


def of_patients(known: int, images_without: int) -> str:
    """The words behind a number of images: " of 63 patients", or "" where none is known.

    Args:
        known: number of known patients.
        images_without: number of images without a known patient, which may be of further ones.

    >>> of_patients(1, 0), of_patients(63, 2), of_patients(0, 9)
    (' of 1 patient', ' of 63 patients or more', '')
    """
    return f" of {counted(known, 'patient')}{' or more' if images_without else ''}" if known else ""


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first of many names, and how many more there are.

    >>> first_few(["a", "b", "c", "d"]), first_few(["a"])
    ('a, b, c and 1 more', 'a')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def duration(seconds: float) -> str:
    """A time as one reads it: "40 s", "12 min", "3 h 20 min".

    >>> duration(39.6), duration(720), duration(12000)
    ('40 s', '12 min', '3 h 20 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def metric_words(name: str) -> str:
    """A metric as one writes it: "macro AUC" for ``macro_auc``."""
    words = {"auc": "AUC", "nll": "NLL", "ece": "ECE", "f1": "F1", "brier": "Brier score"}
    return " ".join(words.get(word, word) for word in name.split("_"))


def estimate_in_words(one: Mapping[str, Any], level: float) -> str:
    """A value with its interval, or with the reason why it, or the interval, is missing.

    Args:
        one: ``value``, ``low``, ``high`` and ``reason``, as an analysis has them.
        level: of the interval.
    """
    if one["value"] is None:
        return one["reason"]
    if one["low"] is not None:
        return f"{one['value']:.3f} ({level:.0%} interval {one['low']:.3f} to {one['high']:.3f})"
    return f"{one['value']:.3f}" + (f"; {one['reason']}" if one["reason"] else "")


def metric_rows(
    found: Mapping[str, Any], names: Sequence[str], home: tuple[Mapping[str, Any], str], level: float
) -> list[tuple[str, str | Path]]:
    """The rows of some metrics, of another data set with what they are at home, on the run's own test images.

    Args:
        found: of ``run_files.estimates``.
        names: of the metrics.
        home: of ``run_files.at_home``.
        level: of the intervals.
    """
    at_home, missing = home
    rows: list[tuple[str, str | Path]] = []
    for name in names:
        rows.append((metric_words(name), estimate_in_words(found[name], level)))
        if (own := at_home.get(name)) and own["value"] is not None:
            rows.append(("  at home", estimate_in_words(own, level)))
    return [*rows, ("at home", missing and f"{missing}; do that first, by `dual-skd evaluate`, then this again")]


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
    """The same for a shell."""
    return in_shell(as_word(path))


def in_shell(word: str) -> str:
    """A word as a shell takes it: in quotes where it needs them, which are bash's $'' for what can't be seen.

    >>> print(in_shell("{'width': 0.4}"), in_shell("$HOME"))
    "{'width': 0.4}" '$HOME'
    """
    if visible(word) == word:
        readable = "'" in word and not set(word) & set('"$`!\\')
        return f'"{word}"' if readable else shlex.quote(word)
    return "$'" + visible(word.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def check_command(dataset_dir: str | Path, unlabelled: str | None = None) -> str:
    """The command that looks through a data set, and through images without labels, between backticks."""
    more = f" --unlabelled {quoted(unlabelled)}" if unlabelled else ""
    return f"`dual-skd check {quoted(dataset_dir)}{more}`"


def closing(title: str, rows: Iterable[tuple[str, str | Path]], following: str = "") -> str:
    """The last words of a command: what was made, where, the main numbers, and what comes next.

    Args:
        title: the first line, as it is.
        rows: name and text, broken into lines of :data:`WIDTH` columns; a path stays in one piece. Empty ones are left
            out.
        following: the next command, ready to paste; "" for none.
    """
    shown = [(name, value) for name, value in rows if str(value)]
    following = visible(following)
    margin = max((len(name) for name, _ in shown), default=0) + 4
    lines = [visible(title)]
    for name, value in shown:
        whole = (
            [visible(value)]
            if isinstance(value, Path)
            else textwrap.wrap(visible(value), WIDTH - margin, break_long_words=False, break_on_hyphens=False)
        )
        lines += [f"  {'' if place else name:{margin - 2}}{line}" for place, line in enumerate(whole)]
    return "\n".join([*lines, f"Next: {following}"] if following else lines)
