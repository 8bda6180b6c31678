# SPDX-License-Identifier: Apache-2.0
"""Checks of a bundle that only read its files. Each takes a :class:`Bundle`, returns a line or raises CheckFailed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from dual_skd.utils.files import sha256_of
from scripts.release.bundle import FOLDER, MANIFEST, METADATA, Bundle, CheckFailed, python_files, source
from scripts.release.metadata_checks import check_metadata, check_packages, check_version

LARGE_FILE_MB = 5  # larger files must be listed in the manifest
REQUIRED_FILES = (
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

# ids that the Model Zoo's contribution guide and MONAI's properties name, "::" for an entry of an entry
REQUIRED_IDS = {
    "train.json": (
        "bundle_root", "device", "dataset_dir", "output_dir", "network_def", "val_interval", "training", "run",
        "train::trainer::max_epochs", "train::dataset", "train::inferer", "train::handlers", "train::preprocessing",
        "validate::evaluator", "validate::handlers", "validate::dataset", "validate::preprocessing",
        "validate::inferer",
    ),
    "evaluate.json": (
        "bundle_root", "device", "dataset_dir", "output_dir", "network_def", "dataset", "evaluator", "inferer",
        "validate::evaluator", "validate::handlers", "validate::dataset", "preprocessing", "evaluating", "run",
    ),
    "inference.json": (
        "bundle_root", "device", "dataset_dir", "output_dir", "network_def", "network", "dataset", "evaluator",
        "inferer", "handlers", "preprocessing", "postprocessing", "inference", "run",
    ),
}  # fmt: skip


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
    missing = [name for name in REQUIRED_FILES if name not in bundle.files]
    if missing:
        raise CheckFailed(f"missing: {', '.join(missing)}")
    empty = [name for name in REQUIRED_FILES if not (bundle.root / name).read_text(encoding="utf-8").strip()]
    if empty:
        raise CheckFailed(f"empty: {', '.join(empty)}")
    if "Apache License" not in (bundle.root / "LICENSE").read_text(encoding="utf-8"):
        raise CheckFailed("LICENSE is not the Apache License that the source files name")
    unmarked = [name for name in python_files(bundle) if "SPDX-License-Identifier" not in source(bundle, name)[:200]]
    if unmarked:
        raise CheckFailed(f"no SPDX licence line in {', '.join(unmarked)}")
    return f"{len(bundle.files)} files"


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
    for name, ids in REQUIRED_IDS.items():
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
    return f"{', '.join(REQUIRED_IDS)}: all ids"


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
    large = [name for name in bundle.files if (bundle.root / name).stat().st_size > LARGE_FILE_MB * 1_000_000]
    alone = [name for name in large if name not in known]
    if alone:
        raise CheckFailed(f"over {LARGE_FILE_MB} MB without an entry in {MANIFEST}: {', '.join(alone)}")
    return f"{len(large)} files over {LARGE_FILE_MB} MB, all in {MANIFEST}" if large else "no large files"


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
