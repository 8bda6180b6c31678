# SPDX-License-Identifier: Apache-2.0
"""A run is the same by ``monai.bundle run``, by ``dual-skd`` and from Python."""

from __future__ import annotations

import json
import logging
import random
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.utils.misc import get_seed

import dual_skd
from dual_skd.cli.dispatch import main
from dual_skd.errors import InputError
from dual_skd.options import Evaluation, Training, command
from dual_skd.runs import workflow as workflows
from dual_skd.runs.model_file import load_model
from dual_skd.runs.workflow import EVALUATE, TRAIN

ON_CPU = {"device": "cpu", "num_workers": 0}
TIMES = ("started", "finished", "timings")
Train = Callable[..., Path]


def words(values: dict[str, Any], kind: type = Training) -> list[str]:
    return shlex.split(command("", values, kind, places=True))


@pytest.fixture(params=["command", "python"])
def train(request) -> Train:
    """Trains by one of the entrances beside MONAI's, in a folder, and returns it."""

    def by(folder: Path, **options: Any) -> Path:
        options |= {"output_dir": str(folder)}
        if request.param == "command":
            assert main(["train", *words(options | ON_CPU)]) == 0
        else:
            assert dual_skd.train(**options, **ON_CPU).output_dir == folder
        return folder

    return by


OTHER = {"method": "dual", "loss": "focal", "patience": 3, "epochs": 2, "fine_tune_epochs": 1, "flip_axes": [0, 1]}


@pytest.fixture(scope="module", params=[{}, OTHER], ids=["plain", "other"])
def reference(request, run, tiny, tmp_path_factory) -> tuple[dict[str, Any], Path]:
    """Options, and the run that MONAI makes with them."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    run("train.json", **tiny | request.param, output_dir=str(folder))
    return tiny | request.param, folder


def recorded(folder: Path) -> dict[str, Any]:
    """run.json but for times and the folder."""
    record = json.loads((folder / "run.json").read_text())
    for name in TIMES:
        record.pop(name, None)
    record["config"].pop("output_dir")
    return record


def test_every_entrance_gives_the_same_weights_and_the_same_record(reference, train, tmp_path):
    options, folder = reference
    made = train(tmp_path / "run", **options)
    for name in ("model.pt", "auxiliary.pt"):
        one, other = (torch.load(where / "models" / name, weights_only=True) for where in (folder, made))
        assert all(torch.equal(one[key], other[key]) for key in one.keys() | other.keys())
    assert recorded(made) == recorded(folder)


@pytest.mark.parametrize("entrance", ["command", "python"])
def test_an_evaluation_gives_the_same_numbers(trained, run, tmp_path, entrance):
    folders = [shutil.copytree(trained, tmp_path / name) for name in ("a", "b")]
    run("evaluate.json", output_dir=str(folders[0]), alpha=0.2)
    options = {"alpha": 0.2, "report": False, **ON_CPU}
    if entrance == "command":
        assert main(["evaluate", str(folders[1]), *words(options, Evaluation)]) == 0
    else:
        result = dual_skd.evaluate(folders[1], **options)
        assert (result.output_dir, result.name) == (folders[1], "test")
    one, other = (json.loads((folder / "metrics.json").read_text())["test"] for folder in folders)
    assert one.pop("source") != other.pop("source")
    assert one == other


@pytest.mark.parametrize(
    "names", [("$recycle", "a@epochs", "%x"), ("@eadir", "%out#1", "$given"), ("-x", "'q'", "# é")]
)
def test_paths_are_no_expressions(tmp_path, monkeypatch, tiny, demo, names):
    data, out, cache = names
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo, tmp_path / data)
    options = {name: value for name, value in tiny.items() if name != "dataset_dir"} | ON_CPU | {"cache": "disk"}
    assert main(["train", *words(options), f"--cache-dir={cache}", "-o", out, "--", data]) == 0
    config = json.loads((tmp_path / out / "run.json").read_text())["config"]
    assert [config[name] for name in ("dataset_dir", "output_dir", "cache_dir")] == [data, out, cache]
    assert {data, out, cache} == {path.name for path in tmp_path.iterdir()}
    assert main(["evaluate", out, "--no-report", "--report-as", cache, *words(ON_CPU, Evaluation)]) == 0
    assert cache in json.loads((tmp_path / out / "metrics.json").read_text())


@pytest.mark.parametrize("suffix", ["json", "yaml", "yml"])
def test_a_file_of_ones_own_holds_options_and_the_command_line_wins(tmp_path, tiny, suffix):
    content = {name.replace("_", "-"): value for name, value in (tiny | ON_CPU | {"seed": 5}).items()}
    file = tmp_path / f"mine.{suffix}"
    file.write_text(json.dumps(content) if suffix == "json" else yaml.safe_dump(content))
    former = {"compensate": 0, "freeze_norm": False}  # options of a former version, at their defaults
    (tmp_path / "more.json").write_text(json.dumps({"seed": 6, "method": "single"} | former))
    files, values, options = TRAIN.gather({"epochs": 3}, "vit", [file, tmp_path / "more.json"])
    assert [path.name for path in files] == ["train.json", "vit.json"]
    assert values == tiny | ON_CPU | {"seed": 6, "method": "single", "epochs": 3}
    assert (options.seed, options.epochs, options.weight_decay) == (6, 3, 0.05)  # the last is the preset's


@pytest.mark.parametrize("name, content, said", [
    ("a.json", '{"epoch": 3}', "unknown option epoch (did you mean epochs?); such a file holds options alone."),
    ("a.json", '{"train#trainer#max_epochs": 3}', "unknown option train#trainer#max_epochs"),
    ("a.json", '{"compensate": 64, "epochs": 2}', "a.json has compensate 64, which this version no longer has; leave"),
    ("a.json", '{"epochs": "$torch.ones(1)"}', "epochs is '$torch.ones(1)'; expected a whole number"),
    ("a.json", '{"epochs": }', "a.json isn't JSON or YAML"),
    ("a.yaml", "epochs: [", "a.yaml isn't JSON or YAML"),
    ("a.yaml", "- epochs", "holds no options by name"),
    ("b.yaml", "", "b.yaml holds no options by name"),
    ("gone.yaml", None, "gone.yaml can't be read (No such file or directory)"),
])  # fmt: skip
def test_a_file_of_anything_else_is_refused(tmp_path, capsys, name, content, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert main(["train", "demo", "--config", str(tmp_path / name), "-o", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert message.startswith("Error: ") and said in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_presets_are_found_by_name_and_belong_to_a_workflow(capsys):
    assert set(TRAIN.presets()) == {"convnext", "finetune", "multi_gpu_train", "resume", "vit", "volume"}
    assert set(EVALUATE.presets()) == {"corruption", "multi_gpu_evaluate"}
    assert TRAIN.gather({}, ["volume", "multi_gpu_train"], None).values == {}  # its data stand in the preset
    assert main(["train", "demo", "--preset", "volumes"]) == 1
    assert "Unknown preset 'volumes' (did you mean volume?); valid: convnext, fine" in capsys.readouterr().err


def test_a_preset_makes_the_run_of_its_config(run, tiny, tmp_path):
    pair = {"large": "resnet18", "pretrained": "none", "small_options": tiny["small_options"]}
    options = tiny | pair | {"method": "scratch"}
    run("train.json", "convnext.json", **options, output_dir=str(tmp_path / "a"))
    dual_skd.train(**options, **ON_CPU, output_dir=tmp_path / "b", preset="convnext")
    assert recorded(tmp_path / "a") == recorded(tmp_path / "b")
    assert recorded(tmp_path / "a")["config"]["learning_rate"] == 0.0005


def test_without_data_nothing_is_trained(capsys):
    assert main(["train", "--epochs", "1"]) == 1
    assert capsys.readouterr().err.startswith("Error: Expected the data to train on: dual-skd train DATA;")


def test_errors_of_python_are_those_of_the_package_alone(tmp_path, tiny):
    for wrong, said in ({"dataset_dir": str(tmp_path / "x")}, "does not exist"), ({"epochs": "3"}, "epochs is '3'"):
        with pytest.raises(InputError, match=said) as caught:
            dual_skd.train(**tiny | wrong | ON_CPU, output_dir=str(tmp_path / "out"))
        assert caught.value.__cause__ is None and "ConfigExpression" not in str(caught.value)


def test_runs_in_one_process_leave_it_as_it_was(trained, tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["notebook.py", "--config_file", "mine.ini", "--output_dir", "elsewhere", "--epoch"]
    )
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    wanted = [torch.rand(1).item(), np.random.random(), random.random()]
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    before = get_seed(), list(sys.path), sys.excepthook, logging.getLogger().handlers[:]
    first, second = (dual_skd.train(**tiny, **ON_CPU, output_dir=tmp_path / name, seed=2).output_dir for name in "ab")
    assert before == (get_seed(), list(sys.path), sys.excepthook, logging.getLogger().handlers[:])
    assert flags == (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    assert [torch.rand(1).item(), np.random.random(), random.random()] == wanted
    one, other = (load_model(folder)[0].state_dict() for folder in (first, second))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_only_a_changed_config_is_warned_of(tmp_path, caplog, monkeypatch):
    configs = shutil.copytree(TRAIN.file.parent, tmp_path / "bundle" / "configs")
    files = [configs / "train.json", configs / "volume.json"]
    files[0].write_bytes(files[0].read_bytes().replace(b"\n", b"\r\n"))  # as git may write it
    workflows.warn_of_strangers(files)
    assert not caplog.records
    files[1].write_text(files[1].read_text().replace("demo3d", "demo"))
    workflows.warn_of_strangers(files)
    assert (
        f"Not as {files[1]} came with dual_skd" in caplog.text
        and f"dual-skd audit {tmp_path / 'bundle'}" in caplog.text
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_ctrl_c_ends_with_130(wrapped, monkeypatch, capsys):
    def interrupted(*_: Any) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise (RuntimeError("as MONAI wraps it") if wrapped else error) from error

    monkeypatch.setattr(workflows.Workflow, "gather", interrupted)
    assert main(["train", "demo"]) == 130
    assert "Stopped by Ctrl-C." in capsys.readouterr().err


def test_a_preset_may_refer_to_options(tmp_path, tiny, trained):
    small = {name: value for name, value in tiny.items() if not name.startswith("large")}
    start = {"pretrained": str(trained / "models" / "model.pt"), "output_dir": str(tmp_path / "out")}
    dual_skd.train(**small | start | ON_CPU, preset="finetune")
    config = recorded(tmp_path / "out")["config"]
    assert (config["large"], config["large_options"], config["method"]) == ("resnet18", tiny["small_options"], "single")
