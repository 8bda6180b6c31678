# SPDX-License-Identifier: Apache-2.0
"""Options of ``monai.bundle run`` as they were typed."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from dual_skd.errors import InputError


def words_of_monai() -> list[str]:
    """The words after ``python -m monai.bundle``; none in other programs."""
    return sys.argv[1:] if re.search(r"monai[./\\]bundle([/\\]__main__\.py)?$", sys.argv[0]) else []


def options_typed(words: Sequence[str]) -> dict[str, str]:
    """The options among the words of a command line, as typed; the last of several counts, as in fire."""
    typed: dict[str, str] = {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if re.match("--|-[A-Za-z]", word):
            name, equals, value = word.lstrip("-").partition("=")
            typed[name.replace("-", "_")] = value if equals else following
    return typed


def configs_typed(words: Sequence[str]) -> list[str]:
    """The files after ``--config_file``: one path, or a list in quotes."""
    word = options_typed(words).get("config_file", "")
    if not word:
        return []
    try:
        files = ast.literal_eval(word)
    except (ValueError, SyntaxError):  # one path, without quotes
        files = word
    return list(map(str, files)) if isinstance(files, list | tuple) else [str(files)]


def top_entry(name: str) -> str:
    """The top entry of a config that a name begins with: ``handlers`` of ``+handlers``, ``train`` of ``train#key``."""
    return name.lstrip("+").replace("::", "#").split("#")[0]


def text(value: object, name: str, *, several: bool = False) -> Any:
    """A text, such as a path, as it was typed.

    ``monai.bundle run`` reads the command line with fire, which evaluates words as Python: ``2024_06`` becomes the
    number 202406, ``site,b`` a tuple, ``None`` nothing, and ``scan#3`` is ``scan`` with a comment. If the value is what
    fire makes of the word, the word counts. Quotes around a text are removed.

    Args:
        value: resolved entry of the config.
        name: name of the option.
        several: whether it may also be a list of texts: ``"['a','b']"``.

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
