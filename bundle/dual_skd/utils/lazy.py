# SPDX-License-Identifier: Apache-2.0
"""Public names and modules of a package that load on first use, so that nobody waits for what isn't needed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def on_first_use(
    package: str, home: Mapping[str, str], *, beside: Iterable[str] = (), former: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Its modules are reached by their names too, as in the configs' ``$dual_skd.runs.distributed`` after one
    ``$import dual_skd``.

    Args:
        package: its name.
        home: public name -> module of the package that has it.
        beside: public names that the package has itself.
        former: names that it had before version 0.2 -> module that has them now; they warn.
    """

    def get(name: str) -> Any:
        if name in home:
            return getattr(import_module(f"{package}.{home[name]}"), name)
        if former and name in former:
            warnings.warn(
                f"{package}.{name} is now in {former[name]}; the former name goes with version 0.3.",
                FutureWarning,
                stacklevel=2,
            )
            return getattr(import_module(former[name]), name)
        if not name.startswith("_") and find_spec(f"{package}.{name}"):
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    names = sorted([*home, *beside])
    return get, lambda: names
