# SPDX-License-Identifier: Apache-2.0
"""Files with the names of another library are loaded as the network's own, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.networks.nets import ResNet
from torch import Tensor, nn
from torchvision.models import DenseNet, VisionTransformer

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.selection import plan_selection
from dual_skd.training.parent import load_parent

DENSE = {"block_config": [1, 2], "growth_rate": 4}  # timm starts with twice the growth
MONAI = DENSE | {"init_features": 8}
SMALL = {"block_config": [1, 1], "growth_rate": 2, "init_features": 4}
OPTIONS = {"densenet121": DENSE, "monai_densenet121": MONAI}


def densenet() -> nn.Module:
    torch.manual_seed(0)
    return DenseNet(growth_rate=4, block_config=(1, 2), num_init_features=8, num_classes=3).eval()


def saved(network: nn.Module | dict[str, Tensor], folder: Path, prefix: str = "") -> str:
    state = network.state_dict() if isinstance(network, nn.Module) else network
    torch.save({prefix + key: value for key, value in state.items()}, folder / "large.pt")
    return str(folder / "large.pt")


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("name", ["densenet121", "monai_densenet121"])
def test_a_densenet_of_torchvision_computes_its_features_in_each_library(name: str, prefix: str, tmp_path) -> None:
    theirs, ours = densenet(), build_network(name, num_classes=2, in_channels=3, **OPTIONS[name]).eval()
    parent = load_parent(name, saved(theirs, tmp_path, prefix), OPTIONS[name])
    assert parent is not None and parent.module is not None
    features = {key: value for key, value in parent.state.items() if key.startswith("features.")}
    assert features.keys() == {key for key in ours.state_dict() if key.startswith("features.")}
    ours.load_state_dict(features, strict=False)
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.features(image).relu(), theirs.features(image).relu())  # timm's norm ends in ReLU


def test_a_vit_of_torchvision_is_one_of_timm(tmp_path) -> None:
    options = {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32}
    torch.manual_seed(0)
    theirs = VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=64).eval()
    theirs.heads = nn.Identity()
    parent = load_parent("vit_tiny_patch16_224", saved(theirs, tmp_path), options)
    ours = build_network("vit_tiny_patch16_224", num_classes=2, in_channels=3, **options).eval()
    ours.load_state_dict(
        {key: value for key, value in parent.state.items() if not key.startswith("head")}, strict=False
    )
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.forward_features(image)[:, 0], theirs(image))


def test_a_densenet_of_torchvision_gives_a_student_of_volumes(tmp_path) -> None:
    theirs = densenet()
    parent = load_parent("monai_densenet121", saved(theirs, tmp_path), MONAI)
    small = build_network(
        "monai_densenet121", num_classes=2, spatial_dims=3, block_config=[1, 1], growth_rate=2, init_features=4
    )
    plan = plan_selection(parent, small)
    assert plan.verified
    chosen = plan.apply()["features.denseblock1.denselayer1.layers.conv2.weight"]
    source = theirs.features.denseblock1.denselayer1.conv2.weight
    assert chosen.shape == (2, 8, 3, 3, 3)
    torch.testing.assert_close(chosen.sum(-1), source[::2, ::2])  # every other channel, spread over the depth


def test_a_file_of_another_depth_is_refused_in_the_names_of_the_network(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no tensor 'features.denseblock2.denselayer3.layers.norm1.weight' of monai"):
        load_parent("monai_densenet121", saved(densenet(), tmp_path), MONAI | {"block_config": [1, 3]})


def test_the_large_network_has_as_many_input_channels_as_its_weights(tmp_path) -> None:
    large = build_network("monai_densenet121", num_classes=2, in_channels=2, **MONAI)
    parent = load_parent("monai_densenet121", saved(large, tmp_path), MONAI)
    assert parent.module.features.conv0.in_channels == 2
    small = build_network(
        "monai_densenet121", num_classes=2, in_channels=2, block_config=[1, 1], growth_rate=2, init_features=4
    )
    assert plan_selection(parent, small).check().consistent


def test_a_bias_that_the_file_s_form_of_a_layer_lacks_is_zero(tmp_path) -> None:
    sizes = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 8, 8]}
    theirs = ResNet(**sizes, spatial_dims=2, n_input_channels=3, bias_downsample=False)
    options = {"block_inplanes": [4, 4, 8, 8]}
    parent = load_parent("monai_resnet10", saved(theirs, tmp_path), options)
    plan = plan_selection(parent, build_network("monai_resnet10", num_classes=2, **options))
    assert torch.equal(plan.apply()["layer3.0.downsample.0.bias"], torch.zeros(8))
    state = {key: value for key, value in theirs.state_dict().items() if key != "layer3.0.downsample.0.weight"}
    with pytest.raises(InputError, match=r"no tensor 'layer3.0.downsample.0.weight'"):
        load_parent("monai_resnet10", saved(state, tmp_path), options)
