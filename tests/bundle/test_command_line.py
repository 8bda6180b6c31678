# SPDX-License-Identifier: Apache-2.0
"""What only a process of its own shows; everything else is tested in this one, since each costs the imports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from dual_skd import predict
from dual_skd.cli.dispatch import main
from dual_skd.errors import input_error_behind
from dual_skd.metrics import read_predictions
from dual_skd.networks.build import build_network
from dual_skd.runs.model_file import bundle_root, load_model

ROOT = Path(bundle_root())
TRAIN = str(ROOT / "configs" / "train.json")
RUN = ["-m", "monai.bundle", "run", "training"]


def environment(path: Path | None) -> dict[str, str]:
    """This process's, with ``path`` as PYTHONPATH or without any, and without a GPU."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return env | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": str(path)} if path else {})


def start(*arguments: object, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess:
    """Runs this Python in ``cwd``, in that environment."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment(path), capture_output=True, text=True, timeout=300)


def options(settings: dict) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", str(value))]


def test_a_copy_of_the_bundle_folder_trains_where_it_lies(tmp_path, tiny):
    copy = shutil.copytree(ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
    done = start(*RUN, "--config_file", "configs/train.json", *options(tiny), "--output_dir", "out", cwd=copy)
    assert done.returncode == 0, done.stderr
    assert load_model(copy / "out")[1]["class_names"] == ["interstitial", "nodule", "normal"]
    assert "\nEpoch 1 of 1: loss " in done.stdout and "Traceback" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr and "dual_skd." not in done.stdout  # no bars, no names of loggers


def test_a_wrong_path_from_another_folder_is_one_sentence(tmp_path, tiny, demo):
    wrong = str(demo) + "_"
    arguments = options(tiny | {"dataset_dir": wrong, "device": "cpu"})
    done = start(*RUN, "--config_file", TRAIN, *arguments, cwd=tmp_path, path=ROOT)
    assert done.returncode != 0 and "Traceback" not in done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"Error: The data set {wrong} does not exist; did you mean {demo}?"


def test_paths_that_look_like_numbers_are_taken_as_typed(tmp_path, tiny, demo):
    """fire would make 202406, a tuple, 1000.0, 7 and a comment of them."""
    shutil.copytree(demo, tmp_path / "site,b"), shutil.copytree(demo, tmp_path / "2024_05")
    (tmp_path / "202406").mkdir()
    arguments = options(tiny | {"dataset_dir": "site,b", "device": "cpu", "cache": "disk"})
    words = ["--output_dir", "2024_06", "--cache_dir=1e3", "--num_workers", "0"]
    done = start(*RUN, "--config_file", TRAIN, *arguments, *words, cwd=tmp_path, path=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Next: dual-skd evaluate 2024_06"
    recorded = json.loads((tmp_path / "2024_06" / "run.json").read_text())["config"]
    assert [recorded[name] for name in ("dataset_dir", "output_dir", "cache_dir")] == ["site,b", "2024_06", "1e3"]
    evaluate = ["-m", "monai.bundle", "run", "evaluating", "--config_file", ROOT / "configs" / "evaluate.json"]
    words = ["--output_dir=2024_06", "--report_as", "0_7", "--report", "False"]
    done = start(*evaluate, *words, cwd=tmp_path, path=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Next: dual-skd predict IMAGES --model 2024_06"
    assert "0_7" in json.loads((tmp_path / "2024_06" / "metrics.json").read_text())
    infer = ["-m", "monai.bundle", "run", "inference", "--config_file", ROOT / "configs" / "inference.json"]
    (tmp_path / "scan#3").mkdir()
    image = next(path for path in sorted((demo / "images").rglob("*")) if path.is_file())
    shutil.copy(image, tmp_path / "scan#3" / image.name)
    done = start(*infer, "--dataset_dir", "scan#3", "--output_dir", "2024_06", cwd=tmp_path, path=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-4] == f"Predicted: {Path('2024_06') / 'predictions.csv'}"
    assert len((tmp_path / "2024_06" / "predictions.csv").read_text().splitlines()) == 2
    assert list((tmp_path / "202406").iterdir()) == []
    done = start(*infer, "--dataset_dir", "2024_05", "--output_dir", cwd=tmp_path, path=ROOT)
    assert done.stderr.strip().splitlines()[-1].startswith("Error: output_dir is True; expected a text")


def test_a_mistyped_output_dir_gives_a_patient_no_answer_of_the_demos_model(tmp_path, demo):
    shutil.copytree(demo / "images", tmp_path / "patients")
    inference = [*RUN[:-1], "inference", "--config_file", ROOT / "configs" / "inference.json"]
    done = start(*inference, "--output_dir", "typo", "--dataset_dir", "patients", cwd=tmp_path, path=ROOT)
    assert done.returncode != 0 and "Traceback" not in done.stdout + done.stderr
    assert "knows no patients" in done.stderr.strip().splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["patients"]


TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *RUN, "--config_file"]
OF_TWO = [str(ROOT / "configs" / name) for name in ("train.json", "multi_gpu_train.json")]


def test_two_processes_train_one_model_and_one_of_them_writes(tmp_path, tiny):
    settings = tiny | {"batch_size": 4, "output_dir": "$'of_' + os.environ['RANK']", "device": "cpu"}
    done = start(*TWO, OF_TWO, *options(settings), cwd=tmp_path, path=ROOT)
    assert done.returncode == 0, done.stderr
    output = tmp_path / "of_0"
    assert done.stdout.count("Trained: ") == 1
    assert not (tmp_path / "of_1").exists()
    metrics = json.loads((output / "metrics.json").read_text())
    assert [epoch["images"] for epoch in metrics["epochs"]] == [9]  # shares of 5 and 4, two batches and one
    predicted = read_predictions(output / "predictions_validation.csv")
    listed = json.loads((output / "datalist.json").read_text())["validation"]
    assert dict(zip(predicted.images, predicted.labels, strict=True)) == {r["image"]: r["label"] for r in listed}
    states = torch.load(output / "last.pt", weights_only=True)
    assert states["trainer"]["epoch_length"] == 3  # 24 images in two shares of three batches
    assert not any(name.startswith("module.") for name in states["network"])
    assert states["run"]["processes"] == 2  # with another number going on is refused
    load_model(output)
    of_two = [str(ROOT / "configs" / name) for name in ("evaluate.json", "multi_gpu_evaluate.json")]
    settings = {"output_dir": output, "device": "cpu", "num_workers": 0, "report": False, "batch_size": 4}
    evaluating = ["evaluating" if word == "training" else word for word in TWO]
    done = start(*evaluating, of_two, *options(settings), cwd=tmp_path, path=ROOT)
    assert done.returncode == 0, done.stderr
    found = read_predictions(output / "predictions_test.csv")
    alone = [str(answer.label) for answer in predict(found.images, model=output)]
    assert len(found.images) == len(set(found.images)) == 9 and alone == found.columns["predicted"]


def test_torchrun_ends_all_soon_when_one_process_is_killed(tmp_path, tiny):
    settings = tiny | {"batch_size": 4, "output_dir": tmp_path / "run", "device": "cpu", "epochs": 1000}
    command = [sys.executable, *map(str, [*TWO, OF_TWO, *options(settings)])]
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(command, cwd=tmp_path, env=environment(ROOT), stdout=log, stderr=log)
    try:
        waited = time.monotonic() + 250
        while not (tmp_path / "run" / "last.pt").exists():
            assert run.poll() is None and time.monotonic() < waited, (tmp_path / "log").read_text()
            time.sleep(0.1)
        both = {process.environ()["RANK"]: process for process in psutil.Process(run.pid).children()}
        both["1"].kill()
        assert run.wait(60) == 1
        assert not any(process.is_running() for process in both.values())
    finally:
        run.kill()
    said = (tmp_path / "log").read_text()
    assert "Signal 9 (SIGKILL) received by PID" in said and "ChildFailedError" in said


def refused(run, **overrides) -> str:
    with pytest.raises(Exception) as caught:
        run("train.json", **overrides)
    return str(input_error_behind(caught.value))


def test_what_the_user_can_mend_is_said_in_one_sentence(tmp_path, run, tiny, demo, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shutil.copytree(demo / "images", tmp_path / "folders" / "full")
    (tmp_path / "folders" / "empty").mkdir()
    for wrong, words in (
        ({"dataset_dir": str(tmp_path / "folders")}, "Class folders without images"),
        ({"method": "duel"}, "Unknown method 'duel' (did you mean dual?)"),
        ({"device": "cuda"}, "Device 'cuda' was asked for, but PyTorch sees no CUDA device(s)"),
        ({"small": "resnet81"}, "Unknown network 'resnet81' (did you mean resnet18"),
        ({"pretrained": str(tmp_path / "weights.pt")}, "No weights file"),
        ({"key_metric": "auc"}, "Unknown key_metric 'auc'"),
        ({"loss": "hinge"}, "hinge"),
        ({"selection_student": "odd"}, "odd"),
        ({"label_column": "diagnosis"}, "no column diagnosis; columns found: image, label, split, patient"),
        ({"fresh": "no"}, "Unknown fresh 'no'; valid: true, false."),
        ({"fine_tune_epochs": 5}, "don't fit into 1 epochs"),
    ):
        message = refused(run, **tiny | {"output_dir": str(tmp_path / "out")} | wrong)
        assert words in message and len(message.splitlines()) == 1, wrong


def test_the_check_command_looks_through_the_demo(demo, tmp_path, capsys):
    assert main(["check", str(demo), "--json", str(tmp_path / "found.json")]) == 0
    assert "No errors and no warnings found" in capsys.readouterr().out
    assert json.loads((tmp_path / "found.json").read_text())["ok"]
    assert main(["check", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.startswith("Error: The data set")


def test_the_select_command_writes_small_weights_and_a_table(tmp_path, tiny):
    small = build_network("resnet18", num_classes=5, in_channels=3, **tiny["small_options"])
    torch.save(small.state_dict(), tmp_path / "shapes.pt")
    done = start(
        "-m", "dual_skd", "select", "--large", tiny["pretrained"], "--small", "shapes.pt", "--out", "small.safetensors",
        "--report", "report.csv", cwd=tmp_path, path=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the axes are consistent" in done.stdout
    large = torch.load(tiny["pretrained"], weights_only=True)
    selected = load_file(tmp_path / "small.safetensors")
    assert torch.equal(selected["layer1.0.conv1.weight"], large["layer1.0.conv1.weight"][::2])
    assert (tmp_path / "report.csv").is_file()


def test_an_unknown_rule_of_the_select_command_is_one_sentence(tmp_path, tiny, capsys):
    small = ["--small", "resnet18", "--small-options", json.dumps(tiny["small_options"])]
    out = ["--out", str(tmp_path / "a.pt"), "--elements", "odd"]
    assert main(["select", "--large", tiny["pretrained"], *small, *out]) == 1
    message = capsys.readouterr().err
    assert message.startswith("Error: ") and "odd" in message and message.count("\n") == 1
