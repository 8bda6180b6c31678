# SPDX-License-Identifier: Apache-2.0
"""Options of the configs, as the command line hands them on."""

from __future__ import annotations

import ast
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from numbers import Integral, Real
from typing import Any

from dual_skd.errors import InputError, choose, did_you_mean

# whole numbers of train.json and the least that each may be; what else limits one is checked where it is used
WHOLE = {"epochs": 1, "batch_size": 1, "seed": 0, "spatial_dims": 2, "image_size": 1, "compensate": 0,
         "label_free_epochs": 0, "folds": 2, "fold": 0, "val_interval": 1, "patience": 1, "accumulation_steps": 1,
         "num_workers": 0}  # fmt: skip
PER_AXIS = ("image_size", "spacing")  # one number, or a list of one per axis
MAY_BE_NONE = ("folds", "spacing")
BY_THE_RUN = ("name", "num_classes", "in_channels", "spatial_dims", "image_size")  # of a network, not options of it
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

    words = list(sys.argv[1:] if arguments is None else arguments)
    given = _typed(words)
    if "config_file" not in given:
        return
    try:
        files = ensure_tuple(ast.literal_eval(given["config_file"]))
    except (ValueError, SyntaxError):  # one path, without quotes
        files = (given["config_file"],)
    known = {_first_part(key) for key in ConfigParser.load_config_files(files)} | set(OF_MONAI)
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


def text(value: object, name: str) -> Any:
    """Reads an option that is a text, such as a path, as it was typed.

    ``monai.bundle run`` reads the command line with fire, to which a word is Python's where it can be: ``2024_06`` is
    the number 202406, ``site,b`` a tuple, ``None`` nothing, and ``scan#3`` is ``scan`` with a comment. Where the value
    is what fire makes of the word, the word is meant. A text in quotes of its own is what stands between them.

    Args:
        value: of the config's entry, as it was resolved.
        name: of the option.

    Returns:
        the text; None where the option isn't given.

    Raises:
        InputError: it is something else, as a number in a config file is.
    """
    word = _typed(sys.argv[1:]).get(name)
    if word is not None and not (isinstance(value, str) and word[:1] in ("'", '"')):
        from fire.parser import DefaultParseValue  # the command line of monai.bundle has it

        if DefaultParseValue(word) == value:
            return word
    if value is not None and not isinstance(value, str | os.PathLike):
        raise InputError(
            f"{name} is {value!r}; expected a text: in quotes in a file, or after --{name} on the command line, with "
            "./ before a path that begins with a dash."
        )
    return None if value is None else os.fspath(value)


def texts(value: Any, name: str) -> Any:
    """Reads an option that is one text, see :func:`text`, or a list of them: ``"['a','b']"``.

    Raises:
        InputError: it is something else.
    """
    several = isinstance(value, list | tuple) and _typed(sys.argv[1:]).get(name, "[")[:1] in ("[", "(")
    if several and not all(isinstance(one, str) for one in value):
        raise InputError(f"{name} is {value!r}; expected names, each in quotes, such as \"['a','b']\".")
    return value if several else text(value, name)


def switch(value: object, name: str) -> bool:
    """Reads an option that is on or off; ``--amp false`` arrives as the text "false", which Python takes for true.

    Args:
        value: True, False, or one of the two as text, in small or capital letters.
        name: of the option, for the message.

    Raises:
        InputError: it is neither.
    """
    return choose({"true": True, "false": False}, str(value).lower(), name)


def check_numbers(values: Mapping[str, Any], spatial_dims: int) -> None:
    """Looks at the numbers of a run before anything is read: a word or a negative one would fail far from here.

    Args:
        values: by name. Those of :data:`WHOLE` have to be whole, all others finite and at least 0.
        spatial_dims: how many numbers a list of one per axis has.

    Raises:
        InputError: the first one that isn't so.
    """
    for name, value in values.items():
        if value is None and name in MAY_BE_NONE:
            continue
        kind, least = (Integral, WHOLE[name]) if name in WHOLE else (Real, 0)
        several = name in PER_AXIS and isinstance(value, list | tuple)
        each = value if several else [value]
        fits = len(each) == (spatial_dims if several else 1)
        if not fits or not all(
            isinstance(x, kind) and not isinstance(x, bool) and least <= float(x) < math.inf for x in each
        ):
            whole = "whole number" if name in WHOLE else "number"
            lists = f", or a list of {spatial_dims} such numbers" if name in PER_AXIS else ""
            raise InputError(f"{name} is {value!r}; expected a {whole} of at least {least}{lists}.")


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run or a model's preprocessing, with what those mean that were saved before an option existed."""
    return {"fit": "stretch" if settings.get("spacing") is None else None, **settings}


def network_options(value: Any, name: str) -> dict[str, Any]:
    """Reads the options of a network, a dictionary of its constructor's arguments.

    Args:
        value: the dictionary, or None for none.
        name: of the option, for the message.

    Raises:
        InputError: it is something else, or sets what the run itself decides.
    """
    if not isinstance(value, Mapping | None):
        raise InputError(f"{name} is {value!r}; expected a dictionary such as \"{{'drop_rate': 0.1}}\".")
    taken = [key for key in BY_THE_RUN if key in (value or {})]
    if taken:
        raise InputError(
            f"{name} sets {' and '.join(taken)}, which the run decides by its images and options of its own (large, "
            f"small, spatial_dims, image_size); leave that out of {name}."
        )
    return dict(value or {})
