# SPDX-License-Identifier: Apache-2.0
"""The whole command takes a minute; here are its checks one by one, each on a bundle that lacks one thing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dual_skd.data import write_demo
from dual_skd.networks.build import build_network
from dual_skd.runs.model_file import save_model
from scripts import ROOT
from scripts.release import verify_bundle
from scripts.release.bundle import Bundle
from scripts.release.package_bundle import bundle_files, zip_bytes
from scripts.release.verify_bundle_network import Networks

READING = ("name", "files", "version", "metadata", "packages", "configs", "label", "sizes", "manifest")


@pytest.fixture
def packed(tmp_path) -> Path:
    """The zip of this bundle as it lies here."""
    source = Bundle(ROOT / "bundle", ROOT / "bundle", False)
    files = {name: (source.root / name).read_bytes() for name in source.files if not name.startswith("models/")}
    version, complete = bundle_files(files)
    path = tmp_path / f"dual_skd_classification_v{version}.zip"
    path.write_bytes(zip_bytes(complete))
    return path


@pytest.fixture
def folder(packed, tmp_path) -> Path:
    """The same, unpacked."""
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked" / "dual_skd_classification"


def verify(capsys, bundle: Path, *checks: str) -> tuple[int, list[str]]:
    """Exit code and lines."""
    code = verify_bundle.main([str(bundle), "--only", *checks])
    return code, capsys.readouterr().out.splitlines()


def test_a_packed_bundle_passes_what_only_reads_files(capsys, packed, folder):
    for bundle in (packed, folder):
        code, lines = verify(capsys, bundle, *READING)
        assert [line.split()[:2] for line in lines[:-1]] == [["ok", name] for name in READING], lines
        assert code == 0 and lines[-1] == f"{bundle}: all 9 checks passed"


def edit(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Changes the content of a JSON file of the bundle."""

    def go(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return go


def metadata(**changes: object) -> Callable[[Path], None]:
    return edit("configs/metadata.json", lambda content: content.update(changes))


def config(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    return edit(f"configs/{name}.json", change)


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def two_names_for_one_channel(content: dict) -> None:
    content["auxiliary_data_format"]["inputs"]["image"]["channel_def"]["1"] = "more"


DAMAGE = {
    "no licence": (without("LICENSE"), "files", "missing: LICENSE"),
    "another licence": (write("LICENSE", b"All rights reserved"), "files", "LICENSE is not the Apache License"),
    "no licence line": (write("dual_skd/new.py", b"x = 1\n"), "files", "no SPDX licence line in dual_skd/new.py"),
    "unknown version": (
        metadata(version="0.0.9"), "version", "version 0.0.9 is not in the changelog of configs/metadata.json",
    ),
    "old version": (
        metadata(version="0.9.0", changelog={"0.9.0": "a", "0.10.0": "b"}), "version", "changelog of "
        "configs/metadata.json goes up to 0.10.0",
    ),
    "version of the package": (
        metadata(version="99.0.0", changelog={"99.0.0": "a"}), "version", "configs/metadata.json has version 99.0.0, "
        "dual_skd/__init__.py has",
    ),
    "no task": (edit("configs/metadata.json", lambda c: c.pop("task")), "metadata", "'task' is a required property"),
    "version of a kind": (
        metadata(monai_version="latest"), "metadata", "configs/metadata.json, monai_version: 'latest' does not match",
    ),
    "channels": (
        edit("configs/metadata.json", two_names_for_one_channel), "metadata", "auxiliary_data_format/inputs/image: 1 "
        "channels, but 2 names",
    ),
    "below a floor": (metadata(pytorch_version="2.9.1"), "packages", "torch 2.9.1 against >=2.10"),
    "undeclared package": (
        edit("configs/metadata.json", lambda c: c["required_packages_version"].update(nnunet="2.0.0")), "packages",
        "only in configs/metadata.json: nnunet",
    ),
    "not JSON": (write("configs/train.json", b"{"), "configs", "configs/train.json is not valid JSON"),
    "no id": (config("inference", lambda c: c.pop("inferer")), "configs", "configs/inference.json lacks inferer"),
    "a path": (
        config("volume", lambda c: c.update(dataset_dir="/home/me/scans")), "configs",
        "configs/volume.json holds a path of one machine: /home/me/scans",
    ),
    "a shadowed target": (
        config("evaluate", lambda c: c["validate"]["dataset"].update(_target_="scripts.data.Dataset")), "configs",
        "configs/evaluate.json: scripts.data.Dataset is shadowed",
    ),
    "handlers by reference": (
        config("train", lambda c: c["train"].update(handlers=["@other"])), "configs",
        "train::handlers must be a list of objects",
    ),
    "reference to the metadata": (
        config("inference", lambda c: c.update(task="@_meta_::task")), "label", "refers to @_meta_",
    ),
    "image is not deleted": (
        config("inference", lambda c: c["postprocessing"]["transforms"].pop()), "label",
        "the last step of postprocessing",
    ),
    "a saver": (
        config("inference", lambda c: c["postprocessing"]["transforms"].insert(0, {"_target_": "SaveImaged"})), "label",
        "SaveImaged in postprocessing",
    ),
    "a large file": (
        write("models_model.pt", bytes(5_000_001)), "sizes",
        "over 5 MB without an entry in manifest.json: models_model.pt",
    ),
    "changed code": (
        write("dual_skd/training/losses.py", b"# SPDX-License-Identifier: MIT\n"), "manifest", "changed since packing: "
        "dual_skd/training/losses.py",
    ),
    "a file more": (write("docs/notes.md", b"x"), "manifest", "not listed: docs/notes.md"),
    "a file less": (without("dual_skd/training/schedule.py"), "manifest", "missing: dual_skd/training/schedule.py"),
    "no manifest": (without("manifest.json"), "manifest", "manifest.json is missing"),
    "an empty manifest": (write("manifest.json", b"[]"), "manifest", "manifest.json has no table of files"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_bundle_is_refused_with_the_reason(capsys, folder, kind):
    damage, check, words = DAMAGE[kind]
    damage(folder)
    code, lines = verify(capsys, folder, check)
    assert code == 1 and lines[0].split()[:2] == ["failed", check], lines
    assert words in lines[0]
    assert lines[-1] == f"{folder}: 1 of 1 checks failed"


def test_by_products_of_python_are_not_taken_for_files_of_the_bundle(capsys, folder):
    cache = folder / "dual_skd" / "__pycache__"
    cache.mkdir()
    (cache / "losses.cpython-311.pyc").write_bytes(bytes(6_000_000))
    assert verify(capsys, folder, "manifest", "sizes")[0] == 0


def test_a_zip_that_is_none_or_not_this_one_is_refused(capsys, packed, tmp_path):
    renamed = shutil.copy(packed, tmp_path / "bundle.zip")
    code, lines = verify(capsys, Path(renamed), "name")
    assert code == 1 and "the zip is called bundle.zip, expected dual_skd_classification_v" in lines[0]

    content = bytearray(packed.read_bytes())
    content[content.index(b"Apache License")] ^= 1
    packed.write_bytes(content)
    code, lines = verify(capsys, packed, "name")
    assert code == 1 and "dual_skd_classification/LICENSE is damaged" in lines[0]

    for names, words in (
        (["dual_skd_classification/a", "other/b"], "expected one folder"),
        (["dual_skd_classification/../../a"], "would unpack outside its folder"),
        (["/etc/a"], "would unpack outside its folder"),
    ):
        with zipfile.ZipFile(packed, "w") as archive:
            for name in names:
                archive.writestr(name, "x")
        code, lines = verify(capsys, packed, "name")
        assert code == 1 and words in lines[0]
    packed.write_text("no zip")
    assert "is neither a folder nor a zip" in verify(capsys, packed, "name")[1][0]
    assert "is neither a folder nor a zip" in verify(capsys, tmp_path / "nowhere", "name")[1][0]


def test_the_exit_code_is_that_of_the_worst_check(folder):
    command = [sys.executable, "-m", "scripts.release.verify_bundle", str(folder), "--only", "files", "manifest"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("ok  ")) == (0, 2), done.stderr
    (folder / "LICENSE").unlink()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("failed  ")) == (1, 2), done.stderr


def test_runs_use_the_bundles_own_code_and_its_failure_is_the_reason(capsys, folder):
    # the installed package is sound, so only the copy in the bundle can say this
    (folder / "dual_skd" / "__init__.py").write_text("raise RuntimeError('code of the bundle')\n")
    code, lines = verify(capsys, folder, "run", "load")
    assert code == 1
    assert "run from repository root: RuntimeError: code of the bundle" in lines[0]
    assert "run from elsewhere: RuntimeError: code of the bundle" in lines[1]


def test_the_reason_is_the_first_error_of_a_chain():
    chain = (
        "Traceback (most recent call last):\n  File a\nKeyError: 'deep'\n\nThe above exception was the direct cause\n"
        "Traceback (most recent call last):\nRuntimeError: Failed to evaluate\n set '_mode_=debug' to debug."
    )
    assert verify_bundle.reason_in(chain) == "KeyError: 'deep'"
    assert verify_bundle.reason_in("a warning\n\nError: No model in here; train one.") == "No model in here; train one."
    assert verify_bundle.reason_in("loading\nkilled") == "killed"


def save_untrained(models: Path, seed: int) -> None:
    """Random weights of the default family, one block per stage."""
    torch.manual_seed(seed)
    architecture = {
        "name": "tf_efficientnet_lite2", "num_classes": 3, "in_channels": 1, "depths": [1, 1, 1, 1, 1, 1],
    }  # fmt: skip
    save_model(
        models, build_network(**architecture), architecture=architecture, class_names=["a", "b", "c"],
        preprocessing={"spatial_dims": 2, "image_size": 96, "window": "percentile"},
    )  # fmt: skip


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A copy of the bundle with the weights of a run in this folder's ``output``."""
    ignored = shutil.ignore_patterns("__pycache__", "models", "*.egg-info")
    root = shutil.copytree(ROOT / "bundle", tmp_path / "checkout" / "dual_skd_classification", ignore=ignored)
    save_untrained(tmp_path / "output" / "models", seed=0)
    data = write_demo(tmp_path / "data", counts={"train": 3, "val": 3, "test": 3})
    monkeypatch.chdir(tmp_path)
    return Networks(root, tmp_path / "output", data, tmp_path)


def test_the_network_is_compared_with_the_metadata(networks):
    assert networks.network() == "(2, 1, 96, 96) to (2, 3)"
    path = networks.root / "configs" / "metadata.json"
    path.write_text(path.read_text().replace('"num_channels": 3', '"num_channels": 4'))
    with pytest.raises(ValueError, match="output channel number `3` doesn't match: `4`"):
        networks.network()


def test_torchscript_gives_the_outputs_of_the_network(networks, monkeypatch):
    assert networks.torchscript().startswith("reloaded, largest difference ")
    expected = networks.expected
    assert expected.abs().max() > 0 and not torch.equal(expected[0], expected[1])
    monkeypatch.setattr(type(networks), "expected", expected + 0.25)
    with pytest.raises(ValueError, match="differ by 0.25"):
        networks.torchscript()


def test_monai_loads_the_folder_with_its_weights(networks, monkeypatch):
    before = networks.expected
    save_untrained(networks.root / "models", seed=1)  # so that nothing but the folder's own weights will do
    assert not torch.allclose(networks.expected, before)
    assert "gives the network" in networks.load()
    monkeypatch.setattr(type(networks), "expected", networks.expected + 0.25)
    with pytest.raises(ValueError, match="other outputs"):
        networks.load()
