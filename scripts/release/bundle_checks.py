# SPDX-License-Identifier: Apache-2.0
"""Checks of scripts/verify_bundle.py that only read files. Each takes a :class:`Bundle`, returns a line or raises."""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from dual_skd.files import sha256_of

FOLDER = "dual_skd_classification"
METADATA = "configs/metadata.json"
MANIFEST = "manifest.json"
PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
LARGE = 5_000_000  # bytes; larger files must be vouched for by the manifest
REQUIRED = (
    "LICENSE",
    METADATA,
    "configs/train.json",
    "configs/evaluate.json",
    "configs/inference.json",
    "configs/logging.conf",
    "docs/README.md",
    "dual_skd/__init__.py",
    "dual_skd/__main__.py",
)
BY_PRODUCTS = ("__pycache__", ".pyc", ".egg-info", ".DS_Store")

# ids that the Model Zoo's contribution guide and MONAI's properties name, "::" for an entry of an entry
IDS = {
    "train.json": (
        "bundle_root", "device", "dataset_dir", "output_dir", "network_def", "val_interval", "training", "run",
        "train::trainer::max_epochs", "train::dataset", "train::inferer", "train::handlers", "train::preprocessing",
        "validate::evaluator", "validate::handlers", "validate::dataset", "validate::preprocessing",
        "validate::inferer",
    ),
    "evaluate.json": (
        "bundle_root", "device", "dataset_dir", "output_dir", "network_def", "dataset", "evaluator", "inferer",
        "handlers", "preprocessing", "evaluating", "run",
    ),
    "inference.json": (
        "bundle_root", "device", "dataset_dir", "output_dir", "network_def", "network", "dataset", "evaluator",
        "inferer", "handlers", "preprocessing", "postprocessing", "inference", "run",
    ),
}  # fmt: skip

# What MONAI's metadata schema of 2024-07-25 asks for, written down here because a check has no network access.
# Stricter than it in four points: the changelog, that texts say something, that versions are versions, and that inputs
# and outputs are tensors which name their channels.
SCHEMA_FILE = "meta_schema_20240725.json"
TEXT = {"type": "string", "minLength": 1}
VERSION = {"type": "string", "pattern": r"^\d+\.\d+\.\d+"}
TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "channel_def"],
    "properties": {
        "type": TEXT,
        "format": TEXT,
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
        "dtype": TEXT,
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "additionalProperties": TEXT},
    },
}
TENSORS = {"type": "object", "minProperties": 1, "additionalProperties": TENSOR}
TEXTS = ("task", "description", "authors", "copyright")
OPTIONAL_TEXTS = ("name", "data_source", "data_type", "image_classes", "label_classes", "pred_classes", "intended_use")
VERSIONS = ("version", "monai_version", "pytorch_version", "numpy_version")
SCHEMA = {
    "type": "object",
    "required": ["schema", *VERSIONS, "changelog", "required_packages_version", *TEXTS, "network_data_format"],
    "properties": {
        "schema": {"type": "string", "pattern": rf"/{re.escape(SCHEMA_FILE)}$"},
        **dict.fromkeys(VERSIONS, VERSION),
        "changelog": {"type": "object", "minProperties": 1, "additionalProperties": TEXT},
        "required_packages_version": {"type": "object", "additionalProperties": VERSION},
        **dict.fromkeys((*TEXTS, *OPTIONAL_TEXTS), TEXT),
        "eval_metrics": {"type": "object"},
        "supported_apps": {"type": "object"},
        "references": {"type": "array", "items": TEXT},
    },
    "patternProperties": {
        "^[_a-zA-Z0-9]+_data_format$": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {"inputs": TENSORS, "outputs": TENSORS, "post_processed_outputs": TENSORS},
        }
    },
}


class CheckFailed(Exception):
    """A check found something wrong; the message says what, where, and what to do."""


@dataclass(frozen=True)
class Bundle:
    """A bundle to be checked.

    Attributes:
        root: the folder that holds ``configs``; of a zip, where it was unpacked.
        given: the folder or the zip that the user named.
        packed: whether it claims to be complete, so that a manifest is due: a zip, or a folder that a zip unpacks to.
        project: pyproject.toml with the floors of the packages.
    """

    root: Path
    given: Path
    packed: bool
    project: Path = PROJECT

    @cached_property
    def files(self) -> list[str]:
        """Sorted paths relative to the root, without what Python and installers leave behind."""
        found = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in found if not any(part.endswith(BY_PRODUCTS) for part in path.parts))

    def json(self, name: str) -> Any:
        """Content of a JSON file of the bundle."""
        try:
            return json.loads((self.root / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckFailed(f"{name} is missing") from None
        except ValueError as error:
            raise CheckFailed(f"{name} is not valid JSON ({error})") from None

    @cached_property
    def metadata(self) -> dict[str, Any]:
        found = self.json(METADATA)
        if not isinstance(found, dict):
            raise CheckFailed(f"{METADATA} holds a {type(found).__name__}, expected an object")
        return found

    @cached_property
    def manifest(self) -> dict[str, dict[str, Any]] | None:
        """Path to size and SHA-256; None where a source folder has no manifest."""
        if not (self.root / MANIFEST).is_file() and not self.packed:
            return None
        content = self.json(MANIFEST)
        entries = content.get("files") if isinstance(content, dict) else None
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            raise CheckFailed(f"{MANIFEST} has no table of files; pack anew with scripts/package_bundle.py")
        return entries


def open_bundle(given: Path, scratch: Path, project: Path = PROJECT) -> Bundle:
    """Unpacks a zip into ``scratch``; a folder is taken where it lies.

    Raises:
        CheckFailed: no such file, not a zip, unsafe names in it, or more or less than one folder.
    """
    if given.is_dir():
        return Bundle(given.resolve(), given, given.resolve().name == FOLDER, project)
    if not zipfile.is_zipfile(given):
        raise CheckFailed(f"{given} is neither a folder nor a zip; give a bundle's folder or its zip")
    with zipfile.ZipFile(given) as archive:
        places = [PurePosixPath(name.replace("\\", "/")) for name in archive.namelist()]
        unsafe = [str(place) for place in places if place.is_absolute() or ".." in place.parts]
        folders = sorted({place.parts[0] for place in places if place.parts})
        if unsafe:
            raise CheckFailed(f"{given} would unpack outside its folder: {unsafe[0]}")
        if len(folders) != 1:
            raise CheckFailed(f"{given} holds {folders}, expected one folder, {FOLDER}")
        damaged = archive.testzip()
        if damaged:
            raise CheckFailed(f"{given}: {damaged} is damaged (its checksum in the zip differs); pack or copy it anew")
        archive.extractall(scratch)
    return Bundle(scratch / folders[0], given, True, project)


def check_name(bundle: Bundle) -> str:
    """MONAI Label reads the task from the folder's name; the Zoo wants the version in the zip's."""
    if not bundle.packed:
        return f"a source folder, packed as {FOLDER}"
    if bundle.root.name != FOLDER:
        raise CheckFailed(f"the folder in the zip is called {bundle.root.name}, expected {FOLDER}")
    expected = f"{FOLDER}_v{bundle.metadata.get('version')}.zip"
    if bundle.given.is_file() and bundle.given.name != expected:
        raise CheckFailed(f"the zip is called {bundle.given.name}, expected {expected}")
    return bundle.given.name


def check_files(bundle: Bundle) -> str:
    missing = [name for name in REQUIRED if name not in bundle.files]
    if missing:
        raise CheckFailed(f"missing: {', '.join(missing)}")
    empty = [name for name in REQUIRED if not (bundle.root / name).read_text(encoding="utf-8").strip()]
    if empty:
        raise CheckFailed(f"empty: {', '.join(empty)}")
    if "Apache License" not in (bundle.root / "LICENSE").read_text(encoding="utf-8"):
        raise CheckFailed("LICENSE is not the Apache License that the source files name")
    unmarked = [name for name in python_files(bundle) if "SPDX-License-Identifier" not in source(bundle, name)[:200]]
    if unmarked:
        raise CheckFailed(f"no SPDX licence line in {', '.join(unmarked)}")
    return f"{len(bundle.files)} files"


def python_files(bundle: Bundle) -> list[str]:
    return [name for name in bundle.files if name.endswith(".py")]


def source(bundle: Bundle, name: str) -> str:
    return (bundle.root / name).read_text(encoding="utf-8")


def assigned(text: str, name: str) -> str | None:
    """Value of ``name = "..."`` at the top of a module."""
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and [getattr(t, "id", None) for t in statement.targets] == [name]:
            return ast.literal_eval(statement.value)
    return None


def check_version(bundle: Bundle) -> str:
    """One version everywhere: metadata, newest entry of its changelog, package, pyproject.toml, manifest."""
    version = bundle.metadata.get("version")
    changes = bundle.metadata.get("changelog")
    if not version or not isinstance(changes, dict):
        raise CheckFailed(f"{METADATA} has no version or no changelog")
    if version not in changes:
        raise CheckFailed(f"version {version} is not in the changelog of {METADATA} ({', '.join(changes)})")
    newest = max(changes, key=lambda text: [int(part) for part in re.findall(r"\d+", text)])
    if newest != version:
        raise CheckFailed(f"version is {version}, but the changelog of {METADATA} goes up to {newest}")
    others = {"dual_skd/__init__.py": assigned(source(bundle, "dual_skd/__init__.py"), "__version__")}
    if bundle.project.is_file():
        declared = re.search(r'^version = "(.+?)"', bundle.project.read_text(encoding="utf-8"), re.MULTILINE)
        others[bundle.project.name] = declared and declared[1]
    if bundle.manifest is not None:
        others[MANIFEST] = bundle.json(MANIFEST).get("version")
    for place, found in others.items():
        if found != version:
            raise CheckFailed(f"{METADATA} has version {version}, {place} has {found}")
    return version


def check_metadata(bundle: Bundle) -> str:
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        raise CheckFailed("jsonschema is not installed; pip install jsonschema") from None
    errors = sorted(Draft202012Validator(SCHEMA).iter_errors(bundle.metadata), key=lambda error: list(error.path))
    if errors:
        first = errors[0]
        place = "/".join(map(str, first.path)) or "at the top"
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise CheckFailed(f"{METADATA}, {place}: {first.message}{more}")
    formats = [name for name in bundle.metadata if name.endswith("_data_format")]
    for name in formats:
        for side in ("inputs", "outputs"):
            for key, tensor in bundle.metadata[name][side].items():
                if len(tensor["channel_def"]) != tensor["num_channels"]:
                    raise CheckFailed(
                        f"{METADATA}, {name}/{side}/{key}: {tensor['num_channels']} channels, but "
                        f"{len(tensor['channel_def'])} names in channel_def"
                    )
    return f"fields of {SCHEMA_FILE}; {', '.join(formats)}"


def pinned_versions(metadata: dict[str, Any]) -> dict[str, str]:
    """Package, in lower case, to the version that the metadata name."""
    own = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    pins = {name: metadata[key] for name, key in own.items() if key in metadata}
    return pins | {name.lower(): version for name, version in metadata.get("required_packages_version", {}).items()}


def check_packages(bundle: Bundle) -> str:
    """Pinned versions fulfil the floors that pip installs by, and no package is in one list only."""
    from packaging.requirements import Requirement

    if not bundle.project.is_file():
        raise CheckFailed(f"{bundle.project} is missing; its floors are compared with the versions of {METADATA}")
    project = bundle.project.read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", project, re.DOTALL | re.MULTILINE)
    declared = {found.name.lower(): found for found in map(Requirement, re.findall(r'"(.+?)"', block[1]))}
    pins = pinned_versions(bundle.metadata)
    wrong = [
        f"{name} {version} against {declared[name].specifier}"
        for name, version in pins.items()
        if name in declared and not declared[name].specifier.contains(version, prereleases=True)
    ]
    if wrong:
        raise CheckFailed(f"{METADATA} pins versions that {bundle.project.name} excludes: {'; '.join(wrong)}")
    for here, there, name in ((pins, declared, METADATA), (declared, pins, bundle.project.name)):
        alone = sorted(set(here) - set(there))
        if alone:
            raise CheckFailed(f"only in {name}: {', '.join(alone)}; name them in both or in none")
    return f"{len(pins)} versions within the floors of {bundle.project.name}"


def entry_at(content: Any, place: str) -> Any:
    """The entry at an id such as ``train::trainer``; None where there is none."""
    for part in place.split("::"):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def strings(content: Any) -> Iterator[str]:
    """All strings in JSON content, keys left out."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, (dict, list)):
        for item in content.values() if isinstance(content, dict) else content:
            yield from strings(item)


def check_configs(bundle: Bundle) -> str:
    """Ids that MONAI and the Zoo look for, and no path of the machine it was written on."""
    for name, ids in IDS.items():
        content = bundle.json(f"configs/{name}")
        missing = [place for place in ids if entry_at(content, place) is None and place != "dataset_dir"]
        if "dataset_dir" not in content:  # null is a value of it: evaluation takes what the run was trained on
            missing.append("dataset_dir")
        if missing:
            raise CheckFailed(f"configs/{name} lacks {', '.join(missing)}")
    for name in (name for name in bundle.files if name.startswith("configs/") and name.endswith(".json")):
        if name == METADATA:
            continue
        personal = [text for text in strings(bundle.json(name)) if re.match(r"(/|~|[A-Za-z]:[\\/])", text)]
        if personal:
            raise CheckFailed(f"{name} holds a path of one machine: {personal[0]}")
        foreign = [text for text in targets(bundle.json(name)) if text.startswith("scripts.")]
        if foreign:
            raise CheckFailed(f"{name}: {foreign[0]} is shadowed by any folder called scripts; use dual_skd")
    handlers = bundle.json("configs/train.json")["train"]["handlers"]
    if not isinstance(handlers, list) or not all(isinstance(handler, dict) for handler in handlers):
        raise CheckFailed("configs/train.json: train::handlers must be a list of objects; check_properties() needs it")
    return f"{', '.join(IDS)}: all ids"


def targets(content: Any) -> Iterator[str]:
    """All values of ``_target_`` in a config."""
    if isinstance(content, dict):
        if isinstance(content.get("_target_"), str):
            yield content["_target_"]
        content = list(content.values())
    if isinstance(content, list):
        for item in content:
            yield from targets(item)


def check_label(bundle: Bundle) -> str:
    """What MONAI Label's classification task needs of inference.json."""
    config = bundle.json("configs/inference.json")
    if any("@_meta_" in text for text in strings(config)):
        raise CheckFailed("configs/inference.json refers to @_meta_, which MONAI Label doesn't read")
    steps = (entry_at(config, "postprocessing::transforms") or [{}]) if isinstance(config, dict) else [{}]
    last = {"_target_": "DeleteItemsd", "keys": ["image", "image_meta_dict"]}
    if steps[-1] != last:
        raise CheckFailed(f"configs/inference.json: the last step of postprocessing must be {json.dumps(last)}")
    savers = [text for text in targets(config["postprocessing"]) if "Save" in text]
    if savers:
        raise CheckFailed(f"configs/inference.json: {savers[0]} in postprocessing; MONAI Label writes results itself")
    inputs, outputs = (bundle.metadata.get("network_data_format", {}).get(side, {}) for side in ("inputs", "outputs"))
    if list(inputs) != ["image"] or list(outputs) != ["pred"]:
        raise CheckFailed(f"{METADATA}: tensors {list(inputs)} and {list(outputs)}, expected image and pred")
    return "inference.json as MONAI Label's classification reads it"


def check_sizes(bundle: Bundle) -> str:
    known = bundle.manifest or {}
    large = [name for name in bundle.files if (bundle.root / name).stat().st_size > LARGE]
    alone = [name for name in large if name not in known]
    if alone:
        raise CheckFailed(f"over {LARGE // 1_000_000} MB without an entry in {MANIFEST}: {', '.join(alone)}")
    return f"{len(large)} files over {LARGE // 1_000_000} MB, all in {MANIFEST}" if large else "no large files"


def check_manifest(bundle: Bundle) -> str:
    """Every file is listed, every listed file is there, and has the listed hash."""
    if bundle.manifest is None:
        return f"a source folder without {MANIFEST}: no hashes to compare"
    present = set(bundle.files) - {MANIFEST}
    for found, what in ((set(bundle.manifest) - present, "missing"), (present - set(bundle.manifest), "not listed")):
        if found:
            raise CheckFailed(f"{what}: {', '.join(sorted(found))}")
    changed = [name for name, entry in bundle.manifest.items() if sha256_of(bundle.root / name) != entry.get("sha256")]
    if changed:
        raise CheckFailed(f"changed since packing: {', '.join(changed)}")
    return f"{len(present)} files as packed"


CHECKS = {
    "name": check_name,
    "files": check_files,
    "version": check_version,
    "metadata": check_metadata,
    "packages": check_packages,
    "configs": check_configs,
    "label": check_label,
    "sizes": check_sizes,
    "manifest": check_manifest,
}
