# SPDX-License-Identifier: Apache-2.0
"""Looks through a MONAI bundle before it is run: what its configs would import, build and evaluate.

``monai.bundle`` imports every ``_target_`` and evaluates every string that begins with ``$``, and
``logging.config.fileConfig`` evaluates entries of logging.conf: a config is code. Here they are read as text, and
whatever isn't known to be safe is a finding.
"""

from __future__ import annotations

import builtins
import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from dual_skd.errors import InputError
from dual_skd.options import Evaluation, Options, Prediction, Training
from dual_skd.security.bundle_files import CODE, check_manifest, files_of, problems_of_code, problems_of_files
from dual_skd.security.config_files import MOST_BYTES, PART, SUFFIXES, Value, read_config, starred, suffix_of, walk
from dual_skd.security.expressions import (
    MOST_CHARACTERS,
    PREDEFINED,
    SEPARATOR,
    Visitor,
    absolute,
    ending,
    imports_of,
    not_known,
    parts_of_path,
    problem_of_argument,
    problems_of_import,
)
from dual_skd.security.known import REFUSED_KEYS, SIGNATURES, full_name, split_known
from dual_skd.security.logging_conf import problems_of_logging_conf
from dual_skd.utils.files import expanded, sha256_of

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
# keys become part of the text that is evaluated
_PLAIN_ID = re.compile(r"[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*", re.ASCII)
_ON_DEVICE = re.compile(r"\$@\w+\.to\(@\w+\)", re.ASCII)
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_]+")
_POINTER = re.compile(r"[@%](?:::)*[A-Za-z0-9_]+(?:::[A-Za-z0-9_]+)*")
LOGGING = (".conf", ".ini", ".cfg")
_IMPORTS = ("imports", "import", "initialize")  # the lists in which a config may import
_NOT_ARGUMENTS = {"_target_", "_desc_", "_requires_", "_disabled_"}  # of a component
_OTHER_FILE = re.compile(
    r"%([\w ./-]+\.(?:json|yaml|yml))(?:::([A-Za-z0-9_]+(?:::[A-Za-z0-9_]+)*))?", re.IGNORECASE | re.ASCII
)
_OPTIONS: dict[str, type[Options]] = {"training": Training, "evaluation": Evaluation, "prediction": Prediction}
_OPTIONS_OF = re.compile(r"\$dual_skd\.options\.(\w+)\(\*\*@(?:\w+_)?given\)")
_OPTIONS_ENTRIES = ("options", "evaluation")


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
        sha256: of the names and contents of the configs, logging files and code, as they were read.
    """

    bundle: str
    targets: list[Finding] = field(default_factory=list)
    expressions: list[Finding] = field(default_factory=list)
    others: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    manifest: str = ""
    verified: int = 0
    sha256: str = ""

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
        allow: packages, modules and names beside those of :mod:`dual_skd.security.known`.

    Raises:
        InputError: no such folder, or no config in it.
    """
    bundle = expanded(bundle)
    if not bundle.is_dir():
        raise InputError(f"{bundle} is not a folder; give the folder of a bundle, which holds configs/.")
    allowed = tuple(allow)
    files, closed = files_of(bundle)
    manifest, verified, of_manifest = check_manifest(bundle, files)
    found = [*closed, *problems_of_files(bundle, files), *problems_of_code(bundle, files, allowed), *of_manifest]
    others = [Finding(file, "", "", problem) for file, problem in found]
    digest = hashlib.sha256()
    values: dict[str, list[Value]] = {}
    for path in files:
        suffix, file = suffix_of(path.name), path.relative_to(bundle).as_posix()
        is_inside = path.is_file() and path.resolve().is_relative_to(bundle.resolve())
        if not is_inside or not (suffix or path.name.lower().endswith((*LOGGING, *CODE))):
            continue
        if path.name.lower().endswith(CODE):
            digest.update(f"{file}\0{sha256_of(path)}\0".encode(errors="surrogateescape"))
            continue
        with path.open("rb") as opened:  # once: what is hashed is what is looked at
            text = opened.read(max(MOST_BYTES.values()) + 1)
        digest.update(f"{file}\0{len(text)}\0".encode(errors="surrogateescape") + text)
        if not suffix:
            others += [Finding(file, place, "", problem) for place, problem in problems_of_logging_conf(text)]
            continue
        values[file] = []  # counts as a config even if it can't be read
        content, problem = read_config(text, suffix)
        try:
            values[file] = list(walk(file, content))
        except ValueError as error:
            problem = str(error)
        if problem:
            others.append(Finding(file, "", "", problem))
    if not values:
        raise InputError(f"{bundle} holds no {', '.join(SUFFIXES)} file; give the folder of a bundle.")
    configs = _Configs(values, allowed)
    targets, expressions, more = configs.findings()
    counts = {file: sum(is_expression(one.value) for one in entries) for file, entries in values.items()}
    return Audit(
        str(bundle), targets, expressions, others + more, counts, manifest, verified, digest.hexdigest()
    )  # fmt: skip


class _Configs:
    """The configs of a bundle, which one run may put together in any order.

    Args:
        values: config file -> everything in it.
        allowed: names beside the known ones.
    """

    def __init__(self, values: dict[str, list[Value]], allowed: Collection[str]) -> None:
        self.values = values
        self.allowed = allowed
        self.every = [value for entries in values.values() for value in entries]
        self.others: list[Finding] = []
        self.modules: set[tuple[str, ...]] = set()  # paths of import items, and of what they lie in
        self.at: dict[tuple[str, ...], list[Value]] = defaultdict(list)
        for value in self.every:
            self.at[value.path].append(value)
        # "%" copies a text with relative ids, which MONAI resolves where the copy stands
        self.copies = any(isinstance(value.value, str) and value.value.startswith("%") for value in self.every)
        self.extended = {starred(value.path) for value in self.every if value.merges and isinstance(value.value, list)}
        self.names = dict(PREDEFINED)
        self.imports = {id(value): found for value in self.every if (found := _imports_of(value)) is not None}
        self._collect_imports()
        self.options = {entry: self._collect_options(entry) for entry in _OPTIONS_ENTRIES}

    def findings(self) -> tuple[list[Finding], list[Finding], list[Finding]]:
        """The targets, the expressions, and the problems of anything else."""
        targets, expressions = [], []
        for value in self.every:
            self._look_at_key(value)
            if value.key == "_target_":
                targets.append(_finding(value, self._problem_of_target(value.value)))
            elif is_expression(value.value):
                expressions.append(_finding(value, "; ".join(self._problems_of_expression(value))))
            elif isinstance(value.value, str) and value.value[:1] in ("@", "%"):
                self._report(value, self._problem_of_pointer(value))
        self._look_at_arguments()
        return targets, expressions, list(dict.fromkeys(self.others))

    def _report(self, value: Value, problem: str) -> None:
        if problem:
            self.others.append(_finding(value, problem))

    def _collect_imports(self) -> None:
        """Names that imports bind, over all configs: an override file uses those of the config before it."""
        for value in self.every:
            found = self.imports.get(id(value))
            if found is None:
                continue
            path = starred(value.path)
            if len(path) == 2 and path[0] in _IMPORTS and path[1] == "*":
                for whole in (path, ("_meta_", *path)):  # where MONAI puts metadata.json
                    self.modules |= {whole[start:end] for end in range(len(whole) + 1) for start in range(end + 1)}
            else:
                self._report(value, f"an import that isn't in the list {' or '.join(_IMPORTS)} hands a module on")
            if builtin := sorted(found.keys() & set(dir(builtins))):
                self._report(value, f"{builtin[0]} is a name of Python's own")
            for name, module in found.items():
                if self.names.setdefault(name, module) != module:
                    self._report(value, f"{name} stands for {module} here and for {self.names[name]} elsewhere")

    def _collect_options(self, entry: str) -> set[str]:
        """Names of the fields of an entry, where it stands for the options in every config that has it."""
        texts = [str(value.value) for value in self.every if value.path == (entry,)]
        kinds = {match[1] if (match := _OPTIONS_OF.fullmatch(text)) else "" for text in texts}
        return {field for kind in kinds for field in _OPTIONS[kind].model_fields} if kinds <= _OPTIONS.keys() else set()

    def _look_at_key(self, value: Value) -> None:
        if value.key in REFUSED_KEYS and value.value is not None:
            self._report(value, not_known(value.key))
        if value.key == "_debug_" or (value.key == "_mode_" and value.value not in ("default", "callable")):
            self._report(value, f"{value.key} stops in a debugger, which runs a .pdbrc of the working directory")
        runs = value.key == "_target_" or (isinstance(value.value, str) and value.value[:1] in ("$", "@", "%"))
        plain = PART if value.overrides else _PLAIN_KEY if runs else None
        if plain and not all(map(plain.fullmatch, value.path)):
            self._report(value, "a key on the way to it is no plain name, so that readers differ in where it stands")

    def _problem_of_target(self, target: Any) -> str:
        if not isinstance(target, str) or not _DOTTED.fullmatch(target):
            return "has to be the name of a class or function, literally"
        name = full_name(target)
        return "" if split_known(name, self.allowed)[0] == name else not_known(target)

    def _problems_of_expression(self, value: Value) -> list[str]:
        imports = self.imports.get(id(value))
        if imports is not None:
            return problems_of_import(imports, self.allowed)
        if len(value.value) > MOST_CHARACTERS:
            return [f"{len(value.value)} characters, more than anyone can read"]
        visitor = Visitor(self.names, self.allowed, lambda id: self.options.get(id or "", ()), self._problem_of_id)
        here = absolute(value.value, value.path)
        problems = visitor.problems_of(here)
        if self.copies and here != (copied := value.value.replace("#", SEPARATOR)):
            problems += [one for one in visitor.problems_of(copied) if not one.startswith("not an expression")]
        return list(dict.fromkeys(problems))

    def _problem_of_id(self, id: str) -> str:
        # of a relative id in a text that may be copied only the end is known, so any end of a path counts
        names = tuple(part for part in starred(id.split(SEPARATOR)) if part)
        if self.modules and names in self.modules:
            return "refers to a module that was imported, or to what holds one"
        return "" if names else "refers to the whole config"

    def _problem_of_pointer(self, value: Value) -> str:
        """Why a value that is another one, ``@id`` or ``%id`` or ``%file::id``, isn't taken."""
        text = value.value.replace("#", SEPARATOR)
        if _POINTER.fullmatch(text):
            return self._problem_of_id(absolute(text, value.path)[1:]) or (
                self._problem_of_id(text[1:]) if self.copies else ""
            )
        other = _OTHER_FILE.fullmatch(text)
        if other is None:  # MONAI takes any other text with "@" as it is
            return "is no plain name of another value" if text.startswith("%") else ""
        name = PurePosixPath(other[1])
        wherever_it_starts = (name, "configs" / name, PurePosixPath(*name.parts[1:]))
        if ".." in name.parts or name.is_absolute() or not any(str(one) in self.values for one in wherever_it_starts):
            return "takes its value from a file that is no config of the bundle"
        return self._problem_of_id(other[2]) if other[2] else "takes a whole file"

    def _look_at_arguments(self) -> None:
        """The arguments of components, also those that another file replaces."""
        targets: dict[Any, set[str]] = defaultdict(set)
        arguments: dict[Any, list[Value]] = defaultdict(list)
        overridden = {self._met_at(value.path[:-1]) for value in self.every if value.overrides}
        for value in self.every:
            outer = self._met_at(value.path[:-1])
            # by itself within its file, and together with those of all files where one reaches into another
            for group in [(value.file, value.path[:-1]), *([outer] if outer in overridden else [])]:
                if value.key == "_target_" and isinstance(value.value, str):
                    targets[group].add(full_name(value.value))
                elif value.path and value.key not in _NOT_ARGUMENTS:
                    arguments[group].append(value)
        for group, names in targets.items():
            for name in names & SIGNATURES.keys() - set(self.allowed):
                for value in arguments[group]:
                    self._report(value, self._problem_of_argument(name, value))

    def _met_at(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """Where values of several files meet: anywhere in a list that one of them adds to."""
        return tuple(
            "*" if part.isdecimal() and starred(path[:level]) in self.extended else part
            for level, part in enumerate(path)
        )

    def _problem_of_argument(self, name: str, argument: Value) -> str:
        signature = SIGNATURES[name]
        if argument.key == "_mode_":
            return "" if argument.value == "default" else f"{name} is handed on, so its arguments can't be followed"
        if argument.key not in signature.rules and not signature.others:
            return f"the argument {argument.key} of {name} is not known to be safe"
        rule = signature.rules.get(argument.key, "")
        if (rule == "/" and self._is_path(argument)) or (rule == "@" and self._are_networks(argument.value)):
            return ""
        for one in self._meant(argument) if rule else ():
            unknown = not isinstance(one.value, str) or one.value[:1] in ("@", "%")
            text = "" if unknown else absolute(one.value, one.path)
            ends = None if unknown else ending(text) if is_expression(text) else [text]
            if problem := problem_of_argument(rule, repr(one.value), ends):
                return f"the argument {argument.key} of {name} {problem}"
        return ""

    def _meant(self, value: Value) -> list[Value]:
        """A value, or what it refers to in every config that has it, where that can be followed."""
        text = value.value if isinstance(value.value, str) else ""
        return (self._defined(text[1:].replace("#", SEPARATOR)) if text.startswith("@") else []) or [value]

    def _defined(self, id: str) -> list[Value]:
        """What stands under an id, in every config that has it; empty where MONAI might find something else there."""
        path = tuple(id.split(SEPARATOR))
        moved = path[0] in ("_meta_", "required_packages_version", "optional_packages_version")
        return self.at.get(path, []) if _PLAIN_ID.fullmatch(id) and not moved else []

    def _is_path(self, value: Value, levels: int = 5) -> bool:
        text = value.value
        if text is None:
            return True
        if not isinstance(text, str) or text.startswith("%") or not levels:
            return False
        pointer = text[1:].replace("#", SEPARATOR) if text.startswith("@") else ""
        parts = ([], [pointer]) if pointer else parts_of_path(text) if is_expression(text) else ([text], [])
        if parts is None or any(":" in one for one in parts[0]):
            return False
        found = [self._defined(id) for id in parts[1]]
        return all(found) and all(self._is_path(one, levels - 1) for each in found for one in each)

    def _are_networks(self, content: Any) -> bool:
        """Whether none of the objects of a dictionary keeps names of files in its state, which it would remove."""
        ids = [str(one)[1:] for one in content.values()] if isinstance(content, dict) else [""]
        found = [self._defined(id.replace("#", SEPARATOR)) for id in ids]
        for one in (one for each in found for one in each):
            targets = {str(target.value) for target in self.at.get((*one.path, "_target_"), [])}
            if any(target.endswith("CheckpointSaver") for target in targets):
                return False
            if not targets and not _ON_DEVICE.fullmatch(str(one.value)):
                return False
        return all(found)


def is_expression(value: Any) -> bool:
    """Whether MONAI evaluates a value."""
    return isinstance(value, str) and value.startswith("$")


def _imports_of(value: Value) -> dict[str, str] | None:
    return imports_of(value.value) if is_expression(value.value) and "import" in value.value else None


def _finding(value: Value, problem: str) -> Finding:
    return Finding(value.file, value.place, "" if isinstance(value.value, dict | list) else str(value.value), problem)
