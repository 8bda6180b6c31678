# SPDX-License-Identifier: Apache-2.0
"""Errors that the user can mend, and how the command line shows them."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """What the user gave can't be used. The message is one sentence: what was expected, found, where, the remedy."""


class SelectionError(InputError):
    """Weights of the large network can't be selected for the small one."""


def input_error_behind(error: BaseException | None) -> InputError | None:
    """Returns the ``InputError`` that caused ``error``, however many libraries wrapped it on the way, or None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, InputError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def show_input_errors_plainly() -> None:
    """Makes an uncaught :class:`InputError` end the process with its one sentence instead of a stack.

    ``monai.bundle run`` wraps every exception of a config expression several times; a user with a typo in a path
    should not have to read that. Other exceptions keep the hook that was installed before. Called by the configs'
    ``initialize``; a notebook or a test still sees the ordinary exception chain.
    """
    previous = sys.excepthook
    if getattr(previous, "shows_input_errors", False):
        return  # many runs in one process need it once

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        cause = input_error_behind(error)
        if cause is None:
            previous(kind, error, traceback)
        else:
            sys.stderr.write(f"\nError: {cause}\n")

    hook.shows_input_errors = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def choose(table: Mapping[str, T], key: str, what: str) -> T:
    """Returns ``table[key]``.

    Args:
        table: the valid words and what they stand for.
        key: the word the user gave.
        what: what the word names, for the message: "update", "loss", ...

    Raises:
        InputError: the word isn't in the table; the message lists the valid ones.
    """
    if isinstance(key, str) and key in table:
        return table[key]
    raise InputError(f"Unknown {what} {key!r}{did_you_mean(str(key), table)}; valid: {', '.join(map(str, table))}.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns the known words that are near to the given one, as an aside of a message; empty without any."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
