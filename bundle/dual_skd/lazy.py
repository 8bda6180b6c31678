# SPDX-License-Identifier: Apache-2.0
"""Public names of a package that are loaded on first use, so that nobody waits for what isn't needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def on_first_use(
    package: str, home: Mapping[str, str], modules: Iterable[str] = (), *, beside: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its name.
        home: public name -> module of the package that has it.
        modules: modules that are reached by their names, too.
        beside: public names that the package has itself.
    """
    reached = set(modules)

    def get(name: str) -> Any:
        if name in home:
            return getattr(import_module(f"{package}.{home[name]}"), name)
        if name in reached:
            return import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    names = sorted([*home, *beside])
    return get, lambda: names
