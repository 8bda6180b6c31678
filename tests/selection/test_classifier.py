# SPDX-License-Identifier: Apache-2.0
"""Only the classifier itself is left out: layers in front of it are features, in whatever module they lie."""

from __future__ import annotations

import pytest
import timm
import torch
from monai.networks import nets
from torch import nn
from torchvision import models

from dual_skd.selection import plan_selection
from dual_skd.selection.classifier import classifier_tensors

BOTH = ("weight", "bias")
# one network of each form of head, and the layer that gives its logits
TIMM = {
    "hgnetv2_b0": "head.fc",
    "efficientvit_b0": "head.classifier.4",
    "efficientvit_m0": "head.linear",
    "shvit_s1": "head.l",
    "inception_next_atto": "head.fc2",
    "mobilenetv3_small_050": "classifier",
    "tiny_vit_5m_224": "head.fc",
    "resnet18": "fc",
    "dla34": "fc",
    "vgg11": "head.fc",
    "inception_resnet_v2": "classif",
}
TORCHVISION = {"convnext_tiny": "classifier.2", "mobilenet_v3_small": "classifier.3", "vgg11": "classifier.6"}


def tensors(layer: str, shapes: dict) -> set[str]:
    return {f"{layer}.{leaf}" for leaf in BOTH if f"{layer}.{leaf}" in shapes}


def on_meta(build, *args, **options) -> nn.Module:
    with torch.device("meta"):
        return build(*args, **options)


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


@pytest.mark.parametrize("name", TIMM)
def test_an_identical_timm_network_gives_all_but_its_classifier(name: str) -> None:
    network = on_meta(timm.create_model, name)
    for prefix, pair in (("", [network] * 2), ("module.", [nn.Module(), nn.Module()])):
        if prefix:
            for wrapper in pair:
                wrapper.module = network
        for source in (pair[0], pair[0].state_dict()):
            left = {row.name for row in plan_selection(source, source).report() if not row.selected}
            assert left == {prefix + tensor for tensor in tensors(TIMM[name], network.state_dict())}


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_norm_and_the_hidden_layer_of_torchvision_s_heads_are_features(name: str) -> None:
    shapes = shapes_of(on_meta(getattr(models, name)))
    assert classifier_tensors(shapes) == tensors(TORCHVISION[name], shapes)


def test_monai_s_classifiers_are_found() -> None:
    cases = {
        "class_layers.out": on_meta(nets.DenseNet121, 2, 1, 2),
        "_fc": on_meta(nets.EfficientNetBN, "efficientnet-b0", pretrained=False),
        "last_linear": on_meta(nets.SEResNet50, spatial_dims=2, in_channels=3),
        "fc": on_meta(nets.resnet18, spatial_dims=3),
        "classification_head.0": on_meta(
            nets.ViT, 1, 32, 16, hidden_size=12, mlp_dim=12, num_layers=1, num_heads=2, classification=True
        ),
    }
    for layer, network in cases.items():
        shapes = shapes_of(network)
        assert classifier_tensors(shapes) == tensors(layer, shapes), layer


def test_parallel_classifiers_are_all_left_out() -> None:
    for name, layers in {
        "deit_tiny_distilled_patch16_224": ["head", "head_dist"],
        "crossvit_tiny_240": ["head.0", "head.1"],
        "levit_128s": ["head.linear", "head_dist.linear"],
    }.items():
        network = on_meta(timm.create_model, name)
        expected = {f"{layer}.{leaf}" for layer in layers for leaf in BOTH}
        assert classifier_tensors(shapes_of(network)) == expected
        assert classifier_tensors(shapes_of(network), network) == expected


def test_a_network_without_a_classifier_says_so() -> None:
    network = on_meta(timm.create_model, "hgnetv2_b0", num_classes=0)
    assert classifier_tensors(shapes_of(network), network) == set()
    assert classifier_tensors({"head.norm.weight": (8,), "head.pre_logits.fc.weight": (8, 8)}) == set()


def test_a_layer_of_a_classifier_s_name_deep_inside_is_a_feature() -> None:
    gate = {f"layer{stage}.0.se.fc.0.weight": (4, 8) for stage in range(3)}
    assert classifier_tensors({**gate, "fc.weight": (2, 8), "conv_head.weight": (8, 8), "fc_norm.weight": (8,)}) == {
        "fc.weight"
    }


def test_the_classifier_of_a_wrapped_network_and_that_of_its_wrapper_are_found() -> None:
    body = {f"backbone.blocks.{block}.weight": (8, 8) for block in range(4)}
    shapes = {**body, "backbone.head.weight": (5, 8), "classifier.weight": (2, 8), "classifier.bias": (2,)}
    assert classifier_tensors(shapes) == {"backbone.head.weight", "classifier.weight", "classifier.bias"}
