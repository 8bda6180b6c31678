# SPDX-License-Identifier: Apache-2.0
"""Plans of networks without a table: the axes that an image shows, against tables, by hand, and by computing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from monai.networks.nets import DenseNet
from tiny_networks import FAMILIES
from torch import Tensor, nn
from torch.nn import functional as F

from dual_skd.selection import SelectionError, plan_selection
from dual_skd.selection.tracing import NotFollowed, trace


def tagged(network: nn.Module) -> dict[str, Tensor]:
    """Tensors whose entries are their own flat index."""
    state = network.state_dict()
    return {
        name: torch.arange(value.numel(), dtype=torch.float64).reshape(value.shape) for name, value in state.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("elements", "layers"), [("uniform", "first"), ("consecutive", "last"), ("complement", "even")]
)
def test_the_axes_that_an_image_shows_are_those_of_the_table(family: str, elements: str, layers: str) -> None:
    large, small = FAMILIES[family](2, 4), FAMILIES[family](1, 2)
    table, followed = (
        plan_selection(large, small, elements=elements, layers=layers, family=way) for way in (None, "traced")
    )
    assert table.verified and table.family != "traced" and followed.family == "traced"
    expected, found = table.apply(tagged(large)), followed.apply(tagged(large))
    unused = followed.skipped.get("the network doesn't use it", [])
    assert list(found) == [name for name in expected if name not in unused]
    assert all(torch.equal(expected[name], value) for name, value in found.items())
    assert all("norm_cross_attn" in name for name in unused)  # MONAI's ViT makes it for another use


def test_a_dense_layer_reads_the_selected_channels_of_each_layer_before_it() -> None:
    large, small = DenseNet(2, 1, 2, 16, 8, (4, 3)), DenseNet(2, 1, 2, 8, 4, (2, 3))
    found = plan_selection(large, small, layers="first").apply(tagged(large))
    stem, growth = [*range(0, 16, 2)], [*range(0, 8, 2)]
    joined = (
        stem + [16 + index for index in growth] + [24 + index for index in growth]
    )  # not the last two layers' 32...
    assert found["features.transition1.norm.weight"].tolist() == joined
    assert (found["features.denseblock1.denselayer2.layers.norm1.bias"]).tolist() == joined[:12]
    reads = found["features.transition1.conv.weight"].flatten(1)
    assert (reads[0] % 48).tolist() == joined  # 48 channels enter the large transition: 16 and 4 x 8


class Block(nn.Module):
    """A network of one operation between two convolutions."""

    def __init__(self, width: int, operation: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.operation = operation(width)
        self.last = nn.LazyConv2d(2 * width, 1)
        self.head = nn.Linear(2 * width, 3)
        self(torch.zeros(1, 3, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.operation(self.stem(x))).mean((2, 3)))


class Apply(nn.Module):
    """A function of the features, and of layers."""

    def __init__(self, function: Callable[..., Tensor], **layers: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, nn.Parameter(layer) if isinstance(layer, Tensor) else layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def conv(inputs: int, outputs: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def shuffled(own: Any, x: Tensor) -> Tensor:
    left, right = x.chunk(2, 1)
    return torch.stack([left, own.branch(right)], 2).flatten(1, 2)


def excited(own: Any, x: Tensor) -> Tensor:
    return x * own.expand(F.relu(own.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()


def attended(own: Any, x: Tensor) -> Tensor:
    values = tokens(x)
    return x + own.attention(values, values, values, need_weights=False)[0].transpose(1, 2).reshape(x.shape)


def split_heads(own: Any, x: Tensor) -> Tensor:
    """Heads of 4 channels, q, k and v from one layer, in the order of Hugging Face's and timm's code."""
    q, k, v = own.qkv(tokens(x)).unflatten(-1, (3, -1, 4)).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT).softmax(-1)
    return x + (weights @ v).transpose(1, 2).flatten(2).transpose(1, 2).reshape(x.shape)


HALF = torch.tensor([0.5])
OPERATIONS: dict[str, Callable[[int], nn.Module]] = {
    "groups": lambda width: conv(width, 2 * width, groups=width // 4),
    "one filter per channel, twice": lambda width: conv(width, 2 * width, groups=width),
    "a transposed convolution": lambda width: nn.ConvTranspose2d(width, width, 2, stride=2, groups=4),
    "shuffled channels": lambda width: Apply(shuffled, branch=conv(width // 2, width // 2)),
    "joined features": lambda width: Apply(lambda own, x: torch.cat([x, own.a(x), x], 1), a=conv(width, width // 2)),
    "a shortcut with zeros": lambda width: Apply(
        lambda own, x: own.wide(x) + F.pad(x, (0, 0, 0, 0, 0, x.shape[1])), wide=conv(width, 2 * width)
    ),
    "a shortcut of some channels": lambda width: Apply(
        lambda own, x: torch.cat([own.wide(x)[:, : x.shape[1]] + x, own.wide(x)[:, x.shape[1] :]], 1),
        wide=conv(width, 2 * width),
    ),
    "shuffled groups": lambda width: nn.Sequential(
        conv(width, width, groups=4), nn.ChannelShuffle(4), conv(width, width, groups=4)
    ),
    "a recurrent layer": lambda width: Apply(
        lambda own, x: own.gru(tokens(x))[0].transpose(1, 2).reshape(x.shape),
        gru=nn.GRU(width, width, batch_first=True),
    ),
    "folded windows": lambda width: Apply(
        lambda own, x: F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1)
    ),
    "sliding windows": lambda width: Apply(lambda own, x: x.unfold(2, 4, 4).amax(-1)),
    "repeated channels": lambda width: Apply(lambda own, x: x.repeat(1, 2, 1, 1)),
    "a number that no module has": lambda width: Apply(lambda own, x: x * HALF + HALF),
    "a cast": lambda width: Apply(lambda own, x: own.a(x).float(), a=conv(width, width)),
    "some places": lambda width: Apply(lambda own, x: x[:, :, ::2, torch.arange(4)]),
    "places by number": lambda width: Apply(lambda own, x: x.index_select(2, torch.arange(4)).roll(1, 2)),
    "a row per place": lambda width: Apply(
        lambda own, x: x + own.rows(torch.arange(4)).amax(0)[:, None, None], rows=nn.Embedding(4, width)
    ),
    "a largest number": lambda width: Apply(lambda own, x: x / x.abs().max() + x.max(2, keepdim=True)[0]),
    "a norm by hand": lambda width: Apply(lambda own, x: x / (torch.var_mean(x, 1, keepdim=True)[0] + 1e-6).sqrt()),
    "keys of another width": lambda width: Apply(
        lambda own, x: (
            x + own.attention(tokens(x), tokens(own.a(x)), tokens(own.a(x)))[0].transpose(1, 2).reshape(x.shape)
        ),
        attention=nn.MultiheadAttention(width, width // 8, kdim=2 * width, vdim=2 * width, batch_first=True),
        a=conv(width, 2 * width),
    ),
    "gates": lambda width: Apply(lambda own, x: F.glu(own.wide(x), 1), wide=conv(width, 2 * width)),
    "squeeze and excitation": lambda width: Apply(
        excited, squeeze=nn.Conv2d(width, width // 4, 1), expand=nn.Conv2d(width // 4, width, 1)
    ),
    "attention of PyTorch": lambda width: Apply(
        attended, attention=nn.MultiheadAttention(width, width // 8, batch_first=True)
    ),
    "attention by hand": lambda width: Apply(split_heads, qkv=nn.Linear(width, 3 * width)),
    "several kernels": lambda width: Apply(
        lambda own, x: torch.cat([conv(part) for conv, part in zip(own.convs, x.split(own.sizes, 1), strict=True)], 1),
        convs=nn.ModuleList([conv(width // 4, width // 4), conv(3 * width // 4, 3 * width // 4)]),
        sizes=[width // 4, 3 * width // 4],
    ),
    "a layer scale": lambda width: Apply(lambda own, x: x + own.a(x) * own.gamma[:, None, None], a=conv(width, width),
                                         gamma=torch.ones(width)),
    "norms": lambda width: nn.Sequential(
        nn.GroupNorm(4, width), nn.GroupNorm(4, width, affine=False), nn.BatchNorm2d(width), nn.PReLU(width)
    ),
    "pools": lambda width: nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Upsample(scale_factor=2)),
    "channels from places": lambda width: nn.PixelUnshuffle(2),
    "places from channels": lambda width: nn.PixelShuffle(2),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("elements", ["uniform", "random"])
def test_each_operation_is_followed(name: str, elements: str) -> None:
    torch.manual_seed(0)
    large, small = Block(32, OPERATIONS[name]), Block(16, OPERATIONS[name])
    plan = plan_selection(large, small, elements=elements, seed=3)
    assert plan.family == "traced" and not plan.doubts
    assert set(plan.skipped) == {"classifier: belongs to the old classes"}
    assert str(plan.check()) == "consistent"


WHOLE: dict[str, Callable[[int], nn.Module]] = {
    "a convolution along channels": lambda width: Apply(
        lambda own, x: x * own.along(x.mean((2, 3)).unsqueeze(1)).sigmoid().mT.unsqueeze(-1),
        along=nn.Conv1d(1, 1, 3, padding=1, bias=False),
    ),
    "rolled": lambda width: Apply(lambda own, x: x.roll(1, 1)),
    "flipped": lambda width: Apply(lambda own, x: x.flip(1)),
    "every other": lambda width: Apply(lambda own, x: x[:, ::2]),
    "by number": lambda width: Apply(lambda own, x: x[:, torch.arange(x.shape[1] - 1, -1, -1)]),
    "a part of a head": lambda width: Apply(lambda own, x: x.unflatten(1, (-1, 4)).flatten(1, 2)[:, :6]),
}


@pytest.mark.parametrize("name", WHOLE)
def test_an_axis_that_is_needed_whole_is_doubted_where_it_gets_narrower(name: str) -> None:
    doubts = plan_selection(Block(32, WHOLE[name]), Block(16, WHOLE[name])).doubts
    assert any("is needed whole" in doubt and "stem" in doubt for doubt in doubts)
    assert not plan_selection(Block(32, WHOLE[name]), Block(32, WHOLE[name])).doubts


def test_layers_over_places_are_left_where_images_differ_in_size() -> None:
    def network(width: int, side: int) -> nn.Module:
        mix = Apply(lambda own, x: x + own.mix(x.flatten(2)).reshape(x.shape), mix=nn.Linear(side**2, side**2))
        return nn.Sequential(conv(3, width), mix)

    plan = plan_selection(network(8, 16), network(4, 32), family="traced")
    assert plan.skipped["other form: 1024x1024 here, 256x256 in the large network"] == ["1.mix.weight"]


def test_layers_of_another_rank_are_left() -> None:
    line = Apply(lambda own, x: own.a(x.flatten(2))[..., None], a=nn.Conv1d(8, 8, 3))
    one, other = (
        nn.Sequential(conv(3, 8), line),
        nn.Sequential(conv(3, 8), Apply(lambda own, x: own.a(x), a=conv(8, 8))),
    )
    skipped = plan_selection(one, other, family="traced").skipped
    assert any("1.a.weight" in names for names in skipped.values())


def test_the_strongest_channels_of_a_dense_layer_are_kept_wherever_it_is_read() -> None:
    torch.manual_seed(0)
    large, small = DenseNet(2, 1, 2, 16, 8, (4, 3)), DenseNet(2, 1, 2, 8, 4, (2, 3))
    for family in (None, "traced"):
        plan = plan_selection(large, small, elements="importance", family=family)
        assert plan.check().consistent
    with torch.no_grad():
        large.features.denseblock1.denselayer1.layers.conv2.weight[5] *= 100
    kept = plan_selection(large, small, elements="importance", family="traced").axes
    assert 5 in kept["features.denseblock1.denselayer1.layers.conv2"]


def test_volumes_take_kernels_of_images_that_pad_by_themselves() -> None:
    def network(width: int, layer: type[nn.Module], ends: tuple[int, ...]) -> nn.Module:
        blocks = layer(1, width, 3, padding="same"), Apply(lambda own, x: F.pad(x, ends)), layer(width, width, 3)
        return nn.Sequential(*blocks, nn.Flatten(2), Apply(lambda own, x: own.a(x.amax(2)), a=nn.Linear(width, 2)))

    plan = plan_selection(network(8, nn.Conv2d, (1,) * 4), network(4, nn.Conv3d, (1,) * 6))
    assert plan.family == "traced" and plan.check().consistent


def test_layers_that_one_network_lacks_are_doubted() -> None:
    plain, excitation = (lambda width: conv(width, width)), OPERATIONS["squeeze and excitation"]
    doubts = plan_selection(Block(32, plain), Block(16, excitation)).doubts
    assert any(doubt.startswith("the large network has no operation.squeeze.weight") for doubt in doubts)
    assert any(doubt.startswith("the small network has no operation.weight") for doubt in doubts)


def test_an_addition_that_the_large_network_lacks_is_doubted() -> None:
    def network(width: int, *, skip: bool) -> nn.Module:
        return Block(width, lambda n: Apply(lambda own, x: own.a(x) + x if skip else own.a(x), a=conv(n, n)))

    plan = plan_selection(network(32, skip=False), network(16, skip=True))
    assert "adds stem and operation.a, which the large one keeps apart" in plan.doubts[0]
    assert plan.check().verdict == "inconsistent"


VIT = {"embed_dim": 64, "num_heads": 4, "depth": 2}, {"embed_dim": 32, "num_heads": 2, "depth": 1}
TIMM = {
    "densenet": (
        "densenet121",
        {"growth_rate": 8, "block_config": (3, 3, 2, 2)},
        {"growth_rate": 4, "block_config": (2, 3, 1, 2)},
    ),
    "swin, fewer heads": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 32, "num_heads": (2, 4, 8, 16), "depths": (1, 1, 2, 1)},
        {"embed_dim": 16, "num_heads": (1, 2, 4, 8), "depths": (1, 1, 2, 1)},
    ),
    "beit": ("beit_base_patch16_224", *VIT),
    "eva": ("eva02_tiny_patch14_224", *VIT),
    "siglip": ("vit_base_patch16_siglip_224", *VIT),
    "cait": ("cait_xxs24_224", *VIT),
    "xcit": ("xcit_nano_12_p16_224", *VIT),
}
CLASSIFIERS = {f"{name}.{leaf}" for name in ("head", "head.fc", "classifier") for leaf in ("weight", "bias")}


@pytest.mark.parametrize("name", TIMM)
def test_what_an_image_shows_of_a_network_of_timm_is_consistent_and_what_a_table_says(name: str) -> None:
    model, wide, narrow = TIMM[name]
    torch.manual_seed(0)
    large, small = (timm.create_model(model, num_classes=3, **sizes) for sizes in (wide, narrow))
    plan = plan_selection(large, small, elements="random", family="traced")
    assert plan.family == "traced" and not plan.doubts
    assert {part for parts in plan.skipped.values() for part in parts} <= CLASSIFIERS
    assert plan.check().verdict == "consistent"
    found, expected = (plan_selection(large, small, family=way).apply(tagged(large)) for way in ("traced", None))
    assert all(torch.equal(value, expected[tensor]) for tensor, value in found.items()) and len(found) == len(expected)


def test_an_operation_that_is_not_known_is_said_and_sizes_decide(caplog: pytest.LogCaptureFixture) -> None:
    def fourier(width: int) -> nn.Module:
        return Apply(lambda own, x: torch.fft.rfft(own.a(x), dim=1).real, a=conv(width, width))

    large, small = Block(16, fourier), Block(8, fourier)
    with pytest.raises(NotFollowed, match=r"the operation _fft_r2c isn't known"):
        trace(large)
    with caplog.at_level(logging.WARNING):
        plan = plan_selection(large, small)
    assert plan.family == "generic" and not plan.verified
    assert "by size alone: the networks can't be followed, since the operation _fft_r2c isn't known" in caplog.text


def test_a_network_that_takes_no_usual_image_is_said() -> None:
    with pytest.raises(NotFollowed, match=r"doesn't run on an image of \(5, 64, 64\).*same reduction dim"):
        trace(nn.Sequential(nn.Conv2d(5, 4, 3), nn.Flatten(), nn.Linear(7, 2)))


def test_following_changes_nothing_and_copies_no_weights() -> None:
    network = Block(16, OPERATIONS["norms"]).train()
    before = {name: (value.data_ptr(), value.clone()) for name, value in network.state_dict().items()}
    found = trace(network)
    assert found.image == (3, 64, 64) and found.classifier == {"head.weight", "head.bias"}
    after = network.state_dict()
    assert network.training and all(after[name].data_ptr() == pointer for name, (pointer, _) in before.items())
    assert all(torch.equal(after[name], value) for name, (_, value) in before.items())


def test_layer_rules_need_blocks_of_one_form() -> None:
    network = Block(16, OPERATIONS["norms"])
    with pytest.raises(SelectionError, match="needs repeated blocks of one form"):
        plan_selection(network, network, layers="last")
    large, small = (
        timm.create_model("xcit_nano_12_p16_224", embed_dim=16, num_heads=2, depth=depth) for depth in (4, 2)
    )
    found = {row.name: row.source for row in plan_selection(large, small, layers="last").report()}
    assert found["blocks.0.attn.qkv.weight"] == "blocks.2.attn.qkv.weight"
    explicit = {row.name: row.source for row in plan_selection(large, small, layers=[0, 3]).report()}
    assert explicit["blocks.1.attn.qkv.weight"] == "blocks.3.attn.qkv.weight"


@pytest.mark.parametrize("layers", ["first", "last", "even"])
def test_blocks_that_a_layer_rule_leaves_out_are_no_doubt(layers: str) -> None:
    class Block(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return x + super().forward(x)

    def network(width: int, depth: int) -> nn.Module:
        blocks = (Block(nn.Conv2d(width, width, 3, groups=2, padding=1), nn.ReLU()) for _ in range(depth))
        return nn.Sequential(nn.Conv2d(1, width, 3), nn.Sequential(*blocks))

    plan = plan_selection(network(8, 4), network(4, 2), layers=layers)
    assert plan.family == "traced" and plan.doubts == [] and plan.check().consistent


def test_a_network_of_one_image_size_needs_it_once() -> None:
    def network(width: int) -> nn.Module:
        layers = nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), conv(width, width), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(width * 20 * 12, 3))

    large, small = network(8), network(4)
    assert plan_selection(large, small).family == "generic"
    plan = plan_selection(large, small, image_size=(20, 12))
    assert plan.family == "traced" and plan.check().consistent and plan.verified
