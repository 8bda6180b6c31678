# SPDX-License-Identifier: Apache-2.0
"""Packs the bundle into one zip that MONAI, MONAI Label and the Model Zoo read.

    python -m scripts.release.package_bundle [--output dist] [--commit HEAD] [--models output/models]

The zip, ``dual_skd_classification_v<version>.zip``, holds the folder ``dual_skd_classification``: MONAI Label tells the
task from that name. In it is what the commit has under ``bundle``, and nothing else: no untracked file and no change
that isn't committed. Two files are made here: ``docs/CHANGELOG.md`` from the changelog of ``configs/metadata.json``,
and ``manifest.json`` with size and SHA-256 of every other file. ``--models`` packs the weights of a finished run in
place of any others, and two configs say what they are. ``configs/metadata.json`` gets classes, size of an image and test
metrics; MONAI Label calls its answers by these classes. ``configs/train.json`` gets the classes and the options of the
network, and by the run's run.json those of the large one it was selected from and how the run learned (rate, method,
loss, augmentation), to train on with it. For how long, on which images and where stays as committed.

The same commit and the same run give the same zip, byte for byte, wherever and whenever it is packed: names are
sorted, times and permissions are fixed, and files are stored as they are, since compressors differ between machines.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from scripts import ROOT
from scripts.release.bundle import FOLDER, MANIFEST, METADATA, TRAIN

GIVEN_BY_DATA = ("num_classes", "in_channels", "spatial_dims", "image_size")  # of an architecture; no options of it
EVAL_METRICS = ("accuracy", "balanced_accuracy", "macro_auc")
KNOWN_CONFIGS = "dual_skd/options/known_configs.py"
CHANGELOG = "docs/CHANGELOG.md"
WEIGHTS = ("model.pt", "model.safetensors", "auxiliary.pt", "auxiliary.safetensors")  # what a run leaves in its models
ORDINARY_MODES = ("100644", "100755")  # modes of ordinary files in git; links and submodules have others
FIRST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can tell
PERMISSIONS = 0o100644 << 16  # an ordinary file, read by all, written by its owner


def git(repository: Path, *arguments: str, given: bytes | None = None) -> bytes:
    """Output of a git command; ends the script with git's own reason when it fails."""
    command = ["git", "--no-optional-locks", "-C", str(repository), *arguments]
    try:
        return subprocess.run(command, input=given, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise SystemExit("Error: git is needed to know which files belong to the bundle; install it.") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
        raise SystemExit(f"Error: git {arguments[0]} failed in {repository}: {reason}") from None


def committed_files(repository: Path, commit: str, folder: str = "bundle") -> dict[str, bytes]:
    """Path relative to the folder, and content, of every file that a commit has there."""
    names, objects = [], []
    for entry in git(repository, "ls-tree", "-r", "-z", f"{commit}:{folder}").split(b"\0")[:-1]:
        facts, name = entry.decode().split("\t", 1)
        mode, _, identity = facts.split()
        if mode not in ORDINARY_MODES:
            raise SystemExit(f"Error: {folder}/{name} is a link or a submodule; a bundle holds ordinary files only.")
        names.append(name)
        objects.append(identity)
    answer = BytesIO(git(repository, "cat-file", "--batch", given="\n".join(objects).encode() + b"\n"))
    found = {}
    for name in names:
        size = int(answer.readline().split()[2])  # "<object> blob <size>", the content, a line break
        found[name] = answer.read(size)
        answer.read(1)
    return found


def weights_of(models: Path) -> dict[str, bytes]:
    """The weights in a run's ``models`` folder, under the names that they get in the bundle."""
    found = {f"models/{name}": (models / name).read_bytes() for name in WEIGHTS if (models / name).is_file()}
    missing = [name for name in WEIGHTS[:2] if f"models/{name}" not in found]
    if missing:
        raise SystemExit(f"Error: no {missing[0]} in {models}; give the models folder of a finished run's output_dir.")
    return found


def description_of(weights: bytes) -> dict[str, Any]:
    """What a .safetensors file says of its network beside the tensors: architecture, class names, preprocessing."""
    try:
        length = int.from_bytes(weights[:8], "little")  # of the header, JSON, at the start of the file
        texts = json.loads(weights[8 : 8 + length])["__metadata__"]
        found = {name: json.loads(texts[name]) for name in ("architecture", "class_names", "preprocessing")}
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"Error: model.safetensors doesn't say what its network is ({error}); train again.") from None
    return found


def named_options(architecture: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name of a network, and its options without those that the data give."""
    options = {key: value for key, value in architecture.items() if key not in GIVEN_BY_DATA}
    return options.pop("name"), options


def record_of(run: Path) -> Any:
    """What run.json says; None where there is none."""
    try:
        return json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def large_network_of(record: Any) -> dict[str, Any] | None:
    """Options of train.json for the large network of a run, by its run.json; None where that doesn't say."""
    try:
        name, options = named_options(record["networks"]["large"]["architecture"])
        pretrained = Path(record["config"]["pretrained"]).name  # a word, or a file, whose folder is of this machine
    except (KeyError, TypeError):
        return None
    return {"large": name, "large_options": options, "pretrained": pretrained}


def learning_of(record: Any) -> dict[str, Any]:
    """Entries of train.json for how a run learned, by its run.json: those that its user chose.

    What follows from the method keeps doing so, for ``--method`` to work. A run that learned from a teacher's file
    leaves the method as committed: that file isn't packed.
    """
    from dual_skd.options import chosen  # here, since packing without a run needs no more than Python
    from dual_skd.options.training import Augmentation, Distillation, Learning, Selection

    config = (record or {}).get("config", {})
    groups = [Learning, Augmentation, Selection] + ([] if config.get("teacher_checkpoint") else [Distillation])
    taken = {name for group in groups for name in group.model_fields}
    return {name: value for name, value in chosen(config).items() if name in taken}


def metrics_of(run: Path) -> dict[str, float]:
    """``eval_metrics`` of the metadata: a run's test metrics, rounded; empty where it hasn't been evaluated."""
    try:
        found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["test"]["student"]
    except (OSError, ValueError, KeyError):
        return {}
    return {name: round(found[name], 3) for name in EVAL_METRICS if found.get(name) is not None}


def fitted_configs(files: Mapping[str, bytes], run: Path) -> dict[str, bytes]:
    """``metadata.json`` and ``train.json`` of a bundle, fitted to the weights of ``run`` that are packed with it."""
    about = description_of(files["models/model.safetensors"])
    prepared, names = about["preprocessing"], about["class_names"]
    size = prepared["image_size"]
    shape = list(size) if isinstance(size, list) else [size] * prepared["spatial_dims"]
    metadata, train = (json.loads(files[name]) for name in (METADATA, TRAIN))
    for key in ("network_data_format", "auxiliary_data_format"):
        metadata[key]["inputs"]["image"]["spatial_shape"] = shape
        metadata[key]["outputs"]["pred"] |= {
            "num_channels": len(names), "spatial_shape": [1, len(names)],
            "channel_def": {str(place): name for place, name in enumerate(names)},
        }  # fmt: skip
    metadata["eval_metrics"] = metrics_of(run)
    small, options = named_options(about["architecture"])
    record = record_of(run)
    large = large_network_of(record)
    if large is None and small != train["small"]:
        raise SystemExit(
            f"Error: no run.json in {run} says from which large network {small} was selected, and {TRAIN} has one for "
            f"{train['small']} only; give the models folder where the run left it, in its output_dir."
        )
    from dual_skd.options import completed, removed  # here, as above

    train |= {key: value for key, value in completed(prepared).items() if key in train}
    train |= learning_of(record)
    if lost := removed((record or {}).get("config", {})):
        print(f"The run had {lost}, which this version no longer has; {TRAIN} trains without it.", file=sys.stderr)
    train |= {"bundle_classes": names, "small": small, "small_options": options, **(large or {})}
    contents = {METADATA: metadata, TRAIN: train}
    fitted = {name: (json.dumps(content, indent=4) + "\n").encode() for name, content in contents.items()}
    return fitted | known_sums(dict(files) | fitted)


def files_of_run(repository: Path, commit: str, models: Path) -> dict[str, bytes]:
    """The committed files with the weights of a run in place of any others, and with configs that fit them."""
    files = committed_files(repository, commit).items()
    found = {name: content for name, content in files if not name.startswith("models/")} | weights_of(models)
    return found | fitted_configs(found, models.absolute().parent)


def known_sums(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The package's table of the configs that it knows, fitted to those that are packed; empty without one."""
    from scripts.release.write_options import with_sums  # here, as above

    if KNOWN_CONFIGS not in files:
        return {}
    configs = {Path(name).name: files[name].decode() for name in files if name.endswith(".json") and name != METADATA}
    configs = {name: text for name, text in configs.items() if f"configs/{name}" in files}
    return {KNOWN_CONFIGS: with_sums(files[KNOWN_CONFIGS].decode(), configs).encode()}


def version_key(version: str) -> tuple[int, ...]:
    """``0.10.2`` as (0, 10, 2), so that versions sort as numbers; what isn't a number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def changelog_page(metadata: Mapping) -> bytes:
    """The changelog of the metadata as Markdown, newest version first."""
    changes = metadata["changelog"]
    parts = [f"## {version}\n\n{changes[version]}\n" for version in sorted(changes, key=version_key, reverse=True)]
    return "\n".join(["# Changelog\n", *parts]).encode()


def manifest_of(files: Mapping[str, bytes], version: str) -> bytes:
    """JSON with size and SHA-256 of every file."""
    entries = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(files.items())
    }
    return (json.dumps({"bundle": FOLDER, "version": version, "files": entries}, indent=1) + "\n").encode()


def bundle_files(files: Mapping[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """Version, and all files of the bundle: those given, the changelog page and the manifest."""
    if METADATA not in files:
        raise SystemExit(f"Error: no {METADATA} among the bundle's files, so its version isn't known.")
    metadata = json.loads(files[METADATA])
    version = metadata.get("version", "")
    if version not in metadata.get("changelog", {}):
        raise SystemExit(f"Error: {METADATA} has version {version!r} but no such entry in its changelog; add one.")
    complete = {**files, CHANGELOG: changelog_page(metadata)}
    return version, {**complete, MANIFEST: manifest_of(complete, version)}


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    """A zip of the files in one folder; equal files give equal bytes."""
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{FOLDER}/{name}", FIRST_ZIP_TIME)
            entry.create_system = 3  # Unix on every machine, since it says how permissions are read
            entry.external_attr = PERMISSIONS
            archive.writestr(entry, files[name])
    return target.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("dist"), help="folder of the zip (default: dist)")
    parser.add_argument("--commit", default="HEAD", help="the commit to pack (default: HEAD)")
    parser.add_argument("--models", type=Path, help="models folder of a finished run, whose weights are packed too")
    parser.add_argument("--repository", type=Path, default=ROOT, help="the checkout (default: this script's)")
    given = parser.parse_args(arguments)
    if given.models is None:
        files = committed_files(given.repository, given.commit)
    else:
        files = files_of_run(given.repository, given.commit, given.models)
    version, complete = bundle_files(files)
    content = zip_bytes(complete)
    path = given.output / f"{FOLDER}_v{version}.zip"
    try:
        given.output.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise SystemExit(f"Error: {path} can't be written ({error.strerror}); give another --output.") from None
    sys.stdout.write(f"{path}: {len(complete)} files, sha256 {hashlib.sha256(content).hexdigest()}\n")
    changed = git(given.repository, "status", "--porcelain", "--", "bundle").decode().splitlines()
    if changed:
        named = ", ".join(line[3:] for line in changed[:3]) + (" ..." if len(changed) > 3 else "")
        sys.stdout.write(f"Not in it, because not committed: {named}\n")


if __name__ == "__main__":
    main()
