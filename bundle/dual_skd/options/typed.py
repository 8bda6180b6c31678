# SPDX-License-Identifier: Apache-2.0
"""Options of the configs, as the command line hands them on."""

from __future__ import annotations

import ast
import difflib
import os
import re
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from dual_skd.errors import InputError, did_you_mean
from dual_skd.options.derived import removed

OF_MONAI = ("init_id", "final_id", "meta_file", "config_file", "logging_file", "tracking", "args_file", "run_id")


def refuse_unknown(arguments: Sequence[str] | None = None) -> None:
    """Refuses options of ``monai.bundle run`` that no config has: MONAI takes a mistyped one for an entry of its own.

    A name that another argument refers to with ``@`` is such an entry, on purpose. Without a config file among the
    arguments, as when another program runs the bundle, nothing is known and nothing refused.

    Args:
        arguments: words of the command line, those of this process by default.

    Raises:
        InputError: an option isn't in the configs; the message names what is near.
    """
    from monai.bundle import ConfigParser  # here, since the checks of values do without
    from monai.utils import ensure_tuple

    words = list(_of_monai() if arguments is None else arguments)
    given = _typed(words)
    if "config_file" not in given:
        return
    try:
        files = ensure_tuple(ast.literal_eval(given["config_file"]))
    except (ValueError, SyntaxError):  # one path, without quotes
        files = (given["config_file"],)
    merged = ConfigParser.load_config_files(files)
    _refuse_strangers(files, str(merged))
    known = {_first_part(key) for key in merged} | set(OF_MONAI)
    for name in given:
        if _first_part(name) not in known and not any(f"@{name}" in word for word in words):
            near = did_you_mean(_first_part(name), known)
            raise InputError(f"Unknown option --{name}{near}; there is no such entry in {', '.join(files)}.")
    for name, word in given.items():
        if word.startswith(("$", "@")) and os.path.lexists(word):
            raise InputError(
                f"--{name} is {word}, which is the name of something here, and in a config an expression or a "
                f"reference; give it as ./{word}."
            )


def _refuse_strangers(files: Sequence[str], text: str) -> None:
    """Refuses an entry of a later config that nothing reads: a mistyped one, or an option of a former version."""
    from monai.bundle import ConfigParser

    first = ConfigParser.load_config_file(files[0])
    for file in files[1:]:
        content = ConfigParser.load_config_file(file)
        if lost := removed(content):
            raise InputError(f"{file} has {lost}, which this version no longer has; leave it out.")
        for key in map(_first_part, content):
            near = difflib.get_close_matches(key, first, n=1, cutoff=0.8)
            if key not in first and near and f"@{key}" not in text:
                raise InputError(f"{file}: nothing reads {key}; did you mean {near[0]}?")


def _of_monai() -> list[str]:
    """What was typed after ``python -m monai.bundle``; nothing in other programs, whose arguments are their own."""
    return sys.argv[1:] if re.search(r"monai[./\\]bundle([/\\]__main__\.py)?$", sys.argv[0]) else []


def _typed(words: Sequence[str]) -> dict[str, str]:
    """The options among the words of a command line, as they stand there; the last of several counts, as for fire."""
    typed: dict[str, str] = {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if re.match("--|-[A-Za-z]", word):
            name, equals, value = word.lstrip("-").partition("=")
            typed[name.replace("-", "_")] = value if equals else following
    return typed


def _first_part(name: str) -> str:
    """The top entry of a config that a name begins with: ``handlers`` of ``+handlers``, ``train`` of ``train#key``."""
    return name.lstrip("+").replace("::", "#").split("#")[0]


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
    word = _typed(_of_monai()).get(name)
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
