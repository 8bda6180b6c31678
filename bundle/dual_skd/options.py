# SPDX-License-Identifier: Apache-2.0
"""Options of the configs, as the command line hands them on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from dual_skd.errors import InputError, choose

# whole numbers of train.json and the least that each may be; what else limits one is checked where it is used
WHOLE = {"epochs": 1, "batch_size": 1, "seed": 0, "spatial_dims": 2, "image_size": 1, "compensate": 0,
         "label_free_epochs": 0, "folds": 2, "fold": 0, "val_interval": 1, "patience": 1, "accumulation_steps": 1,
         "num_workers": 0}  # fmt: skip
PER_AXIS = ("image_size", "spacing")  # one number, or a list of one per axis
MAY_BE_NONE = ("folds", "spacing")
BY_THE_RUN = ("name", "num_classes", "in_channels", "spatial_dims", "image_size")  # of a network, not options of it


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
