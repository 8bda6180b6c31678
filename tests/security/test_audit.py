# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from dual_skd.cli.dispatch import main
from dual_skd.errors import InputError
from dual_skd.security.audit import audit_bundle
from dual_skd.security.known import KNOWN, SIGNATURES, full_name

BUNDLE = Path(__file__).parents[2] / "bundle"
EXPRESSIONS = 0.35  # largest share of a config's values: each is code that a reader has to follow


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
        ("os.system", "os.system is not known"),
        ("builtins.eval", "not known to be safe"),
        ("scripts.net.Net", "not known to be safe"),
        ("torch.os.system", "not known to be safe"),
        ("monai.utils.misc.np.testing.runstring", "not known to be safe"),
        ("run_cmd", "run_cmd is not known"),
        ("monai.bundle.run", "not known to be safe"),
        ("torch.nn.ReLU.__init__", "not known to be safe"),
        ("$@somewhere", "literally"),
        ("@somewhere", "literally"),
        ("%other.json::a", "literally"),
        (["os.system"], "literally"),
        ("", "literally"),
    ],
)
@pytest.mark.parametrize("key", ["_target_", "optimizer#_target_", "optimizer::_target_"])
def test_targets_that_are_not_known_are_refused(tmp_path, target, words, key):
    found = problems(tmp_path, {"x": {key: target}})
    assert len(found) >= 1 and words in found[0]


PAYLOAD = "__import__('os').system('touch canary')"
# each of these ran, or wrote a file, while an audit by a list of what is refused found nothing
ATTACKS = {
    "a key that becomes part of an expression": {"run": {f'" + str({PAYLOAD}) + "': {"x": '$"%::y"', "y": 1}}},
    "a key with quotes": {"run": {"a' or 'b": {"x": "$@::y"}}},
    "a debugger by its mode": {"x": {"_target_": "monai.data.Dataset", "data": [], "_mode_": "debug"}},
    "a debugger by its flag": {"x": {"_target_": "monai.data.Dataset", "data": [], "_debug_": True}},
    "a debugger from another file": {"x": {"_target_": "Dataset", "data": []}, "x#_mode_": "debug"},
    "a module by reference": {"i": ["$import os"], "run": ["$@i::0.mkdir('canary')"]},
    "a module by reference to its list": {"i": ["$import os"], "run": ["$@i[0].mkdir('canary')"]},
    "a module by a plain reference": {"i": ["$import os"], "x": {"_target_": "Compose", "transforms": "@i"}},
    "a module by a macro": {"i": ["$import os"], "x": {"_target_": "Compose", "transforms": "%i::0"}},
    "a module by a macro and its file": {"i": ["$import os"], "x": ["%configs/train.json#i#0"]},
    "a module by the whole config": {"i": ["$import os"], "x": "$@"},
    "a module as an argument": {"x": {"_target_": "Compose", "transforms": ["$import os"]}},
    "a module put into a component": {"x": {"_target_": "Compose", "transforms": []}, "x#transforms": "$import os"},
    "a file by a target": {"x": {"_target_": "torch.from_file", "filename": "canary", "shared": True, "size": 4}},
    "a download": {"x": {"_target_": "monai.apps.download_url", "url": "file:///etc/hostname", "filepath": "canary"}},
    "a reader that is any function": {"x": {"_target_": "LoadImaged", "keys": "image", "reader": "os.mkdir"}},
    "a reader that is computed": {"x": {"_target_": "LoadImaged", "keys": "image", "reader": "$'os.' + 'mkdir'"}},
    "a reader from elsewhere": {"r": "os.mkdir", "x": {"_target_": "LoadImaged", "keys": "image", "reader": "@r"}},
    "a reader in a list": {"x": {"_target_": "LoadImaged", "keys": "image", "reader": ["os.mkdir"]}},
    "a reader that another file puts in": {"x": {"_target_": "LoadImaged", "keys": "image"}, "x#reader": "os.mkdir"},
    "a reader that a merge puts in": {"x": {"_target_": "LoadImaged", "keys": "image"}, "+x": {"reader": "os.mkdir"}},
    "a reader put into a list": {
        "x": [{"_target_": "LoadImaged", "keys": "image"}],
        "+x": [],
        "x#7#reader": "os.mkdir",
    },
    "a target put over arguments": {"x": {"_target_": "Compose", "reader": "os.mkdir"}, "x#_target_": "LoadImaged"},
    "a reader that unpickles": {"x": {"_target_": "LoadImaged", "keys": "image", "allow_pickle": True}},
    "a reader's arguments by their place": {
        "x": "$monai.transforms.LoadImage('NumpyReader', True, None, True, False, 1)"
    },
    "a name that a macro replaces": {
        "a.csv": ".bashrc",
        "x": {"_target_": "dual_skd.runs.MetricsRecorder", "predictions": "%a.csv"},
    },
    "a writer that is any function": {"x": {"_target_": "SaveImaged", "keys": "image", "writer": "os.mkdir"}},
    "a compiler": {"x": {"_target_": "SupervisedTrainer", "compile_kwargs": {"options": {"cpp.cxx": ["evil"]}}}},
    "a log over a module": {"x": {"_target_": "LogfileHandler", "output_dir": ".", "filename": "cucim.py"}},
    "a table over a start file": {
        "x": {"_target_": "ClassificationSaver", "output_dir": "/root", "filename": ".bashrc"}
    },
    "predictions over a start file": {
        "x": {"_target_": "dual_skd.serving.writers.PredictionWriter", "path": ".bashrc"}
    },
    "a network from a pickle": {"x": {"_target_": "timm.create_model", "model_name": "a", "checkpoint_path": "a.pt"}},
    "a network from the hub": {"x": {"_target_": "timm.create_model", "model_name": "hf-hub:a/b"}},
    "a restricted function handed on": {"x": {"_target_": "torch.load", "f": "a", "_mode_": "callable"}},
    "a name of options that stands for another object": {"options": "$torch.nn.ReLU()", "x": "$@options.compile"},
    "a key with code on the way": {
        "run": {"k": 0, "k+exec(bytes((1,2)).decode())": {"p": "%src::p"}},
        "src": {"p": "$[0][@::1]", "1": 0},
    },
    **{
        f"an override by {key!r}": {
            "run": [{"_target_": "torch.load", "f": "evil.pt", "weights_only": True}],
            key: False,
        }
        for key in ("run#0 #weights_only", "run#-1#weights_only", "run#0_0#weights_only", "run#+0#weights_only")
    },
    **{
        f"an argument from elsewhere, {name}": {"run": {"_target_": "torch.load", "f": "a", "weights_only": at}, **more}
        for name, at, more in [
            ("empty part", "@w", {"w": True, "#w": False}),
            ("former name", "@required_packages_version", {"optional_packages_version": False}),
            ("macro", "@c::w", {"c": {"w": True}, "#c": "%d", "d": {"w": False}}),
            ("position", "@l::2", {"l": [1, 2, True], "#l": [1, 2], "+l": [False]}),
        ]
    },
    "an import over a name of Python": {"imports": ["$from monai.utils import first as exec"], "run": ["$exec('1')"]},
    "a file after a new line": {"run": "%z\n/tmp/outside.json::run"},
    "a comment that isn't one": {
        "x": {"_target_": "dual_skd.runs.MetricsRecorder", "predictions": "$@d[0 #1] and 'a' or @d[0 \n:1] + '.csv'"}
    },
    "a state that names files": {
        "s": {"_target_": "CheckpointSaver", "save_dir": ".", "save_dict": {}, "save_key_metric": True},
        "x": {"_target_": "CheckpointLoader", "load_path": "a", "load_dict": {"s": "@s"}},
    },
    "a state of what can't be followed": {
        "x": {"_target_": "CheckpointLoader", "load_path": "a", "load_dict": {"s": "$@h[0]"}}
    },
    "an address": {"x": {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "ftp://a/b"}},
    "an address in two parts": {
        "a": "$'ftp:' + '//a'",
        "x": {"_target_": "TensorBoardStatsHandler", "log_dir": "$@a + '/b'"},
    },
    "a pickle's key in a dictionary": {"x": "$dual_skd.networks.build_network(**{'checkpoint_path': 'a'})"},
    "options by an empty part": {
        "options": "$dual_skd.options.training(**@given)",
        "#options": "$torch.nn.Softmax(1)",
        "x": "$@options.compile(options={})",
    },
    "a module behind a space": {"imports": ["$import numpy"], "x": ["% imports::0"]},
    "a module by an empty part": {"#0": "$import numpy", "x": "$@0"},
    "a module by a relative id that is copied": {
        "imports": ["$import numpy"],
        "x": [{"a": "$@::::::imports::0"}, "%x::0"],
    },
    "a network from a place in an expression": {
        "x": "$dual_skd.networks.build_network('resnet18', pretrained_cfg_overlay=dict(url='http://a/b.pth'))"
    },
}


@pytest.mark.parametrize("config", ATTACKS.values(), ids=ATTACKS)
def test_ways_to_run_code_or_to_write_files_are_refused(tmp_path, config):
    assert problems(tmp_path, config) != []


@pytest.mark.parametrize("name", ["configs/metadata.json", "configs/.json", "configs/A.JSON"])
def test_a_config_by_any_name_is_read(tmp_path, name):
    bundle(tmp_path, {"x": "$@_meta_::i::0"})
    assert problems(tmp_path, {"i": ["$import numpy"]}, name) != []


def test_the_same_is_refused_when_it_comes_from_two_files(tmp_path):
    bundle(tmp_path, {"x": [{"_target_": "LoadImaged", "keys": "image"}]}, "configs/a.yaml")
    assert audit_bundle(tmp_path / "strange").ok
    assert "reader" in problems(tmp_path, {"x#0#reader": "os.mkdir"})[0]


def test_many_imports_and_many_relative_ids_take_no_longer_than_others(tmp_path):
    many = range(4_000)
    config = {"m": {f"a{n}": "$import os" for n in many}, "c": {f"b{n}": "@::::::::x" for n in many}, "d": "%c"}
    start = time.process_time()
    assert problems(tmp_path, config) != []
    assert time.process_time() - start < 4  # seconds; 6 where each id is compared with each import


@pytest.mark.parametrize(("name", "line"), [("a.json", '"key{}": {},'), ("a.yaml", "key{}: {}\n")])
def test_the_time_grows_with_the_size_and_no_faster(tmp_path, name, line):
    times = []
    for count in (1_500, 12_000) if name == "a.yaml" else (5_000, 40_000):
        text = "".join(line.format(one, one) for one in range(count))
        folder = bundle(tmp_path / str(count), text if name == "a.yaml" else f"{{{text[:-1]}}}", f"configs/{name}")
        start = time.process_time()
        assert audit_bundle(folder).ok
        times.append(time.process_time() - start)
    assert times[1] < 24 * max(times[0], 0.01)  # 8 times as much; 64 times where each key is compared with all


def test_names_that_are_known_exist_and_monai_finds_the_short_ones():
    from monai.bundle.config_item import ComponentLocator

    optional = ("timm", "ignite", "monai", "torch", "dual_skd")
    for name in KNOWN:
        module, _, last = name.rpartition(".")
        if module != "os.environ" and name.split(".")[0] in optional:
            assert hasattr(importlib.import_module(module), last), name
    locator = ComponentLocator()
    for name in KNOWN:
        if name.startswith("monai."):
            short = name.rsplit(".", 1)[1]
            found = locator.get_component_module_name(short)
            if isinstance(found, str):
                same = getattr(importlib.import_module(found), short)
                assert same is getattr(importlib.import_module(full_name(short).rpartition(".")[0]), short), name


def test_packages_can_be_added_by_name(tmp_path):
    config = {"imports": ["$import skimage"], "x": {"_target_": "scripts.net.Net"}, "y": "$skimage.measure.label(@x)"}
    assert len(problems(tmp_path, config)) == 3
    assert problems(tmp_path, config, allow=["skimage", "scripts"]) == []
    assert problems(tmp_path, config, allow=["skimage", "scripts.net.Net"]) == []
    assert len(problems(tmp_path, config, allow=["skimage.measure.label", "scripts"])) == 1  # the import of the whole
    config = {"x": {"_target_": "LoadImaged", "keys": "image", "reader": "mine"}, "y": "$@x.mine()"}
    assert len(problems(tmp_path, config)) == 2
    assert problems(tmp_path, config, allow=["monai.transforms.LoadImaged", "mine"]) == []


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
    assert "in two places" in problems(tmp_path / "1", laughs, "configs/a.yaml")[0]
    assert "more values" in problems(tmp_path / "6", [[0]] * 300_000)[0]
    assert "more values" in problems(tmp_path / "7", {"k" * 3000: [0] * 9})[0]
    assert "a number of" in problems(tmp_path / "8", f"a: {'1:' * 9000}1\n", "configs/a.yaml")[0]
    assert "can't be read" in problems(tmp_path / "9", "x: !!bool maybe\n", "configs/a.yaml")[0]
    assert "can't be read" in problems(tmp_path / "a", "x:\n\ufeff#k: $import pickle as json\n", "configs/a.yaml")[0]
    assert "more than anyone" in problems(tmp_path / "b", {"k" * 900: "$" + "@::" * 100_000})[0]
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
    (folder / "dual_skd" / "evaluation" / "pages" / "templates" / "page.css").write_text("{{ cycler.__init__ }}")
    (folder / "dual_skd" / "notes.txt").touch()
    (folder / "dual_skd" / "data" / "__pycache__").mkdir()
    for name in ("a.pyc", "b.pyc"):
        (folder / "dual_skd" / "data" / "__pycache__" / name).touch()
    (folder / "dual_skd" / "losses.cpython-311.pyc").touch()
    (folder / "link.json").symlink_to("/etc/hostname")
    found = {one.file: one.problem for one in audit_bundle(folder, allow=["torch"]).problems}
    assert set(found) == {
        "json.py", "torch/", "dual_skd/errors.py", "dual_skd/more.py", "dual_skd/losses.cpython-311.pyc", "link.json",
        "dual_skd/evaluation/pages/templates/page.css", "dual_skd/notes.txt",
        "dual_skd/data/__pycache__/",
    }  # fmt: skip
    assert "compiled" in found["dual_skd/losses.cpython-311.pyc"] and "differs" in found["dual_skd/errors.py"]


def test_code_in_any_folder_is_told(tmp_path):
    folder = bundle(tmp_path, {})
    for name in ("skimage", "pandas/core", "my-notes", ".git"):
        (folder / name).mkdir(parents=True)
        (folder / name / "measure.py").touch()
    assert [one.file for one in audit_bundle(folder).problems] == [".git/", "my-notes/", "pandas/", "skimage/"]
    found = audit_bundle(folder, allow=["pandas", ".git", "my-notes"]).problems
    assert [one.file for one in found] == ["skimage/"]


def test_pipes_are_told_and_not_opened(tmp_path):
    folder = bundle(tmp_path, {})
    (folder / "dual_skd").mkdir()
    os.mkfifo(folder / "dual_skd" / "errors.py")
    os.mkfifo(folder / "more.json")
    (folder / "docs").mkdir()
    (folder / "docs" / "matplotlibrc").touch()
    found = {one.file: one.problem for one in audit_bundle(folder).problems}
    assert "never end" in found["more.json"] and "differs" in found["dual_skd/errors.py"]
    assert "may be run" in found["docs/matplotlibrc"]


def test_folders_that_cant_be_listed_are_told(tmp_path, monkeypatch):
    folder = bundle(tmp_path, {})
    (folder / "timm").mkdir()
    scandir = os.scandir

    def refusing(path):  # root may list every folder
        if Path(path).name == "timm":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert [(one.file, one.problem[:27]) for one in audit_bundle(folder).problems] == [
        ("timm", "a folder that can't be list")
    ]  # fmt: skip


def test_what_a_checkpoint_and_a_log_may_name(tmp_path):
    config = {
        "root": ".",
        "output_dir": "$@root + '/eval'",
        "net_def": {"_target_": "DenseNet121", "spatial_dims": 2},
        "net": "$@net_def.to(@device)",
        "x": {"_target_": "CheckpointLoader", "load_path": "a", "load_dict": {"net": "@net", "def": "@net_def"}},
        "y": [{"_target_": "TensorBoardStatsHandler", "log_dir": "@output_dir"}],
        "z": {"_target_": "SaveClassificationd", "keys": "a", "filename": "@name"},
        "name": "a.csv",
        "y#0#iteration_log": False,
    }
    assert problems(tmp_path, config) == []
    assert len(problems(tmp_path, {"root": "ftp://a", "name": ".bashrc"}, "configs/more.json")) == 2


def test_the_arguments_that_are_taken_are_those_of_the_functions():
    for name, signature in SIGNATURES.items():
        module, _, last = name.rpartition(".")
        if module not in ("builtins", "json"):
            parameters = inspect.signature(getattr(importlib.import_module(module), last)).parameters
            known = [one for one, each in parameters.items() if each.kind is not each.VAR_KEYWORD]
            passes_on = len(known) < len(parameters)
            unknown = signature.rules.keys() - set(known)
            assert not unknown or passes_on, (name, unknown)
            assert [*signature.places] == known[: len(signature.places)], name


def test_the_sum_is_of_what_was_read(tmp_path):
    first = audit_bundle(bundle(tmp_path, {"a": 1})).sha256
    assert audit_bundle(bundle(tmp_path, {"a": 1})).sha256 == first != audit_bundle(bundle(tmp_path, {"a": 2})).sha256
    (tmp_path / "strange" / "logging.conf").write_text("[loggers]\nkeys=root\n")
    second = audit_bundle(bundle(tmp_path, {"a": 1})).sha256
    (tmp_path / "strange" / "scripts").mkdir()
    (tmp_path / "strange" / "scripts" / "net.py").touch()
    assert len({first, second, audit_bundle(bundle(tmp_path, {"a": 1}), allow=["scripts"]).sha256}) == 3


def test_checksums_are_compared_where_there_is_a_list(tmp_path):
    folder = bundle(tmp_path, {"a": 1})
    bundle(tmp_path, {"b": 1}, "configs/b.json")
    sums = [hashlib.sha256((folder / "configs" / name).read_bytes()).hexdigest() for name in ("train.json", "b.json")]
    lines = [f"{sums[0]}  configs/train.json", f"{sums[1]} *configs/b.json"]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").touch()
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
        "  next   read the places above before you run anything of it; --allow NAME takes",
    ]
    assert "Problems: 2" in shown and "\x1b" not in shown and not Path("canary").exists()
    assert main(["audit", str(tmp_path / "absent")]) == 1
    assert "is not a folder" in capsys.readouterr().err


def test_a_folder_without_configs_is_no_bundle(tmp_path):
    with pytest.raises(InputError, match="holds no .json"):
        audit_bundle(tmp_path)
