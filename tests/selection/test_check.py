# SPDX-License-Identifier: Apache-2.0
"""The check of a plan: right plans of several families pass it, spoilt ones don't, and it says where."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import timm
import torch
from monai.networks.nets import DenseNet, ResNet, SegResNet, ViT
from timm.models.metaformer import MetaFormer
from torch import Tensor, nn
from torch.nn import functional as F

from dual_skd.networks import build_network
from dual_skd.selection import PlanCheck, SelectionError, plan_selection
from dual_skd.selection.padding import padding_invariant
from dual_skd.selection.parts import Axis

VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "num_classes": 3}
CONVNEXT = {"depths": (1, 1, 2, 1), "num_classes": 3}
METAFORMER = {"dims": (8, 8, 8, 8), "res_scale_init_values": (1.0,) * 4, "num_classes": 2}
RESNET3D = {"block": "basic", "layers": [1, 1, 1, 1], "spatial_dims": 3, "num_classes": 2}


def vit(width: int = 48, heads: int = 4, **options) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", embed_dim=width, num_heads=heads, **VIT | options)


def resnet(*channels: int, **options) -> nn.Module:
    return timm.create_model("resnet18", channels=channels, layers=(1, 1, 1, 1), num_classes=3, **options)


def monai_vit(width: int, heads: int) -> nn.Module:
    return ViT(1, (16, 16, 16), (8, 8, 8), hidden_size=width, mlp_dim=64, num_heads=heads, num_layers=2,
               classification=True, proj_type="perceptron")  # fmt: skip


def on_meta(build, *sizes: tuple) -> tuple[nn.Module, ...]:
    with torch.device("meta"):
        return tuple(build(*each) for each in sizes)


CONSISTENT = {
    "vit": lambda: (vit(), vit(24, 2, depth=1)),
    "vit with other heads": lambda: (vit(48, 4), vit(24, 4)),
    "vit of another image, patch and channels": lambda: (vit(), vit(24, 2, img_size=24, patch_size=4, in_chans=1)),
    "convnext with response norms": lambda: (
        timm.create_model("convnextv2_atto", dims=(8, 16, 24, 32), **CONVNEXT),
        timm.create_model("convnextv2_atto", dims=(4, 8, 12, 16), **CONVNEXT),
    ),
    "resnet": lambda: (resnet(16, 32, 48, 64), resnet(8, 16, 24, 32)),
    "resnet of volumes": lambda: (
        ResNet(block_inplanes=[8, 16, 24, 32], n_input_channels=3, **RESNET3D),
        ResNet(block_inplanes=[4, 8, 12, 16], n_input_channels=1, **RESNET3D),
    ),
    "volumes from images": lambda: (
        resnet(8, 8, 8, 8),
        build_network("resnet18", num_classes=2, spatial_dims=3, channels=[4, 4, 4, 4], layers=[1, 1, 1, 1]),
    ),
    "monai's vit of volumes": lambda: (monai_vit(32, 4), monai_vit(16, 2)),
    "a head layer that isn't selected": lambda: (
        build_network("tf_efficientnet_lite0", num_classes=2, width=0.3),
        build_network("tf_efficientnet_lite0", num_classes=2, width=0.3, depths=[1, 1, 1]),
    ),
    "concatenated channels": lambda: (DenseNet(2, 1, 2, 16, 8, (2, 3)), DenseNet(2, 1, 2, 16, 8, (1, 3))),
    "residual streams that are scaled": lambda: (
        MetaFormer(depths=(1, 2, 1, 1), **METAFORMER),
        MetaFormer(depths=(1, 1, 1, 1), **METAFORMER),
    ),
    "biases that the large one lacks": lambda: (vit(init_values=None, qkv_bias=False), vit(24, 2, init_values=0.1)),
    "networks on the meta device": lambda: on_meta(
        lambda width, heads: timm.create_model(
            "swin_tiny_patch4_window7_224", embed_dim=width, num_heads=heads, depths=(1, 1, 2, 1), num_classes=2
        ),
        (32, (2, 4, 8, 16)),
        (16, (1, 2, 4, 8)),
    ),
    "group norms": lambda: (SegResNet(2, init_filters=16), SegResNet(2, init_filters=8)),
}
INCONSISTENT = {
    "concatenated channels": (
        lambda: (DenseNet(2, 1, 2, 16, 8, (2, 3)), DenseNet(2, 1, 2, 16, 8, (1, 3))),
        "features.transition1.norm",
        "generic",
    ),
    "a projection that the large one lacks": (
        lambda: (resnet(64, 64, 64, 64), resnet(32, 32, 32, 32)),
        "layer1.0",
        "resnet",
    ),
}


def rolled(plan, name: str, place: int):
    """The plan with the indices of one dimension of one tensor shifted by one."""
    parts, indices = list(plan._parts), dict(plan._indices)
    at = next(at for at, part in enumerate(parts) if part.name == name)
    dims = list(parts[at].dims)
    axis = dims[place][-1]
    dims[place] = (*dims[place][:-1], Axis("rolled", axis.large, axis.small))
    indices["rolled"] = indices[axis.name].roll(1)
    spoilt = copy.copy(plan)
    spoilt._parts = [*parts[:at], replace(parts[at], dims=tuple(dims)), *parts[at + 1 :]]
    spoilt._indices = indices
    return spoilt


def narrow_plan(**options):
    return plan_selection(vit(), vit(24, 2), **options)


@pytest.mark.parametrize("name", CONSISTENT)
def test_right_plans_are_consistent(name):
    torch.manual_seed(0)
    plan = plan_selection(*CONSISTENT[name]())
    found = plan.check()
    assert found.verdict == "consistent", found
    assert plan.verified and plan.checked == found and ("checked", str(found)) in plan.summary()


@pytest.mark.parametrize("name", INCONSISTENT)
def test_networks_without_a_common_part_are_not(name):
    build, module, family = INCONSISTENT[name]
    plan = plan_selection(*build(), family=family)
    assert not plan.verified
    assert plan.check().verdict == "inconsistent" and plan.checked.module == module
    assert not plan.verified


@pytest.mark.parametrize(
    ("tensor", "place", "module", "axis"),
    [
        ("blocks.1.mlp.fc1.weight", 0, "blocks.1.mlp.fc1", "rolled"),
        ("blocks.0.attn.proj.weight", 1, "blocks.0.attn.proj", "blocks.0.head"),
        ("blocks.0.norm1.bias", 0, "blocks.0.norm1", "rolled"),
        ("pos_embed", 2, "pos_drop", ""),
        ("norm.weight", 0, "norm", "rolled"),
    ],
)
def test_one_axis_out_of_step_is_found_where_it_is(tensor, place, module, axis):
    plan = rolled(narrow_plan(), tensor, place)
    found = plan.check()
    assert (found.verdict, found.module) == ("inconsistent", module)
    assert axis in found.axis and module in str(found)
    assert not plan.verified


def test_two_rules_on_one_axis_are_inconsistent():
    """A norm that keeps other channels than the stream it belongs to."""
    plan = narrow_plan()
    plan._parts = [
        replace(part, dims=((Axis("other", 48, 24),),)) if part.name == "norm.bias" else part for part in plan._parts
    ]
    plan._indices["other"] = torch.arange(24)
    assert plan.check().module == "norm"


def test_blended_heads_are_inconsistent():
    """The published rule takes every second row of all heads; its heads are mixtures."""
    plan = narrow_plan(mode="reference")
    assert plan.check().verdict == "inconsistent" and plan.checked.module == "blocks.0.attn"


@pytest.mark.parametrize("rule", ["random", "importance", "complement"])
def test_other_rules_are_consistent_too(rule):
    torch.manual_seed(1)
    assert narrow_plan(elements=rule).check().consistent


def test_no_power_where_nothing_reaches_the_features():
    class Deaf(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, width, 3)
            self.fc = nn.Linear(width, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(0 * self.first(x).mean((2, 3)) + 1)

    found = plan_selection(Deaf(8), Deaf(4)).check()
    assert found.verdict == "no power" and "weren't noticed" in str(found)


def test_a_plan_of_tensors_needs_the_modules():
    large, small = vit(), vit(24, 2)
    plan = plan_selection(large.state_dict(), small.state_dict(), large_heads=4, small_heads=2)
    with pytest.raises(SelectionError, match=r"of the large network only the tensors are known.*plan\.check\(large="):
        plan.check()
    with pytest.raises(SelectionError, match=r"plan\.check\(small="):
        plan.check(large=large)
    assert plan.check(large=large, small=small).consistent


def test_networks_on_the_meta_device_and_their_values_stay_as_they_are():
    with torch.device("meta"):
        large = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(1, 1),
                                  num_heads=(1, 2), num_classes=2)  # fmt: skip
    small = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(1, 1),
                              num_heads=(1, 2), num_classes=2)  # fmt: skip
    before = copy.deepcopy(small.state_dict())
    assert plan_selection(large, small).check().consistent
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert small.training and all(value.is_meta for value in large.parameters())


def test_an_image_that_does_not_fit():
    plan = narrow_plan()
    with pytest.raises(SelectionError, match=r"computes no input of shape \(1, 5, 8, 8\)"):
        plan.check(torch.zeros(1, 5, 8, 8))
    assert plan.check(torch.zeros(2, 3, 32, 32)).consistent


def test_result_says_what_stays_random():
    plan = plan_selection(vit(depth=1), vit(24, 2, depth=2))
    found = plan.check()
    assert found.consistent and "blocks.1.norm1.weight" in found.unselected
    assert "not selected, so random: blocks.1.norm1.weight" in str(found)
    assert str(PlanCheck("inconsistent", "a.b", "embed")).startswith("inconsistent: a.b (axes embed)")


NORMS = {
    "layer": lambda x: F.layer_norm(x, x.shape[-1:]),
    "root mean square": lambda x: F.rms_norm(x, x.shape[-1:]),
    "by hand": lambda x: (x - x.mean(-1, keepdim=True)) / x.var(-1, keepdim=True, unbiased=False).sqrt(),
    "by its square": lambda x: x * x.pow(2).mean(-1, keepdim=True).rsqrt(),
    "var_mean": lambda x: x / torch.var_mean(x, -1, keepdim=True)[0].sqrt(),
    "group": lambda x: F.group_norm(x.transpose(1, 2), 2).transpose(1, 2),
    "standardised": lambda x: F.batch_norm(x, None, None, training=True),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x),
}


@pytest.mark.parametrize("norm", NORMS)
def test_channels_of_zeros_change_nothing(norm):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 4, dtype=torch.float64)
    wide = torch.zeros(1, 3, 12, dtype=torch.float64)
    places = [1, 3, 7, 8]  # two in each half: groups keep theirs
    wide[..., places] = x
    with padding_invariant():
        own, other = NORMS[norm](x), NORMS[norm](wide)
    torch.testing.assert_close(other[..., places], own)
    assert not torch.allclose(NORMS[norm](x), NORMS[norm](wide)[..., places])
