# SPDX-License-Identifier: Apache-2.0
"""Options of the configs, as the command line hands them on."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from dual_skd.errors import InputError


def words_of_monai() -> list[str]:
    """What was typed after ``python -m monai.bundle``; nothing in other programs, whose arguments are their own."""
    return sys.argv[1:] if re.search(r"monai[./\\]bundle([/\\]__main__\.py)?$", sys.argv[0]) else []


def options_typed(words: Sequence[str]) -> dict[str, str]:
    """The options among the words of a command line, as they stand there; the last of several counts, as for fire."""
    typed: dict[str, str] = {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if re.match("--|-[A-Za-z]", word):
            name, equals, value = word.lstrip("-").partition("=")
            typed[name.replace("-", "_")] = value if equals else following
    return typed


def text(value: object, name: str, *, several: bool = False) -> Any:
    """Reads an option that is a text, such as a path, as it was typed.

    ``monai.bundle run`` reads the command line with fire, to which a word is Python's where it can be: ``2024_06`` is
    the number 202406, ``site,b`` a tuple, ``None`` nothing, and ``scan#3`` is ``scan`` with a comment. Where the value
    is what fire makes of the word, the word is meant. A text in quotes of its own is what stands between them.

    Args:
        value: of the config's entry, as it was resolved.
        name: of the option.
        several: whether it may be a list of texts, too: ``"['a','b']"``.

    Returns:
        the text, or the list; None where the option isn't given.

    Raises:
        InputError: it is something else, as a number in a config file is.
    """
    word = options_typed(words_of_monai()).get(name)
    if word is not None and not (isinstance(value, str) and word[:1] in ("'", '"')):
        from fire.parser import DefaultParseValue  # the command line of monai.bundle has it

        if DefaultParseValue(word) == value and not (several and word[:1] in ("[", "(")):
            return word
    if several and isinstance(value, list | tuple):
        if not all(isinstance(one, str) for one in value):
            raise InputError(f"{name} is {value!r}; expected names, each in quotes, such as \"['a','b']\".")
        return list(value)
    if value is not None and not isinstance(value, str | os.PathLike):
        raise InputError(
            f"{name} is {value!r}; expected a text: in quotes in a file, or after --{name} on the command line, with "
            "./ before a path that begins with a dash."
        )
    return None if value is None else os.fspath(value)
