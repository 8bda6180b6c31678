# SPDX-License-Identifier: Apache-2.0
"""Reads from pyproject.toml which packages are needed."""

from __future__ import annotations

import re

from packaging.requirements import Requirement


def dependencies(text: str) -> list[Requirement]:
    """What the package needs to run, in the order of the file."""
    return _requirements(re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1])


def optional_dependencies(text: str) -> dict[str, list[Requirement]]:
    """Name of the extra -> what it adds."""
    # tomllib comes with Python 3.11
    extras = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    found = re.findall(r"^(\w+) = \[(.*?)^\]", extras, re.DOTALL | re.MULTILINE)
    return {extra: _requirements(block) for extra, block in found}


def _requirements(block: str) -> list[Requirement]:
    return [Requirement(line) for line in re.findall(r'^ *"(.+)",', block, re.MULTILINE)]
