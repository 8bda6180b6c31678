# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scripts.release import package_bundle

NAME = "dual_skd_classification_v0.10.0.zip"
CHANGES = {"0.2.0": "second", "0.10.0": "third", "0.1.0": "first"}
TENSORS = {"inputs": {"image": {"spatial_shape": [96, 96]}}, "outputs": {"pred": {"type": "logits"}}}
FORMATS = {"network_data_format": TENSORS, "auxiliary_data_format": TENSORS}
ABOUT = {
    "architecture": {"name": "b", "num_classes": 2, "in_channels": 1, "spatial_dims": 3, "image_size": 32, "width": 2},
    "preprocessing": {"spatial_dims": 3, "image_size": 32, "window": "lung", "spacing": None},
    "class_names": ["ill", "well"],
}
LARGE = {"name": "c", "num_classes": 2, "in_channels": 1, "spatial_dims": 3, "image_size": 32, "depths": [3, 3]}
RUN = {"networks": {"large": {"architecture": LARGE}}, "config": {"pretrained": "hub"}}
FILES = {
    "LICENSE": "Apache License\n",
    "configs/metadata.json": json.dumps({"version": "0.10.0", "changelog": CHANGES, **FORMATS}),
    "configs/train.json": json.dumps(
        {"spatial_dims": 2, "image_size": 96, "window": "auto", "fit": "pad", "small": "a", "seed": 3}
    ),
    "dual_skd/__init__.py": "x = 1\n",
    "dual_skd/data/__init__.py": "",
    "docs/README.md": "What it is: \u00e9.\n",
}

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="packing asks git which files are tracked")


def commit(repository: Path) -> None:
    """Commits everything, untouched by the settings of whoever runs the tests."""
    settings = ["user.name=t", "user.email=t@example.org", "core.hooksPath=", "commit.gpgsign=false"]
    options = [part for setting in settings for part in ("-c", setting)]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(repository), *options, *command], check=True)


def make_repository(folder: Path) -> Path:
    for name, text in FILES.items():
        path = folder / "bundle" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    (folder / "outside.txt").write_text("not of the bundle")
    commit(folder)
    return folder


@pytest.fixture
def repository(tmp_path) -> Path:
    return make_repository(tmp_path / "checkout")


def pack(repository: Path, output: Path, *more: str) -> Path:
    package_bundle.main(["--repository", str(repository), "--output", str(output), *more])
    return output / NAME


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_two_checkouts_give_the_same_bytes(repository, tmp_path):
    other = make_repository(tmp_path / "elsewhere" / "clone")
    for path in other.rglob("*.*"):
        if ".git" not in path.parts:
            os.utime(path, (1, 1))
            path.chmod(0o755)
    first, second = pack(repository, tmp_path / "a"), pack(other, tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    (other / "bundle" / "LICENSE").write_text("another licence\n")
    commit(other)
    assert first.read_bytes() != pack(other, tmp_path / "b").read_bytes()


def test_only_what_is_committed_is_packed_and_the_rest_is_named(repository, tmp_path, capsys):
    cache = repository / "bundle" / "dual_skd" / "__pycache__"
    cache.mkdir()
    (cache / "x.pyc").write_bytes(b"1")
    (repository / "bundle" / "output").write_text("of a run")
    (repository / "bundle" / "LICENSE").write_text("changed")
    found = contents(pack(repository, tmp_path / "dist"))
    folder = "dual_skd_classification/"
    assert set(found) == {folder + name for name in (*FILES, "docs/CHANGELOG.md", "manifest.json")}
    assert all(found[folder + name] == text.encode() for name, text in FILES.items())
    assert "Not in it, because not committed: bundle/LICENSE, " in capsys.readouterr().out


def test_times_permissions_and_order_are_fixed(repository, tmp_path):
    with zipfile.ZipFile(pack(repository, tmp_path)) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}


def test_the_manifest_has_size_and_hash_of_every_other_file(repository, tmp_path):
    found = contents(pack(repository, tmp_path))
    manifest = json.loads(found.pop("dual_skd_classification/manifest.json"))
    assert (manifest["bundle"], manifest["version"]) == ("dual_skd_classification", "0.10.0")
    assert manifest["files"] == {
        name.split("/", 1)[1]: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in found.items()
    }
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of nothing, FIPS 180-4
    assert manifest["files"]["dual_skd/data/__init__.py"] == {"bytes": 0, "sha256": empty}


def test_the_changelog_is_a_page_with_the_newest_version_first(repository, tmp_path):
    page = contents(pack(repository, tmp_path))["dual_skd_classification/docs/CHANGELOG.md"].decode()
    assert page == "# Changelog\n\n## 0.10.0\n\nthird\n\n## 0.2.0\n\nsecond\n\n## 0.1.0\n\nfirst\n"


@pytest.fixture
def models(tmp_path) -> Path:
    folder = tmp_path / "run" / "models"
    folder.mkdir(parents=True)
    (folder / "model.pt").write_bytes(b"weights")
    texts = {name: json.dumps(value) for name, value in ABOUT.items()}
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors", texts)
    (folder / "notes.txt").write_bytes(b"left out")
    (folder.parent / "run.json").write_text(json.dumps(RUN))
    return folder


def test_weights_of_a_run_are_packed_in_place_of_others_when_asked_for(repository, models, tmp_path):
    (repository / "bundle" / "models").mkdir()
    for name in ("model.pt", "auxiliary.pt"):
        (repository / "bundle" / "models" / name).write_bytes(b"others")
    commit(repository)
    found = contents(pack(repository, tmp_path / "dist", "--models", str(models)))
    assert found["dual_skd_classification/models/model.pt"] == b"weights"
    packed = {name.rpartition("/")[2] for name in found if "/models/" in name}
    assert packed == {"model.pt", "model.safetensors"}
    assert "models/model.pt" in json.loads(found["dual_skd_classification/manifest.json"])["files"]
    with pytest.raises(SystemExit, match="no model.pt"):
        pack(repository, tmp_path / "dist", "--models", str(tmp_path))


def test_the_configs_say_what_the_packed_weights_are(repository, models, tmp_path):
    found = contents(pack(repository, tmp_path / "dist", "--models", str(models)))
    metadata = json.loads(found["dual_skd_classification/configs/metadata.json"])
    expected = {"type": "logits", "num_channels": 2, "spatial_shape": [1, 2], "channel_def": {"0": "ill", "1": "well"}}
    for name in FORMATS:
        assert metadata[name]["inputs"]["image"]["spatial_shape"] == [32, 32, 32]
        assert metadata[name]["outputs"]["pred"] == expected
    train = json.loads(found["dual_skd_classification/configs/train.json"])
    assert train == {
        "bundle_classes": ["ill", "well"], "spatial_dims": 3, "image_size": 32, "window": "lung", "fit": "stretch",
        "small": "b", "small_options": {"width": 2}, "seed": 3,
        "large": "c", "large_options": {"depths": [3, 3]}, "pretrained": "hub",
    }  # fmt: skip


def test_options_that_a_run_had_and_this_version_has_not_are_named(repository, models, tmp_path, capsys):
    pack(repository, tmp_path / "dist", "--models", str(models))
    assert "no longer has" not in capsys.readouterr().err
    (models.parent / "run.json").write_text(json.dumps(RUN | {"config": RUN["config"] | {"compensate": 64}}))
    pack(repository, tmp_path / "dist", "--models", str(models))
    assert "The run had compensate 64, which this version no longer has" in capsys.readouterr().err


def test_a_file_of_pretrained_weights_is_named_without_its_folder():
    record = RUN | {"config": {"pretrained": "/home/someone/large.pt"}}
    assert package_bundle.large_network_of(record)["pretrained"] == "large.pt"


def test_training_on_with_a_packed_bundle_learns_as_its_run_did():
    elsewhere = {"dataset_dir": "/home/someone", "epochs": 90, "fine_tune_epochs": 5, "num_workers": 9}
    coupled = {"method": "coupled", "update": "mutual", "temperature": 4.0, "skd_weight": 3.0, "learning_rate": 0.002}
    assert package_bundle.learning_of({"config": elsewhere | coupled}) == {}
    other = {"learning_rate": 0.0005, "temperature": 1.0, "flip_axes": [1], "loss": "focal"}
    assert package_bundle.learning_of({"config": elsewhere | coupled | other | {"teacher_checkpoint": None}}) == other
    mean_teacher = {"method": "same_rule", "update": "ema", "temperature": 2.0, "skd_weight": 1.0}
    assert package_bundle.learning_of({"config": mean_teacher}) == {"method": "same_rule"}


def test_the_packed_package_knows_the_packed_configs():
    files = {"configs/train.json": b"{}", "configs/metadata.json": b"1", "models/model.json": b"2", "a.py": b""}
    assert package_bundle.known_sums(files) == {}
    found = package_bundle.known_sums(
        files | {"dual_skd/options/known_configs.py": b'"""Sums."""\nKNOWN = {\n    "old.json": "1",\n}\n'}
    )
    sum_of_train = hashlib.sha256(b"{}").hexdigest()
    expected = f'"""Sums."""\nKNOWN = {{\n    "train.json": "{sum_of_train}",\n}}\n'
    assert found == {"dual_skd/options/known_configs.py": expected.encode()}


def test_a_packed_bundle_asks_for_no_teacher_that_is_not_in_it():
    config = {"method": "distill", "update": "frozen", "teacher_checkpoint": "/t/model.pt", "label_smoothing": 0.1}
    assert package_bundle.learning_of({"config": config}) == {"label_smoothing": 0.1}


@pytest.mark.parametrize("record", [None, "{", "{}"])
def test_without_the_large_network_of_another_family_nothing_is_packed(repository, models, tmp_path, record):
    (models.parent / "run.json").unlink()
    if record is not None:
        (models.parent / "run.json").write_text(record)
    with pytest.raises(SystemExit, match="says from which large network b was selected"):
        pack(repository, tmp_path / "dist", "--models", str(models))
    train = repository / "bundle" / "configs" / "train.json"
    train.write_text(train.read_text().replace('"small": "a"', '"small": "b", "large": "d"'))
    commit(repository)
    found = contents(pack(repository, tmp_path / "dist", "--models", str(models)))
    assert json.loads(found["dual_skd_classification/configs/train.json"])["large"] == "d"  # as it was


def test_weights_that_do_not_say_what_they_are_cannot_be_packed(repository, models, tmp_path):
    save_file({"weight": torch.zeros(2)}, models / "model.safetensors")
    with pytest.raises(SystemExit, match="doesn't say what its network is"):
        pack(repository, tmp_path / "dist", "--models", str(models))


def test_what_makes_no_bundle_is_refused_with_its_name(repository, tmp_path):
    link = repository / "bundle" / "docs" / "link.md"
    link.symlink_to("README.md")
    commit(repository)
    with pytest.raises(SystemExit, match="docs/link.md is a link"):
        pack(repository, tmp_path)
    link.unlink()
    (repository / "bundle" / "configs" / "metadata.json").write_text('{"version": "0.11.0", "changelog": {}}')
    commit(repository)
    with pytest.raises(SystemExit, match="'0.11.0' but no such entry in its changelog"):
        pack(repository, tmp_path)
    with pytest.raises(SystemExit, match="git ls-tree failed"):
        pack(tmp_path, tmp_path)


def test_a_folder_that_cannot_be_made_is_one_sentence(repository, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="can't be written .*; give another --output"):
        pack(repository, tmp_path / "file" / "dist")
