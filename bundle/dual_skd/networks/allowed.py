# SPDX-License-Identifier: Apache-2.0
"""The user's own networks, ``package.module:Name``: a class or function of any importable module.

Importing a module runs its code, and a stranger's model file may name one. So a module is imported only if the user has
named it: on the command line (``--small package.module:Name``), in the environment variable ``DUAL_SKD_NETWORKS``, or
by :func:`allow_network`.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from torch import nn

from dual_skd.errors import InputError, did_you_mean

VARIABLE = "DUAL_SKD_NETWORKS"  # names between commas
_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_own(name: object) -> bool:
    """Whether a name has the form of an own network, ``package.module:Name``."""
    return isinstance(name, str) and ":" in name


def allow_network(name: str) -> None:
    """Allows this process, and those that it starts, to import a network from outside this package.

    Args:
        name: ``package.module:Name``.

    Raises:
        InputError: it hasn't this form.
    """
    if not is_own(name) or not _FORM.fullmatch(name):
        raise InputError(f"{name!r} isn't the name of a network of your own; expected package.module:Name.")
    os.environ[VARIABLE] = ",".join(dict.fromkeys([*_allowed(), name]))


def build_own_network(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    spatial_dims: int,
    image_size: int | Sequence[int] | None,
    options: Mapping[str, Any],
) -> nn.Module:
    """Calls the class or function with ``num_classes``, ``in_channels``, ``spatial_dims`` and its options.

    ``image_size`` is given where an argument is called so. What comes back has to be a module from (N, in_channels, H,
    W[, D]) to logits (N, num_classes).

    Raises:
        InputError: the user hasn't named it, it can't be imported or called so, or gives no module.
    """
    maker = _imported(name)
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels, "spatial_dims": spatial_dims}
    if "image_size" in inspect.signature(maker).parameters:
        arguments["image_size"] = image_size
    try:
        inspect.signature(maker).bind(**arguments, **options)
    except TypeError as error:
        raise InputError(
            f"{name} can't be called with {', '.join([*arguments, *options])} ({error}); it has to take these "
            "arguments (a function around your class can)."
        ) from error
    network = maker(**arguments, **options)
    if not isinstance(network, nn.Module):
        raise InputError(f"{name} gives a {type(network).__name__}; expected a torch.nn.Module.")
    return network


def _imported(name: str) -> Any:
    if not _FORM.fullmatch(name):
        raise InputError(f"{name!r} isn't the name of a network of your own; expected package.module:Name.")
    module, attribute = name.split(":")
    named = any(word.partition("=")[2] == name or word == name for word in sys.argv[1:])
    if not named and name not in _allowed():
        raise InputError(
            f"{name} is a network outside this package, and building it runs the code of {module}. If you trust it, "
            f"set the environment variable {VARIABLE}={name}, or call dual_skd.allow_network({name!r})."
        )
    try:
        found = import_module(module)
    except Exception as error:  # of the user's code
        raise InputError(
            f"{module}, the module of the network {name}, can't be imported ({type(error).__name__}: {error}); install "
            "it, or put its folder into PYTHONPATH."
        ) from error
    maker = getattr(found, attribute, None)
    if not callable(maker):
        near = did_you_mean(attribute, vars(found))
        raise InputError(f"{module} ({found.__file__}) has no class or function {attribute}{near}.")
    return maker


def _allowed() -> list[str]:
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
