# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from safetensors.torch import save
from torch import nn

from dual_skd.errors import InputError
from dual_skd.networks.weight_files import load_state_file, read_info
from dual_skd.runs.model_file import save_model


@pytest.mark.parametrize("wrap", ["model", "state_dict", "network"])
def test_a_state_dict_below_a_name_is_unpacked(tmp_path, wrap):
    torch.save({wrap: {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "w.pt")
    assert load_state_file(tmp_path / "w.pt")["a"].tolist() == [1, 1]


def test_prefixes_of_wrappers_are_removed(tmp_path):
    path = tmp_path / "wrapped.pt"
    torch.save({"state_dict": {"module.a": torch.ones(2)}}, path)
    assert load_state_file(path)["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.pt", None, "No weights file"),
        ("weights.bin", b"", "expected .safetensors, .pt or .pth"),
        ("broken.safetensors", b"not a file", "can't be read"),
        ("empty.safetensors", save({}), "has no tensors"),
        ("broken.pt", b"not a file", "isn't opened|can't be read"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        load_state_file(tmp_path / name)


def test_the_folder_of_a_run_and_a_file_beside_its_models_lead_to_its_model(tmp_path):
    model = tmp_path / "run" / "models" / "model.pt"
    model.parent.mkdir(parents=True)
    model.touch()
    for given in ("run", "run/model.pt"):
        with pytest.raises(InputError, match=f"did you mean {model}"):
            load_state_file(tmp_path / given)


def test_pickled_code_is_never_run(tmp_path):
    path = tmp_path / "module.pt"
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(InputError, match="more than tensors"):
        load_state_file(path)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_what_a_model_file_holds_beside_the_weights(tmp_path, ending):
    save_model(tmp_path, nn.Linear(2, 2), architecture={"name": "n", "image_size": [4, 8]}, class_names=["a", "b"])
    info = read_info(tmp_path / f"model.{ending}")
    assert info["architecture"]["image_size"] == [4, 8] and info["class_names"] == ["a", "b"]


def test_other_files_hold_nothing_beside_the_weights(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    assert read_info(tmp_path / "other.pt") == {}
    torch.save([torch.ones(2)], tmp_path / "other.pt")
    with pytest.raises(InputError, match="other.pt' has no tensors"):
        read_info(tmp_path / "other.pt")


def test_metadata_of_another_program_is_passed_over(tmp_path):
    (tmp_path / "other.safetensors").write_bytes(save({"a": torch.ones(2)}, {"architecture": "resnet18"}))
    assert read_info(tmp_path / "other.safetensors") == {}
