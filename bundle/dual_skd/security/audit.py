# SPDX-License-Identifier: Apache-2.0
"""Looks through a MONAI bundle before it is run: what its configs would import, build and evaluate.

``monai.bundle`` imports every ``_target_`` and evaluates every string that begins with ``$``, and
``logging.config.fileConfig`` evaluates entries of logging.conf: a config is code. Here they are read as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dual_skd.errors import InputError
from dual_skd.security.bundle_files import check_manifest, files_of, problems_of_code, problems_of_links
from dual_skd.security.config_files import SEPARATOR, SUFFIXES, read_config, walk
from dual_skd.security.expressions import imports_of, problems_of_expression, problems_of_import
from dual_skd.security.logging_conf import problems_of_logging_conf
from dual_skd.security.names import (
    ALLOWED_PACKAGES,
    PREDEFINED,
    problem_of_argument,
    problem_of_attribute,
    problem_of_dotted,
)
from dual_skd.utils.files import expanded

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
# what MONAI takes for the name of another config, in "%other.json::key"
_SEPARATORS = re.compile(r"#|::|\+")  # "optimizer#_target_" in an override file is the _target_ of optimizer
_OTHER_FILE = re.compile(r"%(.*\.(?:json|yaml|yml))(?=(?:::|#).*|$)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """Something in a bundle.

    Args:
        file: relative to the bundle.
        place: path inside the file, "" for the file as a whole.
        text: what stands there.
        problem: why it isn't taken, "" where nothing is wrong.
    """

    file: str
    place: str
    text: str
    problem: str = ""


@dataclass(frozen=True)
class Audit:
    """What a bundle would do.

    Args:
        bundle: the folder.
        targets: every ``_target_``.
        expressions: every string that begins with ``$``.
        others: problems of anything else: unreadable files, arguments, links, code, checksums, logging.conf.
        counts: config file -> number of its ``$`` expressions.
        manifest: name of the list of checksums, "" when there is none.
        verified: files that agree with it.
    """

    bundle: str
    targets: list[Finding] = field(default_factory=list)
    expressions: list[Finding] = field(default_factory=list)
    others: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    manifest: str = ""
    verified: int = 0

    @property
    def problems(self) -> list[Finding]:
        return [one for one in (*self.targets, *self.expressions, *self.others) if one.problem]

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


def audit_bundle(bundle: str | Path, *, allow: Iterable[str] = ()) -> Audit:
    """Reads every config of a bundle, and the files beside them, without running, importing or unpickling anything.

    Args:
        bundle: its folder.
        allow: packages beside :data:`dual_skd.security.names.ALLOWED_PACKAGES`.

    Raises:
        InputError: no such folder, or no config in it.
    """
    bundle = expanded(bundle)
    if not bundle.is_dir():
        raise InputError(f"{bundle} is not a folder; give the folder of a bundle, which holds configs/.")
    allowed = tuple(dict.fromkeys([*ALLOWED_PACKAGES, *allow]))
    files = files_of(bundle)
    name, verified, of_manifest = check_manifest(bundle, files)
    audit = Audit(str(bundle), manifest=name, verified=verified)
    for file, problem in (*problems_of_links(bundle, files), *problems_of_code(bundle, allowed), *of_manifest):
        audit.others.append(Finding(file, "", "", problem))
    contents: dict[str, list[tuple[str, str, Any]]] = {}
    for path in files:
        file = path.relative_to(bundle).as_posix()
        if not path.is_file() or (path.is_symlink() and not path.resolve().is_relative_to(bundle.resolve())):
            continue
        if path.suffix.lower() in SUFFIXES:
            contents[file] = []  # counts as a config even if it can't be read
            content, problem = read_config(path)
            try:
                contents[file] = [(SEPARATOR.join(place), key, value) for place, key, value in walk(content)]
            except ValueError as error:
                problem = str(error)
            if problem:
                audit.others.append(Finding(file, "", "", problem))
        elif path.suffix.lower() in (".conf", ".ini", ".cfg"):
            for place, problem in problems_of_logging_conf(path):
                audit.others.append(Finding(file, place, "", problem))
    if not contents:
        raise InputError(f"{bundle} holds no {', '.join(SUFFIXES)} file; give the folder of a bundle.")
    imports = _imports(contents, audit)
    for file, values in contents.items():
        audit.counts[file] = sum(_is_expression(value) for _, _, value in values)
    for file, values in contents.items():
        for place, key, value in values:
            _look_at(audit, file, place, _SEPARATORS.split(key)[-1], value, imports, allowed)
    return audit


def _is_expression(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("$")


def _imports(contents: dict[str, list[tuple[str, str, Any]]], audit: Audit) -> dict[str, str]:
    """Names that imports bind, over all configs: an override file uses those of the config before it."""
    found = dict(PREDEFINED)
    for file, values in contents.items():
        for place, _, value in values:
            for name, module in imports_of(value)[0].items() if _is_expression(value) else ():
                if found.setdefault(name, module) != module:
                    problem = f"{name} stands for {module} here and for {found[name]} elsewhere"
                    audit.others.append(Finding(file, place, value, problem))
    return found


def _look_at(
    audit: Audit, file: str, place: str, key: str, value: Any, imports: dict[str, str], allowed: tuple[str, ...]
) -> None:
    if key == "_target_":
        audit.targets.append(Finding(file, place, str(value), _problem_of_target(value, allowed)))
    elif _is_expression(value):
        if imports_of(value)[1]:
            problems = problems_of_import(value, allowed)
        else:
            problems = problems_of_expression(value, imports=imports, allowed=allowed)
        audit.expressions.append(Finding(file, place, value, "; ".join(problems)))
    elif isinstance(value, str) and value.startswith("%"):
        other = _OTHER_FILE.match(value)
        if other is not None and not _is_known(Path(audit.bundle), other[1], audit.counts):
            audit.others.append(
                Finding(file, place, value, "takes its value from a file that is no config of the bundle")
            )
    problem = problem_of_argument(key, value)
    if problem:
        audit.others.append(Finding(file, place, str(value), problem))


def _problem_of_target(value: Any, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or not _DOTTED.fullmatch(value):
        return "has to be the name of a class or function, literally"
    # MONAI finds a name without dots among its own
    return problem_of_dotted(value, allowed) if "." in value else problem_of_attribute(value)


def _is_known(bundle: Path, name: str, configs: Iterable[str]) -> bool:
    """Whether a config that another one names is among those that were looked at, wherever the run starts."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return False
    root = bundle.resolve()
    known = {root / file for file in configs}
    return any(folder / name in known for folder in (root, root / "configs", root.parent))
