# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from dual_skd.cli.dispatch import main
from dual_skd.errors import InputError
from dual_skd.security.audit import audit_bundle

BUNDLE = Path(__file__).parents[2] / "bundle"
EXPRESSIONS = 1 / 3  # largest share of a config's values: each is code that a reader has to follow


def bundle(folder: Path, config: object, name: str = "configs/train.json") -> Path:
    path = folder / "strange" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return folder / "strange"


def problems(folder: Path, config: object, name: str = "configs/train.json", **options) -> list[str]:
    return [one.problem for one in audit_bundle(bundle(folder, config, name), **options).problems]


def values_in(config: object) -> int:
    parts = config.values() if isinstance(config, dict) else config if isinstance(config, list) else None
    return 1 if parts is None else sum(map(values_in, parts))


def test_our_own_configs_pass_and_are_mostly_plain_values():
    audit = audit_bundle(BUNDLE)
    assert [(one.file, one.place, one.problem) for one in audit.problems] == []
    assert sum(audit.counts.values()) == len(audit.expressions)
    print(f"{len(audit.expressions)} expressions: {audit.counts}")
    values = sum(values_in(json.loads((BUNDLE / name).read_text())) for name in audit.counts)
    assert len(audit.expressions) < EXPRESSIONS * values
    of_train = [one for one in audit.targets if one.file == "configs/train.json"]
    assert ("train::trainer::_target_", "dual_skd.DualModelTrainer") in [(one.place, one.text) for one in of_train]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("os.system", "of os only"),
        ("subprocess.run", "outside the packages"),
        ("builtins.eval", "outside the packages"),
        ("scripts.net.Net", "outside the packages"),
        ("torch.os.system", "standard library"),
        ("torch.hub.load", "hub can run code"),
        ("run_cmd", "can run code"),
        ("dual_skd.serving.export.worker.run_module", "worker can run code"),
        ("dual_skd.serving.export.runtimes.open_artefact", "runtimes can run code"),
        ("torch.distributed.launch.main", "launch can run code"),
        ("torch.fx.GraphModule", "fx can run code"),
        ("monai.bundle.run", "runs other configs"),
        ("$@somewhere", "literally"),
        ("@somewhere", "literally"),
        ("%other.json::a", "literally"),
        (["os.system"], "of os only"),
        ("", "literally"),
    ],
)
@pytest.mark.parametrize("key", ["_target_", "optimizer#_target_", "optimizer::_target_"])
def test_targets_outside_the_packages_are_refused(tmp_path, target, words, key):
    found = problems(tmp_path, {"x": {key: target}})
    assert len(found) >= 1 and words in found[0]


def test_packages_can_be_added_by_name(tmp_path):
    config = {"imports": ["$import numpy as np"], "x": {"_target_": "scripts.net.Net"}, "y": "$np.mean(@x)"}
    assert len(problems(tmp_path, config)) == 3
    assert problems(tmp_path, config, allow=["numpy", "scripts"]) == []
    assert problems(tmp_path, {"y": "$np.load(@x, allow_pickle=True)"}, allow=["numpy"]) != []


def test_an_expression_may_use_the_imports_of_another_config_of_the_bundle(tmp_path):
    bundle(tmp_path, {"imports": ["$import os"]})
    assert problems(tmp_path, {"rank": "$int(os.environ.get('RANK', 0))"}, "configs/more.json") == []
    assert "stands for" in problems(tmp_path, {"imports": ["$import os as torch"]}, "configs/more.json")[0]


def test_yaml_is_read_as_json_is_and_tags_build_nothing(tmp_path):
    text = "imports:\n- $import subprocess\nx:\n  _target_: os.system\n  command: id\n"
    assert len(problems(tmp_path, text, "configs/a.yaml")) == 2
    text = "x: !!python/object/apply:os.system ['touch canary']\n"
    assert "can't be read" in problems(tmp_path / "b", text, "configs/a.yml")[0]
    assert not Path("canary").exists()


def test_texts_that_grow_without_end_or_say_two_things_are_refused(tmp_path):
    laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    laughs += "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "more values" in problems(tmp_path / "1", laughs, "configs/a.yaml")[0]
    assert "can't be read" in problems(tmp_path / "2", "[" * 100_000)[0]
    assert "twice" in problems(tmp_path / "3", '{"a": "$1", "a": "$2"}')[0]
    assert "twice" in problems(tmp_path / "4", "b:\n  a: 1\n  a: 2\n", "configs/a.yaml")[0]
    assert "can't be read" in problems(tmp_path / "5", "{")[0]


def test_dangerous_arguments_are_refused_wherever_they_stand(tmp_path):
    assert problems(tmp_path, {"x": {"_target_": "torch.load", "f": "a.pt", "weights_only": True}}) == []
    for arguments in ({"weights_only": False}, {"weights_only": "$0"}, {"pickle_module": "x"}):
        assert problems(tmp_path, {"x": {"_target_": "torch.load", "f": "a.pt", **arguments}}) != []
    assert problems(tmp_path, {"large_options": {"checkpoint_path": "evil.pt"}}) != []


def test_values_taken_from_files_outside_are_refused(tmp_path):
    bundle(tmp_path, {"a": 1}, "configs/other.json")
    assert problems(tmp_path, {"a": "%configs/other.json::a", "b": "%a", "c": "90 % of x"}) == []
    for name in ("/tmp/x.json::a", "../x.json::a", "absent.json#a"):
        assert problems(tmp_path, {"a": f"%{name}"}) == ["takes its value from a file that is no config of the bundle"]


def test_code_that_an_import_would_find_first_is_refused(tmp_path):
    folder = bundle(tmp_path, {})
    assert audit_bundle(folder).ok
    shutil.copytree(BUNDLE / "dual_skd", folder / "dual_skd", ignore=shutil.ignore_patterns("__pycache__"))
    assert audit_bundle(folder).ok
    (folder / "json.py").touch()
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").touch()
    (folder / "dual_skd" / "errors.py").write_text("import os")
    (folder / "dual_skd" / "more.py").touch()
    (folder / "dual_skd" / "losses.cpython-311.pyc").touch()
    (folder / "link.json").symlink_to("/etc/hostname")
    found = {one.file: one.problem for one in audit_bundle(folder, allow=["torch"]).problems}
    assert set(found) == {
        "json.py", "torch/", "dual_skd/errors.py", "dual_skd/more.py", "dual_skd/losses.cpython-311.pyc", "link.json"
    }  # fmt: skip
    assert "compiled" in found["dual_skd/losses.cpython-311.pyc"] and "differs" in found["dual_skd/errors.py"]


def test_a_folder_of_code_is_importable_without_an_init_file(tmp_path):
    folder = bundle(tmp_path, {})
    for name in ("skimage", "pandas/core", "my-notes"):
        (folder / name).mkdir(parents=True)
        (folder / name / "measure.py").touch()
    assert [one.file for one in audit_bundle(folder).problems] == ["pandas/", "skimage/"]  # no name for an import: -
    assert [one.file for one in audit_bundle(folder, allow=["pandas"]).problems] == ["skimage/"]


def test_checksums_are_compared_where_there_is_a_list(tmp_path):
    folder = bundle(tmp_path, {"a": 1})
    bundle(tmp_path, {"b": 1}, "configs/b.json")
    sums = [hashlib.sha256((folder / "configs" / name).read_bytes()).hexdigest() for name in ("train.json", "b.json")]
    lines = [f"{sums[0]}  configs/train.json", f"{sums[1]} *configs/b.json"]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    audit = audit_bundle(folder)
    assert audit.ok and (audit.manifest, audit.verified) == ("SHA256SUMS", 2)
    bundle(tmp_path, {"a": 2})
    (folder / "new.txt").touch()
    (folder / "SHA256SUMS").write_text("\n".join([*lines, f"{sums[0]}  absent", f"{sums[0]}  ../up", "nonsense"]))
    found = {(one.file, one.problem) for one in audit_bundle(folder).problems}
    assert found == {
        ("configs/train.json", "is another file than the one in SHA256SUMS"),
        ("absent", "is listed in SHA256SUMS and is not there"),
        ("SHA256SUMS", "names a file outside the bundle, ../up"),
        ("SHA256SUMS", "line 5 is not a SHA-256 sum and a file name"),
        ("new.txt", "is not listed in SHA256SUMS"),
    }


def test_the_manifest_of_a_packed_bundle_is_compared_too(tmp_path):
    folder = bundle(tmp_path, {"a": 1})
    path = folder / "configs" / "train.json"
    entry = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    bundle(tmp_path, {"files": {"configs/train.json": entry}}, "manifest.json")
    assert audit_bundle(folder).ok and audit_bundle(folder).verified == 1
    bundle(tmp_path, {"files": {"configs/train.json": {}}}, "manifest.json")
    assert [one.problem[:30] for one in audit_bundle(folder).problems] == [
        "is no list of SHA-256 sums (Ke", "is not listed in manifest.json"
    ]  # fmt: skip


def test_the_command_lists_everything_and_its_status_tells_the_result(tmp_path, capsys):
    assert main(["audit", str(BUNDLE), "--json", str(tmp_path / "a.json")]) == 0
    shown = capsys.readouterr().out
    assert (
        "configs/multi_gpu_train.json  processes  $torch.distributed.get_world_size()" in shown
        and "Problems: none" in shown
    )
    assert f"{audit_bundle(BUNDLE).counts['configs/train.json']:4d}  configs/train.json" in shown
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["ok"] and len(content["expressions"]) == sum(content["counts"].values())

    folder = bundle(tmp_path, {"x": "$__import__('os').system('touch canary')\x1b[2K", "y": {"_target_": "os.system"}})
    assert main(["audit", str(folder), "--quiet"]) == 1
    shown = capsys.readouterr().out
    assert shown.splitlines()[-4:-1] == [
        f"Audited: {folder}",
        "  found  1 target, 1 expression, 2 problems",
        "  next   read the places above before you run anything of it; --allow PACKAGE",
    ]
    assert "Problems: 2" in shown and "\x1b" not in shown and not Path("canary").exists()
    assert main(["audit", str(tmp_path / "absent")]) == 1
    assert "is not a folder" in capsys.readouterr().err


def test_a_folder_without_configs_is_no_bundle(tmp_path):
    with pytest.raises(InputError, match="holds no .json"):
        audit_bundle(tmp_path)
