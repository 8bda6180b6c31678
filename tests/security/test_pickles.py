# SPDX-License-Identifier: Apache-2.0
"""Files that run code where they are unpickled: the canary that they write must never appear."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from dual_skd import build_network, load_model
from dual_skd.cli.dispatch import main
from dual_skd.data import load_records
from dual_skd.data.reading.numpy_files import npz_array
from dual_skd.data.reading.reader import read_image
from dual_skd.data.records.asked_images import find_images
from dual_skd.errors import InputError
from dual_skd.networks.pretrained import load_pretrained
from dual_skd.networks.weight_files import load_state_file
from dual_skd.runs.checkpoint import find_checkpoint
from dual_skd.runs.model_file import load_auxiliary
from dual_skd.training.teacher import load_teacher


class Payload:
    """Writes the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return Path.write_text, (self.canary, "run")


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "the code in a file was run"


def save_as(kind: str, path: Path, canary: Path) -> Path:
    content = {"model": {"0.weight": torch.zeros(2, 2)}, "evil": Payload(canary)}
    if kind == "zip":
        torch.save(content, path)
    elif kind == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def test_the_payload_of_these_tests_works(tmp_path):
    path = save_as("zip", tmp_path / "a.pt", tmp_path / "run")
    torch.load(path, weights_only=False)
    assert (tmp_path / "run").read_text() == "run"


KINDS = pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])


@KINDS
@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.safetensors"])
def test_pretrained_weights_run_nothing(tmp_path, canary, kind, name):
    path = save_as(kind, tmp_path / name, canary)
    with pytest.raises(InputError, match=name):
        load_state_file(path)
    with pytest.raises(InputError, match=name):
        load_pretrained("tf_efficientnet_lite2", str(path))


@KINDS
def test_the_teachers_checkpoint_runs_nothing(tmp_path, canary, kind):
    with pytest.raises(InputError, match="teacher.pt"):
        load_teacher(torch.nn.Linear(2, 2), str(save_as(kind, tmp_path / "teacher.pt", canary)))


@KINDS
def test_a_run_to_resume_runs_nothing(tmp_path, canary, kind):
    with pytest.raises(InputError, match="last.pt"):
        find_checkpoint(save_as(kind, tmp_path / "last.pt", canary).parent, settings={}, data_hash="")


@KINDS
def test_a_model_to_evaluate_runs_nothing(tmp_path, canary, kind):
    (tmp_path / "models").mkdir()
    for name in ("model.pt", "auxiliary.pt"):
        save_as(kind, tmp_path / "models" / name, canary)
    for load in (load_model, load_auxiliary):
        with pytest.raises(InputError, match="models"):
            load(tmp_path / "models" / "model.pt")


@KINDS
def test_weights_for_the_selection_run_nothing(tmp_path, canary, kind, capsys):
    path = str(save_as(kind, tmp_path / "a.pth", canary))
    for large, small in ((path, "tf_efficientnet_lite0"), (path, path)):
        assert main(["select", "--large", large, "--small", small, "--out", str(tmp_path / "out.pt")]) == 1
        assert "a.pth" in capsys.readouterr().err


@KINDS
def test_options_of_a_network_that_name_a_file_run_nothing(tmp_path, canary, kind):
    path = str(save_as(kind, tmp_path / "a.pt", canary))
    for options in ({"checkpoint_path": path}, {"pretrained": True, "pretrained_cfg_overlay": {"file": path}}):
        with pytest.raises(InputError):
            build_network("resnet18", num_classes=2, **options)


@pytest.mark.parametrize("read", [read_image, lambda path: load_records(path.parent), find_images])
def test_an_array_of_objects_in_npy_runs_nothing(tmp_path, canary, read):
    for label in "ab":
        for number in range(4):
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "data" / label / f"{number}.npy", np.full((8, 8), number))
    path = tmp_path / "data" / "a" / "evil.npy"
    np.save(path, np.array([[Payload(canary)] * 8] * 8, dtype=object), allow_pickle=True)
    if read is find_images:  # lists without opening
        assert str(path) in read(path.parent)
        return
    with pytest.raises(InputError, match="evil.npy|data"):
        read(path if read is read_image else path.parent)


def test_arrays_of_objects_in_npz_run_nothing(tmp_path, canary):
    evil = np.array([Payload(canary)] * 4, dtype=object)
    images, labels = np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2
    np.savez(tmp_path / "images.npz", train_images=evil, train_labels=labels)
    np.savez(tmp_path / "labels.npz", train_images=images, train_labels=evil)
    np.savez(tmp_path / "other.npz", train_images=images, train_labels=labels, other=evil)
    for name in ("images", "labels"):
        with pytest.raises(InputError, match=f"{name}.npz"):
            load_records(tmp_path / f"{name}.npz")
    with pytest.raises(InputError, match="images.npz"):
        npz_array(tmp_path / "images.npz", "train_images")
    with pytest.raises(InputError, match="images.npz"):
        find_images(tmp_path / "images.npz")
    assert len(load_records(tmp_path / "other.npz", val_fraction=0, test_fraction=0, keep_twins=True).train) == 4
