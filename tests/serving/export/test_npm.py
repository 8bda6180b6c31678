# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import urllib.error

import pytest

from dual_skd.errors import InputError
from dual_skd.serving.export import npm
from dual_skd.serving.export.npm import Package, files_of, modules, registry


def packed(**files):
    """The tarball of a package, as npm lays it out, and the package."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/{name.replace('__', '/')}.js")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    digest = base64.b64encode(hashlib.sha512(content.getvalue()).digest()).decode()
    return content.getvalue(), Package("@scope/lib", "1.2.3", f"sha512-{digest}")


@pytest.fixture
def no_npm(monkeypatch, tmp_path):
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY", npm.FOLDER):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(npm.shutil, "which", lambda name: None)


def test_a_package_is_fetched_once_from_where_npm_keeps_it(no_npm, monkeypatch):
    content, package = packed(lib__one="1", other="2")
    asked = []

    def urlopen(address, timeout):
        asked.append(address)
        return io.BytesIO(content)

    monkeypatch.setattr(npm.urllib.request, "urlopen", urlopen)
    assert files_of(package, ["lib/*"]) == files_of(package, ["lib/*"]) == {"lib/one.js": b"1"}
    assert asked == ["https://registry.npmjs.org/@scope/lib/-/lib-1.2.3.tgz"]


def test_another_package_than_the_published_one_is_refused_and_not_kept(no_npm, monkeypatch):
    content, _ = packed(one="evil")
    _, package = packed(one="good")
    monkeypatch.setattr(npm.urllib.request, "urlopen", lambda address, timeout: io.BytesIO(content))
    with pytest.raises(InputError, match=r"lib-1\.2\.3\.tgz isn't @scope/lib 1\.2\.3 as it was published"):
        files_of(package, ["*"])
    assert not npm.cache().exists()


def test_a_computer_without_a_network_is_told_what_to_do(no_npm, monkeypatch):
    def urlopen(address, timeout):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(npm.urllib.request, "urlopen", urlopen)
    with pytest.raises(InputError, match=r"can't be fetched \(.*no route.*\); .* a folder that DUAL_SKD_NPM names"):
        files_of(packed(one="1")[1], ["*"])


def test_a_folder_with_the_files_is_used_without_a_network(no_npm, monkeypatch, tmp_path):
    content, package = packed(one="1")
    monkeypatch.setenv(npm.FOLDER, str(tmp_path))
    with pytest.raises(InputError, match=r"put it there with `npm pack @scope/lib@1\.2\.3`"):
        files_of(package, ["*"])
    (tmp_path / "scope-lib-1.2.3.tgz").write_bytes(content)  # the name that npm pack gives it
    assert files_of(package, ["*"]) == {"one.js": b"1"}


def test_the_registry_is_npms_own_setting(no_npm, monkeypatch):
    assert registry() == "https://registry.npmjs.org/"
    monkeypatch.setenv("npm_config_registry", "https://mirror.example/npm")
    assert registry() == "https://mirror.example/npm/"
    monkeypatch.setenv("npm_config_registry", "file:///etc/")
    with pytest.raises(InputError, match="Expected the address of a registry"):
        registry()


def test_modules_name_each_other_without_relative_paths():
    sources = {
        "lib/index.js": "import A, { b } from \"./deep/a.js\";\nexport * from 'other';",
        "lib/deep/a.js": 'import { c } from "../c.js"; import x from "../index.js";',
        "lib/c.js": "export const c = 'from ./nowhere';",
        "lib/unused.js": "",
    }
    assert modules("lib", "lib/index.js", sources) == {
        "lib": "import A, { b } from \"lib/lib/deep/a.js\";\nexport * from 'other';",
        "lib/lib/deep/a.js": 'import { c } from "lib/lib/c.js"; import x from "lib";',
        "lib/lib/c.js": "export const c = 'from ./nowhere';",
    }
