# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import dual_skd
from dual_skd.errors import InputError
from dual_skd.networks.allowed import VARIABLE, is_own
from dual_skd.networks.build import build_network, require_architecture
from dual_skd.runs.model_file import load_model, save_model
from dual_skd.training.start import initialise_pair

CODE = """
from pathlib import Path
from torch import nn

Path(__file__).with_name("imported").touch()


class Net(nn.Module):
    def __init__(self, num_classes, in_channels, spatial_dims, width=4):
        super().__init__()
        self.conv = (nn.Conv2d if spatial_dims == 2 else nn.Conv3d)(in_channels, width, 3)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.classifier(self.conv(x).flatten(2).mean(2))


def sized(num_classes, in_channels, spatial_dims, image_size):
    net = Net(num_classes, in_channels, spatial_dims)
    net.size = image_size
    return net


def greedy(**anything):
    return anything


NUMBER = 3
"""
KNOWN = {"num_classes": 3, "in_channels": 1, "spatial_dims": 2, "image_size": 16}


@pytest.fixture
def module(tmp_path, monkeypatch) -> str:
    """Name of an importable module with networks that leaves a mark when it is imported."""
    name = "own_nets_of_a_test"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(VARIABLE, "")
    yield name
    sys.modules.pop(name, None)


def test_a_class_or_function_is_called_with_what_the_run_knows_and_its_options(module, monkeypatch):
    monkeypatch.setenv(VARIABLE, f"{module}:Net, {module}:sized,{module}:greedy")
    network = build_network(f"{module}:Net", **KNOWN, width=5)
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 3) and network.conv.out_channels == 5
    assert build_network(f"{module}:Net", **KNOWN | {"spatial_dims": 3})(torch.zeros(2, 1, 8, 8, 8)).shape == (2, 3)
    assert build_network(f"{module}:sized", **KNOWN).size == 16
    with pytest.raises(InputError, match="greedy gives a dict; expected a torch.nn.Module"):
        build_network(f"{module}:greedy", **KNOWN)
    with pytest.raises(InputError, match="unexpected keyword argument 'depth'"):
        build_network(f"{module}:Net", **KNOWN, depth=5)


def test_nothing_is_imported_that_the_user_has_not_named(module, tmp_path, monkeypatch):
    mark = tmp_path / "imported"
    for argv in ([], ["--model", f"x{module}:Net"], [f"--small={module}:sized"], [f"{module}:Net.pt"]):
        monkeypatch.setattr(sys, "argv", ["python", *argv])
        with pytest.raises(InputError, match=f"runs the code of {module}.*{VARIABLE}={module}:Net"):
            build_network(f"{module}:Net", **KNOWN)
        assert not mark.exists()
    for argv in (["--small", f"{module}:Net"], [f"--large={module}:Net"]):
        monkeypatch.setattr(sys, "argv", ["python", *argv])
        assert isinstance(build_network(f"{module}:Net", **KNOWN), nn.Module)
    assert mark.exists()


def test_a_strangers_model_file_does_not_choose_what_is_imported(module, tmp_path):
    save_model(tmp_path / "run" / "models", nn.Linear(1, 1), architecture=KNOWN | {"name": f"{module}:Net"},
               class_names=["a", "b", "c"])  # fmt: skip
    for file in ("model.pt", "model.safetensors"):
        with pytest.raises(InputError, match="a network outside this package"):
            load_model(tmp_path / "run" / "models" / file)
    assert not (tmp_path / "imported").exists()


def test_a_saved_network_of_ones_own_is_loaded_again(module, tmp_path):
    dual_skd.allow_network(f"{module}:Net")
    dual_skd.allow_network(f"{module}:sized")  # beside it
    architecture = KNOWN | {"name": f"{module}:Net", "width": 6}
    network = build_network(**architecture).eval()
    save_model(tmp_path / "models", network, architecture=architecture, class_names=["a", "b", "c"])
    x = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(load_model(tmp_path)[0](x), network(x), rtol=0, atol=0)


@pytest.mark.parametrize("name, words", [
    ("no_such_module_at_all:Net", "can't be imported .ModuleNotFoundError.*PYTHONPATH"),
    ("own_nets_of_a_test:Nett", "no class or function Nett .did you mean Net"),
    ("own_nets_of_a_test:NUMBER", "no class or function NUMBER"),
])  # fmt: skip
def test_what_cannot_be_built_is_said_plainly(module, name, words):
    dual_skd.allow_network(name)
    with pytest.raises(InputError, match=words):
        build_network(name, **KNOWN)


@pytest.mark.parametrize("name", ["a:b:c", ":Net", "os:", "os:system()", "../a:Net", "a b:Net"])
def test_a_name_of_another_form_is_refused(name):
    assert is_own(name)
    with pytest.raises(InputError, match="expected package.module:Name"):
        dual_skd.allow_network(name)
    with pytest.raises(InputError, match="expected package.module:Name"):
        build_network(name, **KNOWN)


def test_a_network_that_its_description_does_not_give_is_refused():
    resnet = {"name": "resnet18", "num_classes": 2, "layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}
    require_architecture(nn.DataParallel(build_network(**resnet)), resnet)
    for other in (build_network(**resnet | {"channels": [8, 8, 8, 8]}), nn.Linear(2, 2)):
        with pytest.raises(InputError, match="network_def is another network than resnet18.*--small package.module"):
            require_architecture(other, resnet)


def test_a_large_network_of_ones_own_gives_its_weights_by_the_rule_of_sizes(module, tmp_path):
    dual_skd.allow_network(f"{module}:Net")
    large, small = (build_network(f"{module}:Net", **KNOWN, width=width) for width in (8, 4))
    torch.save(large.state_dict(), tmp_path / "large.pt")
    found = initialise_pair(
        small, large=f"{module}:Net", large_options={"width": 8}, pretrained=str(tmp_path / "large.pt")
    ).summary
    assert found["student"]["selected"] == 2 and found["student"]["verified"] is False
    torch.testing.assert_close(small.conv.weight, large.conv.weight[::2])
    torch.testing.assert_close(small.conv.bias, large.conv.bias[::2])
