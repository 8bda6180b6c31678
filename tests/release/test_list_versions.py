# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from email.message import Message
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from scripts.release import list_versions
from scripts.release.list_versions import PROJECT, closure, declared, licence, main, rows


def package(**fields: str) -> Message:
    message = Message()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


def test_every_requirement_of_the_project_is_read():
    wanted = declared(PROJECT.read_text())
    assert str(wanted["monai"][0].specifier) == ">=1.6.1" and wanted["monai"][1] == "run"
    assert wanted["pytest"][1] == "test" and wanted["pylibjpeg"][1] == "dicom"
    of_metadata = {Requirement(line).name for line in metadata.requires("dual-skd") if "extra" not in line}
    assert of_metadata <= {requirement.name for requirement, _ in wanted.values()}


def test_the_licence_is_the_packages_own_word():
    assert licence(package(License_Expression="MIT", License="old")) == "MIT"
    assert licence(package(License="BSD-3-Clause")) == "BSD-3-Clause"
    approved = "License :: OSI Approved :: Apache Software License"
    assert licence(package(License="A\nlong\ntext", Classifier=approved)) == "Apache Software License"
    assert licence(package(Name="none")) == "?"


def test_what_is_old_or_absent_is_said_and_ends_with_1(monkeypatch, capsys):
    for group, least, code in (("run", "2000", 1), ("test", "2000", 1), ("run", "1", 1), ("test", "1", 0)):
        wanted = {"numpy": (Requirement(f"numpy>={least}"), group), "no-package": (Requirement("no-package>=1"), group)}
        verdicts = [row[4] for row in rows(wanted, list(wanted))]
        assert verdicts == ["old" if least == "2000" else "ok", "absent"]
        monkeypatch.setattr(list_versions, "declared", lambda text, wanted=wanted: wanted)
        assert main([]) == code
    assert "no-package  test  >=1        -" in capsys.readouterr().out


def test_needed_packages_are_followed():
    assert {"pytest", "pluggy", "iniconfig"} <= set(closure(["pytest"]))


@pytest.mark.parametrize("arguments", [[], ["--all"]])
def test_this_environment_has_what_the_project_asks_for(capsys, arguments):
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("package ")
