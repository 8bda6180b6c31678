# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import StdConv2d
from torch import nn

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.networks.volumetric import AvgPool3dSame, Conv3dSame, MaxPool3dSame, to_volumetric
from dual_skd.selection.resample import inflate_kernel


@pytest.mark.parametrize("size", [7, 8, 9, 12])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (2, 2)])
def test_same_padding_of_a_volume_is_the_one_of_timm_along_each_axis(size, kernel, stride):
    flat = timm.layers.Conv2dSame(1, 1, kernel, stride, bias=False)
    deep = Conv3dSame(1, 1, (kernel, kernel, 1), (stride, stride, 1), bias=False)
    deep.weight.data = flat.weight.data.unsqueeze(-1)
    x = torch.randn(1, 1, size, size + 2, 3)
    wanted = torch.stack([flat(x[..., i]) for i in range(3)], dim=-1)
    torch.testing.assert_close(deep(x), wanted)
    torch.testing.assert_close(deep(x).shape[2], -(-size // stride))
    turned = Conv3dSame(1, 1, (1, kernel, kernel), (1, stride, stride), bias=False)
    turned.weight.data = deep.weight.data.permute(0, 1, 4, 2, 3)
    torch.testing.assert_close(turned(x.permute(0, 1, 4, 2, 3)), wanted.permute(0, 1, 4, 2, 3))


def test_same_pooling_of_a_volume_is_the_one_of_timm():
    from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame

    x = torch.randn(1, 2, 7, 9, 3)
    for flat, deep in [
        (MaxPool2dSame(3, 2), MaxPool3dSame((3, 3, 1), (2, 2, 1))),
        (AvgPool2dSame(3, 2), AvgPool3dSame((3, 3, 1), (2, 2, 1))),
    ]:
        torch.testing.assert_close(deep(x), torch.stack([flat(x[..., i]) for i in range(3)], dim=-1))


FAMILIES = {
    "efficientnet_b0": {},
    "resnet18": {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)},
    "seresnet18": {"layers": (1, 1, 1, 1), "channels": (16, 16, 16, 16)},
    "convnext_atto": {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1)},
    "convnextv2_atto": {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1)},
    "densenet121": {"block_config": (1, 1, 1, 1), "growth_rate": 8},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_its_names_and_runs_on_volumes(name):
    flat = timm.create_model(name, num_classes=3, in_chans=1, **FAMILIES[name])
    deep = to_volumetric(flat).eval()
    assert deep.state_dict().keys() == flat.state_dict().keys()
    for key, value in flat.state_dict().items():
        found = deep.state_dict()[key].shape
        assert found == (*value.shape, min(value.shape[-2:])) if value.ndim == 4 else found == value.shape
    assert deep(torch.randn(2, 1, 32, 40, 48)).shape == (2, 3)


def test_pools_and_norms_of_an_inflated_network_give_the_2d_response_at_constant_depth():
    flat = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, 3)).eval()  # fmt: skip
    deep = to_volumetric(flat).eval()
    deep[0].weight.data = inflate_kernel(flat[0].weight.data, 3)
    x = torch.randn(2, 2, 12, 12)
    torch.testing.assert_close(deep(x.unsqueeze(-1).expand(-1, -1, -1, -1, 12)), flat(x))


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnextv2_atto", "seresnet18"])
def test_gates_and_norms_of_a_constant_depth_give_the_2d_response(name):
    # Depth kernels that see the middle slice only: no padding enters along the depth, and every slice is the 2D image.
    flat = timm.create_model(name, num_classes=3, in_chans=1, **FAMILIES[name])
    for parameter in flat.parameters():
        if parameter.ndim == 1:
            parameter.data.uniform_(0.5, 1.5)
    flat.eval()
    deep = to_volumetric(flat).eval()
    for key, module in deep.named_modules():
        if isinstance(module, nn.Conv3d):
            two = flat.get_submodule(key)
            module.stride, module.padding = (*two.stride, 1), (*module.padding[:2], 0)
            module.kernel_size = (*two.kernel_size, 1)
            module.weight = nn.Parameter(two.weight.detach().unsqueeze(-1))
            module._reversed_padding_repeated_twice = [0, 0]
        if isinstance(module, nn.MaxPool3d):
            module.kernel_size, module.stride, module.padding = (3, 3, 1), (2, 2, 1), (1, 1, 0)
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(deep(x.unsqueeze(-1).expand(-1, -1, -1, -1, 5)), flat(x), rtol=1e-3, atol=1e-3)


def test_fresh_kernels_have_the_variance_of_the_larger_fan():
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Conv2d(64, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    deep = to_volumetric(flat)
    assert deep[0].weight.std().item() == pytest.approx(flat[0].weight.std().item() / 3**0.5, rel=0.02)
    assert deep[0].weight[..., 0].ne(deep[0].weight[..., 1]).all()


def test_the_2d_network_stays_as_it_is():
    flat = timm.create_model("convnext_atto", num_classes=3, in_chans=1, **FAMILIES["convnext_atto"])
    before = {key: value.clone() for key, value in flat.state_dict().items()}
    to_volumetric(flat)
    assert all(torch.equal(value, before[key]) for key, value in flat.state_dict().items())
    assert flat(torch.randn(1, 1, 32, 32)).shape == (1, 3)


def test_training_reaches_every_weight_of_a_volumetric_network():
    network = build_network("tf_efficientnet_lite0", num_classes=2, spatial_dims=3, width=0.25, depth=0.3)
    network(torch.randn(2, 1, 32, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


class PerSlice(nn.Module):
    """Averages over two axes where a volume has three: wrong, without any error."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.gate = nn.Conv2d(4, 4, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = self.conv(x).relu()
        return self.pool(x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()).flatten(1)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (PerSlice(), "treats height, width and depth differently"),
        (nn.Sequential(StdConv2d(1, 4, 3)), "layer '0' is a StdConv2d"),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.PixelShuffle(2), nn.Conv2d(1, 1, 1)), "fails on volumes"),
    ],
)
def test_networks_without_a_3d_form_are_refused(network, words):
    with pytest.raises(InputError, match=words):
        to_volumetric(network)
