# SPDX-License-Identifier: Apache-2.0
"""The bundle is found wherever the package lies: in the repository, packed, and installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from dual_skd.runs import places

REPOSITORY = Path(__file__).resolve().parents[2]
SAYS = "from dual_skd.runs import places; print(places.bundle_root(), places.own_bundle(), sep='\\n')"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as ``pip install .`` puts it there."""
    try:
        new_enough = int(version("setuptools").partition(".")[0]) >= 77
    except PackageNotFoundError:
        new_enough = False
    if not new_enough:
        pytest.skip("builds a wheel, for which setuptools 77 or newer has to be installed")
    if not (REPOSITORY / "setup.py").is_file():
        pytest.skip("the bundle folder alone, without the repository's setup.py")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(REPOSITORY / "bundle", source / "bundle", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(REPOSITORY / name, source)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    built = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


def said_in(folder: Path, path: Path) -> list[Path]:
    """What a process in a folder, which finds the package in ``path``, takes for the bundle, and for its own."""
    paths = os.pathsep.join([str(path), sysconfig.get_path("purelib")])
    done = subprocess.run(  # -S: an editable install of the developer's doesn't count
        [sys.executable, "-S", "-c", SAYS], cwd=folder, env=os.environ | {"PYTHONPATH": paths}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(map(Path, done.stdout.splitlines()))


def test_the_bundle_is_the_folder_of_the_package_from_any_folder(tmp_path, monkeypatch):
    root = REPOSITORY / "bundle"
    monkeypatch.chdir(tmp_path)
    assert places.bundle_root() == str(root) and places.own_bundle() == root


def test_an_installed_package_has_the_files_of_its_bundle_and_no_others(installed, tmp_path):
    bundle = installed / "dual_skd" / "bundle"
    assert said_in(tmp_path, installed) == [bundle, bundle]
    found = {file.relative_to(bundle).as_posix() for file in bundle.rglob("*") if file.is_file()}
    configs = {f"configs/{path.name}" for path in (REPOSITORY / "bundle" / "configs").iterdir()}
    models = {
        file.relative_to(REPOSITORY / "bundle").as_posix() for file in (REPOSITORY / "bundle/models").rglob("*.*")
    }
    assert found == configs | models | {"LICENSE"} and "models/chest_xray_pneumonia/model.pt" in models
    for name in found:
        assert (bundle / name).read_bytes() == (REPOSITORY / "bundle" / name).read_bytes()


def test_an_installed_package_has_the_templates_of_its_pages(installed):
    templates = Path("dual_skd", "evaluation", "pages", "templates")
    for template in (REPOSITORY / "bundle" / templates).rglob("*.*"):
        assert (installed / templates / template.relative_to(REPOSITORY / "bundle" / templates)).is_file()


def test_an_installed_package_uses_the_clone_that_it_is_started_in_and_no_other_bundle(installed, tmp_path):
    own = installed / "dual_skd" / "bundle"
    assert said_in(REPOSITORY, installed) == [REPOSITORY / "bundle", own]
    (tmp_path / "configs").mkdir()  # of another MONAI bundle
    (tmp_path / "configs" / "train.json").write_text('{"network": {"_target_": "monai.networks.nets.UNet"}}')
    (tmp_path / "configs" / "metadata.json").write_text("{}")
    assert said_in(tmp_path, installed) == [own, own]
