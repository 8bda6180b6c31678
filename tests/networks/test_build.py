# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import monai.networks.nets
import pytest
import timm
import torch
from torch import nn

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.networks.inspect import classifier_of, count_macs, count_parameters, penultimate, unwrap

SMALL_VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2}


# --- building


@pytest.mark.parametrize(
    ("name", "spatial_dims", "options"),
    [
        ("tf_efficientnet_lite0", 2, {"width": 0.25, "depth": 0.3}),
        ("tf_efficientnet_lite0", 3, {"width": 0.25, "depth": 0.3}),
        ("resnet18", 2, {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}),
        ("convnext_atto", 2, {"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}),
        ("vit_tiny_patch16_224", 2, SMALL_VIT),
        ("monai_resnet10", 2, {"widen_factor": 0.125}),
        ("monai_resnet10", 3, {"widen_factor": 0.125}),
        ("monai_resnet50", 3, {"widen_factor": 0.0625, "layers": [1, 1, 1, 1]}),
        ("densenet121", 3, {"block_config": [1, 2], "growth_rate": 4}),
        ("monai_densenet121", 2, {"block_config": [1, 2], "growth_rate": 4, "init_features": 8}),
        ("monai_densenet121", 3, {"block_config": [1, 2], "growth_rate": 4, "init_features": 8}),
        ("monai_vit", 2, {"hidden_size": 24, "mlp_dim": 48, "num_layers": 2, "num_heads": 2}),
        ("monai_vit", 3, {"hidden_size": 24, "mlp_dim": 48, "num_layers": 2, "num_heads": 2}),
    ],
)
def test_every_kind_of_network_returns_one_tensor_of_logits(name, spatial_dims, options):
    network = build_network(
        name, num_classes=3, in_channels=2, spatial_dims=spatial_dims, image_size=32, **options
    ).eval()
    logits, features = penultimate(network, torch.randn(2, 2, *(32,) * spatial_dims))
    layer_name, classifier = classifier_of(network)
    assert logits.shape == (2, 3)
    assert network.get_submodule(layer_name) is classifier
    torch.testing.assert_close(classifier(features), logits)
    logits.sum().backward()  # several processes wait for the gradient of every parameter that learns
    assert [key for key, value in network.named_parameters() if value.requires_grad and value.grad is None] == []


def test_width_0_4_leaves_0_89_of_4_87_million_parameters():
    large = build_network("tf_efficientnet_lite2", num_classes=4)
    small = build_network("tf_efficientnet_lite2", num_classes=4, width=0.4)
    assert count_parameters(small) == 895_684
    assert count_parameters(small) < count_parameters(large) / 5
    assert large.conv_stem.out_channels == small.conv_stem.out_channels == 32
    assert small.num_features == 1280


def test_own_multipliers_give_the_very_network_of_timm():
    ours = build_network("tf_efficientnet_lite2", num_classes=4, in_channels=3, width=1.1, depth=1.2).eval()
    theirs = timm.create_model("tf_efficientnet_lite2", num_classes=4).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 65, 65)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_depths_keep_the_first_blocks_and_stages_under_a_fifth_of_the_parameters():
    large = build_network("tf_efficientnet_lite2", num_classes=4)
    small = build_network("tf_efficientnet_lite2", num_classes=4, depths=[1, 3, 3, 4, 2])
    assert [len(stage) for stage in small.blocks] == [1, 3, 3, 4, 2]
    assert count_parameters(small) == 934_452
    assert count_parameters(small) < count_parameters(large) / 5
    assert small.conv_head.in_channels == 120 and small.num_features == 1280


@pytest.mark.parametrize("name", ["test_efficientnet_gn", "test_efficientnet_ln", "test_efficientnet_evos"])
def test_depths_work_whatever_the_normalisation(name):
    network = build_network(name, num_classes=2, depths=[1, 1])
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 2)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "efficientnetv2_rw_t", "mixnet_s", "mobilenetv2_100"])
def test_depths_work_for_timm_s_efficientnets(name):
    network = build_network(name, num_classes=2, depths=[1, 1, 1])
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 2)
    volume = build_network(name, num_classes=2, depths=[1, 1, 1], spatial_dims=3)
    assert volume(torch.zeros(2, 1, 32, 32, 32)).shape == (2, 2)


@pytest.mark.parametrize("layers", [121, 169, 201, 264])
def test_monai_s_densenets_have_the_parameters_of_monai_s_own(layers):
    with torch.device("meta"):
        ours = build_network(f"monai_densenet{layers}", num_classes=5, in_channels=2, spatial_dims=3)
        theirs = getattr(monai.networks.nets, f"DenseNet{layers}")(spatial_dims=3, in_channels=2, out_channels=5)
    assert [(key, value.shape) for key, value in ours.state_dict().items()] == [
        (key, value.shape) for key, value in theirs.state_dict().items()
    ]


def test_monai_logits_are_not_bounded_by_the_default_tanh():
    network = build_network("monai_vit", num_classes=2, spatial_dims=2, image_size=32, hidden_size=24, num_heads=2,
                            num_layers=1, mlp_dim=24)  # fmt: skip
    network.classification_head.weight.data.mul_(1000)
    assert network(torch.randn(1, 1, 32, 32)).abs().max() > 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet81"}, ["resnet81", "resnet18"]),
        ({"name": "monai_resnet11"}, ["monai_resnet11", "monai_resnet10"]),
        ({"name": "tf_efficientnet_lite2", "widht": 0.4}, ["widht", "did you mean width"]),
        ({"name": "monai_vit", "image_size": 32, "num_head": 2}, ["num_head", "num_heads"]),
        ({"name": "monai_resnet10", "widen": 2}, ["widen", "widen_factor"]),
        ({"name": "monai_densenet121", "growth": 2}, ["growth", "growth_rate"]),
        ({"name": "monai_densenet122"}, ["monai_densenet122", "did you mean monai_densenet121"]),
        ({"name": "convnext_atto", "dim": [1]}, ["dims"]),
        ({"name": "vit_tiny_patch16_224", "embed_dim": 100}, ["embed_dim", "divisible"]),
        ({"name": "monai_vit"}, ["image_size"]),
        ({"name": "vit_tiny_patch16_224", "spatial_dims": 3}, ["monai_vit"]),
        ({"name": "resnet18", "spatial_dims": 4}, ["spatial_dims", "4"]),
        ({"name": "resnet18", "num_classes": 0}, ["num_classes", "0"]),
        ({"name": "tf_efficientnet_lite2", "width": -1}, ["width", "positive"]),
        ({"name": "tf_efficientnet_lite2", "depths": [1, 4]}, ["[1, 4]", "[1, 3, 3, 4, 4, 5, 1]"]),
        ({"name": "tf_efficientnet_lite2", "depths": [1, 0]}, ["at most", "end of the list"]),
        ({"name": "tf_efficientnet_lite2", "depths": []}, ["depths []"]),
    ],
)
def test_a_wrong_name_or_option_is_named_with_the_remedy(arguments, words):
    with pytest.raises(InputError) as caught:
        build_network(**({"num_classes": 2} | arguments))
    assert all(word in str(caught.value) for word in words), caught.value


# --- looking into a network


def test_macs_of_a_convolution_and_a_linear_layer_by_hand():
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(4 * 8 * 8, 5))
    assert count_macs(network, (2, 8, 8)) == 8 * 8 * 4 * (1 * 9) + 256 * 5
    assert network.training


def test_macs_need_no_memory_on_the_meta_device():
    with torch.device("meta"):
        network = build_network("tf_efficientnet_lite2", num_classes=1000, in_channels=3)
    assert count_macs(network, (3, 260, 260)) == pytest.approx(0.87e9, rel=0.03)  # published: 869 million


def test_macs_of_a_network_with_a_parameter_as_input_of_a_layer():
    with torch.device("meta"):
        network = build_network("test_vit3", num_classes=2, image_size=32)
    network.norm.requires_grad_(False)
    before = [parameter.requires_grad for parameter in network.parameters()]
    assert count_macs(network, (1, 32, 32)) > 0
    assert [parameter.requires_grad for parameter in network.parameters()] == before


def test_wrappers_are_taken_off():
    network = nn.Linear(2, 2)
    assert unwrap(torch.compile(nn.DataParallel(network))) is network


def test_penultimate_features_carry_gradient_and_leave_no_hook():
    torch.manual_seed(0)  # with 4 channels, 2 of 60 seeds give no gradient: all ReLUs are 0
    network = build_network("resnet18", num_classes=2, layers=[1, 1, 1, 1], channels=[4, 4, 4, 4])
    _, features = penultimate(network, torch.randn(2, 1, 32, 32))
    features.sum().backward()
    assert network.conv1.weight.grad.abs().sum() > 0
    assert not classifier_of(network)[1]._forward_pre_hooks


def test_a_network_without_linear_classifier_is_refused():
    with pytest.raises(InputError, match="one linear layer"):
        classifier_of(nn.Sequential(nn.Conv2d(1, 1, 1)))
