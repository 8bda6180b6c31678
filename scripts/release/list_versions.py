# SPDX-License-Identifier: Apache-2.0
"""Lists versions and licences of the packages that this project needs, beside the versions that it asks for.

    python -m scripts.release.list_versions [--all]

A line per package of pyproject.toml (``--all``: and of everything that these need), with the licence as the package's
own metadata state it. Ends with 1 where a package is older than asked for, or absent though it isn't optional.
Known weaknesses of these versions are what ``pip-audit`` lists, which needs the network.
"""

from __future__ import annotations

import argparse
import sys
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import PROJECT
from scripts.release.project import dependencies, optional_dependencies

CLASSIFIER = "License :: OSI Approved :: "


def declared(text: str) -> dict[str, tuple[Requirement, str]]:
    """Name -> requirement and the group it is in, ``run`` for the dependencies, in the order of the file."""
    found: dict[str, tuple[Requirement, str]] = {}
    for group, wanted in ({"run": dependencies(text)} | optional_dependencies(text)).items():
        for requirement in wanted:
            found.setdefault(canonicalize_name(requirement.name), (requirement, group))
    return found


def licence(package: metadata.PackageMetadata) -> str:
    """SPDX expression where the package has one, else its licence field or classifiers, else a question mark."""
    if package["License-Expression"]:
        return package["License-Expression"]
    stated = (package["License"] or "").strip()
    if stated not in ("", "UNKNOWN") and "\n" not in stated and len(stated) <= 40:
        return stated
    classifiers = package.get_all("Classifier") or []
    return ", ".join(line.removeprefix(CLASSIFIER) for line in classifiers if line.startswith(CLASSIFIER)) or "?"


def closure(names: list[str]) -> list[str]:
    """The packages and everything installed that they need here, sorted."""
    waiting, known = list(names), set(names)
    while waiting:
        try:
            needed = metadata.requires(waiting.pop()) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, needed):
            name = canonicalize_name(requirement.name)
            if name not in known and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                known.add(name)
                waiting.append(name)
    return sorted(known)


def rows(wanted: dict[str, tuple[Requirement, str]], names: list[str]) -> list[tuple[str, ...]]:
    """Package, group, asked for, installed, verdict, licence; the verdict is ``ok``, ``old`` or ``absent``."""
    table = []
    for name in names:
        requirement, group = wanted.get(name, (None, "needed by these"))
        asked = str(requirement.specifier) if requirement else ""
        try:
            package = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            table.append((name, group, asked, "-", "absent", "-"))
            continue
        right = not requirement or requirement.specifier.contains(package["Version"], prereleases=True)
        table.append((name, group, asked, package["Version"], "ok" if right else "old", licence(package)))
    return table


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; returns 1 where something is old, or absent and not optional."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="also the packages that these need")
    wanted = declared(PROJECT.read_text(encoding="utf-8"))
    everything = parser.parse_args(arguments).all
    table = rows(wanted, closure(list(wanted)) if everything else list(wanted))
    lines = [("package", "for", "asked for", "installed", "", "licence"), *table]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")
    return int(any(row[4] == "old" or (row[4] == "absent" and row[1] == "run") for row in table))


if __name__ == "__main__":
    sys.exit(main())
