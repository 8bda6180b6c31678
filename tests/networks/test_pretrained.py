# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from dual_skd.errors import InputError
from dual_skd.networks import pretrained
from dual_skd.networks.build import build_network
from dual_skd.networks.pretrained import load_pretrained

SMALL_VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2}
TINY = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}


def tiny() -> nn.Module:
    return build_network("resnet18", num_classes=2, **TINY)


def test_none_is_an_explicit_choice_and_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        assert load_pretrained("resnet18", "none") is None
    assert "no weights are loaded for resnet18" in caplog.text


def test_an_unreachable_hub_is_one_sentence_and_not_random_weights(monkeypatch):
    def unreachable(*arguments, **options):
        raise OSError("Name or service not known")

    monkeypatch.setattr(pretrained.socket, "create_connection", unreachable)
    monkeypatch.setattr(pretrained.urllib.request, "getproxies", dict)
    monkeypatch.setattr(pretrained, "try_to_load_from_cache", lambda *arguments: None)
    with pytest.raises(InputError, match="hub with the pretrained weights of resnet18 can't be reached"):
        load_pretrained("resnet18", "hub")
    monkeypatch.setattr(pretrained, "_hub_answers", lambda name: True)
    monkeypatch.setattr(pretrained.timm, "create_model", unreachable)
    with pytest.raises(InputError, match="Name or service not known"):
        load_pretrained("resnet18", "hub")


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth"])
def test_half_precision_files_are_read_as_float32(tmp_path, ending):
    state = {key: value.half() if value.is_floating_point() else value for key, value in tiny().state_dict().items()}
    path = tmp_path / f"weights.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save({"model": state, "class_names": ["a"]}, path)
    loaded = load_pretrained("resnet18", str(path), **TINY)
    assert loaded.keys() == state.keys()
    assert loaded["conv1.weight"].dtype == torch.float32
    torch.testing.assert_close(loaded["fc.weight"], state["fc.weight"].float())


def test_a_file_of_another_network_is_refused_with_the_first_tensor_that_is_wrong(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(tiny().state_dict(), path)
    with pytest.raises(InputError, match=r"layer1.0.conv1.weight .* \(4, 64, 3, 3\), resnet18 needs \(64, 64, 3, 3\)"):
        load_pretrained("resnet18", str(path))
    with pytest.raises(InputError, match="no tensor 'conv_stem.weight' of tf_efficientnet_lite2"):
        load_pretrained("tf_efficientnet_lite2", str(path))


def test_a_mistyped_source_is_told_the_words(tmp_path):
    with pytest.raises(InputError, match=r"No weights file 'weel' \(did you mean wheel.*give wheel, hub, none or"):
        load_pretrained("resnet18", "weel")


def test_dinov2_file_layout_is_the_one_of_timm(tmp_path):
    options = dict(SMALL_VIT, img_size=56)
    donor = timm.create_model("vit_small_patch14_dinov2", num_classes=0, **options)
    path = tmp_path / "dinov2.safetensors"
    save_file({key: value.half() for key, value in donor.state_dict().items()}, path)
    loaded = load_pretrained("vit_small_patch14_dinov2", str(path), **SMALL_VIT)  # another number of positions
    assert loaded.keys() == donor.state_dict().keys()
    assert "blocks.0.ls1.gamma" in loaded


def test_an_architecture_that_another_program_noted_is_passed_over(tmp_path):
    torch.save({"state_dict": tiny().state_dict(), "architecture": "resnet18"}, tmp_path / "other.pt")
    assert load_pretrained("resnet18", str(tmp_path / "other.pt"), **TINY).keys() == tiny().state_dict().keys()
