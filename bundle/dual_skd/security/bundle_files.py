# SPDX-License-Identifier: Apache-2.0
"""Files of a bundle beside its configs: code that an import would find, links that lead out, and checksums."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path

import dual_skd
from dual_skd.utils.files import sha256_of

CODE = (".py", ".pyc", ".so", ".pyd", ".dll", ".dylib")
STARTUP = ("matplotlibrc", ".pdbrc")
OUR_MANIFEST = "manifest.json"  # {"files": {name: {"bytes": ..., "sha256": ...}}}
MANIFESTS = (OUR_MANIFEST, "SHA256SUMS", "sha256sums.txt", "SHA256SUMS.txt", "manifest.sha256")
OURS = "dual_skd"
# a bundle that brings a package of these names replaces the one that was meant
_NEVER = {"monai", "torch", "timm", "ignite", OURS}
_PASSED_OVER = {".git", "__pycache__"}  # of no list of checksums
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


def files_of(bundle: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """Everything in a bundle but plain folders, sorted, and (folder, problem) for those that can't be listed.

    Linked folders are listed and not entered.
    """
    found: list[Path] = []
    closed: list[OSError] = []
    for folder, names, files in os.walk(bundle, onerror=closed.append, followlinks=False):
        found += [Path(folder, name) for name in (*files, *(n for n in names if Path(folder, n).is_symlink()))]
    hidden = [Path(os.path.relpath(error.filename, bundle)).as_posix() for error in closed]
    return sorted(found), [(name, "a folder that can't be listed, whose code could still run") for name in hidden]


def problems_of_files(bundle: Path, files: Collection[Path]) -> list[tuple[str, str]]:
    """(file, problem) for every link that leads out of the bundle, and every pipe, socket or device."""
    root = bundle.resolve()
    problems = []
    for path in files:
        name = path.relative_to(bundle).as_posix()
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            problems.append((name, "a link that leads out of the bundle"))
        elif path.name.lower() in STARTUP:
            problems.append((name, "is read, and may be run, by programs that start in its folder"))
        elif not path.is_file() and not path.is_symlink():
            problems.append((name, "neither a file nor a folder; reading it might never end"))
    return problems


def problems_of_code(bundle: Path, files: Collection[Path], allowed: Collection[str]) -> list[tuple[str, str]]:
    """(file or folder, problem) for code, which ``monai.bundle`` finds before the installed packages.

    A bundle may carry ``dual_skd`` itself: the installed one, or one that is equal to it file by file.
    """
    installed = Path(dual_skd.__file__).parent.resolve()
    is_installed = (bundle / OURS).resolve() == installed
    problems: dict[str, str] = {}
    for path in files:
        inside = path.relative_to(bundle)
        top = inside.parts[0]
        is_code = path.name.lower().endswith(CODE)
        if top == OURS and is_installed:
            continue
        if top == OURS:
            twin = installed.joinpath(*inside.parts[1:])  # of any kind: templates run, too
            if is_code and path.suffix.lower() != ".py":
                cache = inside.parent if inside.parent.name == "__pycache__" else None  # which Python makes anew
                problems[f"{cache}/" if cache else str(inside)] = "compiled code, which can't be looked at; remove it"
            elif not (twin.is_file() and path.is_file()) or twin.read_bytes() != path.read_bytes():
                problems[str(inside)] = f"differs from the {OURS} that is installed, and would be imported in its place"
        elif not is_code or {top, inside.stem} & (set(allowed) - _NEVER):
            continue
        elif len(inside.parts) == 1:
            problems[top] = "code that comes with the bundle, and would be imported in place of others"
        else:
            problems[f"{top}/"] = "a folder with code that comes with the bundle, which could be imported"
    return list(problems.items())


def check_manifest(bundle: Path, files: Collection[Path]) -> tuple[str, int, list[tuple[str, str]]]:
    """Compares the files of a bundle with its list of SHA-256 sums: of ``sha256sum``, or the manifest.json of our zip.

    Returns:
        (name of the list, "" when there is none; number of files that agree; (file, problem) of the others, and of
        files that the list doesn't have).
    """
    name = next((name for name in MANIFESTS if (bundle / name).is_file()), "")
    if not name:
        return "", 0, []
    root = bundle.resolve()
    listed, problems = (_read_json_list if name == OUR_MANIFEST else _read_sums)(bundle / name)
    wanted: dict[str, str] = {}
    for file, digest in listed:
        if (root / file).resolve().is_relative_to(root):
            wanted[os.path.normpath(file)] = digest.lower()
        else:
            problems.append((name, f"names a file outside the bundle, {file}"))
    present = {path.relative_to(bundle).as_posix(): path for path in files if path.is_file()}
    good = 0
    for file, digest in wanted.items():
        if file not in present:
            problems.append((file, f"is listed in {name} and is not there"))
        elif sha256_of(present[file]) != digest:
            problems.append((file, f"is another file than the one in {name}"))
        else:
            good += 1
    extra = sorted(
        file for file in present if file not in wanted and file != name and not _PASSED_OVER & set(Path(file).parts)
    )
    problems += [(file, f"is not listed in {name}") for file in extra]
    return name, good, problems


def _read_sums(path: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """((file, sum), (name of the list, problem)) of the output of ``sha256sum``."""
    listed, problems = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        found = _LINE.fullmatch(line.strip())
        if found:
            listed.append((found[2], found[1]))
        elif line.strip():
            problems.append((path.name, f"line {number} is not a SHA-256 sum and a file name"))
    return listed, problems


def _read_json_list(path: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The same of a manifest.json."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["files"]
        return [(str(file), str(entry["sha256"])) for file, entry in entries.items()], []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = f"is no list of SHA-256 sums ({type(error).__name__}: {error})"
        return [], [(path.name, problem)]
