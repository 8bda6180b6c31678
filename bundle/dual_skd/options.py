# SPDX-License-Identifier: Apache-2.0
"""Options of the configs, as the command line hands them on."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dual_skd.errors import InputError, choose, did_you_mean

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

    words = list(sys.argv[1:] if arguments is None else arguments)
    given: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            given[name.replace("-", "_")] = value if equals else following
    files = given.get("config_file", "").strip("[]() ").replace("'", " ").replace('"', " ").replace(",", " ").split()
    if not files:
        return
    known = {_first_part(key) for key in ConfigParser.load_config_files(files)} | set(OF_MONAI)
    for name in given:
        if _first_part(name) not in known and not any(f"@{name}" in word for word in words):
            near = did_you_mean(_first_part(name), known)
            raise InputError(f"Unknown option --{name}{near}; there is no such entry in {', '.join(files)}.")


def _first_part(name: str) -> str:
    """The top entry of a config that a name begins with: ``handlers`` of ``+handlers``, ``train`` of ``train#key``."""
    return name.lstrip("+").replace("::", "#").split("#")[0]


def switch(value: object, name: str) -> bool:
    """Reads an option that is on or off; ``--amp false`` arrives as the text "false", which Python takes for true.

    Args:
        value: True, False, or one of the two as text, in small or capital letters.
        name: of the option, for the message.

    Raises:
        InputError: it is neither.
    """
    return choose({"true": True, "false": False}, str(value).lower(), name)
