# SPDX-License-Identifier: Apache-2.0
"""Checks the options that were typed after ``python -m monai.bundle run``."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence

from monai.bundle import ConfigParser

from dual_skd.errors import InputError, did_you_mean
from dual_skd.options.derived import removed
from dual_skd.options.typed import configs_typed, options_typed, top_entry, words_of_monai

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
    words = list(words_of_monai() if arguments is None else arguments)
    given = options_typed(words)
    files = configs_typed(words)
    if not files:
        return
    merged = ConfigParser.load_config_files(files)
    _refuse_strangers(files, str(merged))
    known = {top_entry(key) for key in merged} | set(OF_MONAI)
    for name in given:
        if top_entry(name) not in known and not any(f"@{name}" in word for word in words):
            near = did_you_mean(top_entry(name), known)
            raise InputError(f"Unknown option --{name}{near}; there is no such entry in {', '.join(files)}.")
    for name, word in given.items():
        if word.startswith(("$", "@")) and os.path.lexists(word):
            raise InputError(
                f"--{name} is {word}, which is the name of something here, and in a config an expression or a "
                f"reference; give it as ./{word}."
            )


def _refuse_strangers(files: Sequence[str], text: str) -> None:
    """Refuses an entry of a later config that nothing reads: a mistyped one, or an option of a former version."""
    first = ConfigParser.load_config_file(files[0])
    for file in files[1:]:
        content = ConfigParser.load_config_file(file)
        if lost := removed(content):
            raise InputError(f"{file} has {lost}, which this version no longer has; leave it out.")
        for key in map(top_entry, content):
            near = difflib.get_close_matches(key, first, n=1, cutoff=0.8)
            if key not in first and near and f"@{key}" not in text:
                raise InputError(f"{file}: nothing reads {key}; did you mean {near[0]}?")
