# SPDX-License-Identifier: Apache-2.0
"""Checks of a bundle's metadata: MONAI's schema, one version everywhere, versions of packages."""

from __future__ import annotations

import ast
import re
from typing import Any

from scripts.release.bundle import MANIFEST, METADATA, Bundle, CheckFailed, source
from scripts.release.project import dependencies

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
    if not bundle.project.is_file():
        raise CheckFailed(f"{bundle.project} is missing; its floors are compared with the versions of {METADATA}")
    project = bundle.project.read_text(encoding="utf-8")
    declared = {found.name.lower(): found for found in dependencies(project)}
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
