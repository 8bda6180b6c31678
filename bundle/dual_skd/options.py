# SPDX-License-Identifier: Apache-2.0
"""Options of the configs, as the command line hands them on."""

from __future__ import annotations

from dual_skd.errors import choose


def switch(value: object, name: str) -> bool:
    """Reads an option that is on or off; ``--amp false`` arrives as the text "false", which Python takes for true.

    Args:
        value: True, False, or one of the two as text, in small or capital letters.
        name: of the option, for the message.

    Raises:
        InputError: it is neither.
    """
    return choose({"true": True, "false": False}, str(value).lower(), name)
