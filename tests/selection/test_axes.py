# SPDX-License-Identifier: Apache-2.0
"""Every axis keeps one index set in all tensors of a network, whatever the sizes: read back from selected values."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise

import pytest
import timm
import torch
import wiring
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from monai.networks import nets
from torch import nn
from torchvision.models import DenseNet
from wiring import Wiring, kept_indices

from dual_skd.selection import ELEMENT_RULES, LAYER_RULES, SelectionPlan, plan_selection
from dual_skd.selection.axes import describe, find_family
from dual_skd.selection.families import FAMILIES, Family
from dual_skd.selection.view import view_of

EXAMPLES = settings(
    max_examples=90,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)
LARGE_SPATIAL_SMALL = st.sampled_from([(2, 2), (3, 3), (2, 3)])


def shrunk(draw: st.DrawFn, low: int = 1, high: int = 24) -> tuple[int, int]:
    """(large, small) sizes of an axis."""
    large = draw(st.integers(low, high))
    return large, draw(st.integers(low, large))


def shrunk_list(draw: st.DrawFn, count: int, low: int = 1, high: int = 24) -> tuple[list[int], list[int]]:
    pairs = [shrunk(draw, low, high) for _ in range(count)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def assert_consistent(large: Wiring, small: Wiring, draw: st.DrawFn, spatial: tuple[int, int]) -> None:
    elements, layers = draw(st.sampled_from(ELEMENT_RULES)), draw(st.sampled_from(LAYER_RULES))
    heads = {word: net.sizes.get("head0") for word, net in (("large_heads", large), ("small_heads", small))}
    plan = plan_selection(large.state(), small.state(), elements=elements, layers=layers, seed=7, **heads)
    assert plan.verified
    selected = plan.apply()
    assert set(selected) == set(small.dims), "a tensor was left out"
    rows = {row.name: row for row in plan.report()}
    kept = defaultdict(set)
    for name, dims in small.dims.items():
        assert tuple(selected[name].shape) == rows[name].shape
        kernel = small.kernels[name]
        depth = kernel[-1] if spatial == (2, 3) and kernel else 1
        if name.endswith(("pos_embed", "position_embeddings")):
            continue  # resampled where grids differ: see test_resample
        if rows[name].source is None:
            assert name.endswith("downsample.0.bias")
            continue
        names = [part for dim in dims for part in (dim if isinstance(dim, tuple) else (dim,)) if isinstance(part, str)]
        found = kept_indices(large, rows[name].source, selected[name], depth)
        for axis, (_, indices) in zip(names, found, strict=True):
            assert len(indices) == small.sizes[axis]
            kept[axis].add(tuple(indices))
    inconsistent = {axis: sets for axis, sets in kept.items() if len(sets) != 1}
    assert not inconsistent


@EXAMPLES
@given(st.data())
def test_a_vit_keeps_one_index_set_per_axis(data: st.DataObject) -> None:
    draw, spatial = data.draw, data.draw(LARGE_SPATIAL_SMALL)
    sizes = {name: shrunk(draw, 1, high) for name, high in (("embed", 24), ("heads", 6), ("head_dim", 8), ("mlp", 24))}
    depth, monai = shrunk(draw, 1, 4), draw(st.booleans())
    nets = [
        wiring.vit(**{name: pair[i] for name, pair in sizes.items()}, depth=depth[i], monai=monai, spatial=spatial[i])
        for i in range(2)
    ]
    assert_consistent(*nets, draw, spatial)


@EXAMPLES
@given(st.data())
def test_a_convnext_keeps_one_index_set_per_axis(data: st.DataObject) -> None:
    draw, spatial = data.draw, data.draw(LARGE_SPATIAL_SMALL)
    stages = draw(st.integers(1, 4))
    widths, mlps, depths = (shrunk_list(draw, stages, 1, high) for high in (16, 24, 3))
    nets = [wiring.convnext(widths=widths[i], mlps=mlps[i], depths=depths[i], spatial=spatial[i]) for i in range(2)]
    assert_consistent(*nets, draw, spatial)


@EXAMPLES
@given(st.data())
def test_an_efficientnet_keeps_one_index_set_per_axis(data: st.DataObject) -> None:
    draw, spatial = data.draw, data.draw(LARGE_SPATIAL_SMALL)
    stages = draw(st.integers(2, 4))
    widths, mids, depths = (shrunk_list(draw, stages, 1, high) for high in (12, 24, 3))
    stem, head = shrunk(draw), shrunk(draw)
    streams = pairwise(zip(*([stem[i], *widths[i]] for i in range(2)), strict=True))
    assume(all(a[1] != b[1] or a[0] == b[0] for a, b in streams))  # otherwise: see the next test
    reduced = draw(st.sampled_from([(0, 0), (4, 3), (5, 5)]))
    nets = [
        wiring.efficientnet(
            stem=stem[i], widths=widths[i], mids=mids[i], reduced=reduced[i], depths=depths[i], head=head[i],
            spatial=spatial[i],
        )
        for i in range(2)
    ]  # fmt: skip
    assert_consistent(*nets, draw, spatial)


def test_a_residual_connection_that_only_the_small_network_has_is_not_called_consistent() -> None:
    with torch.device("meta"):
        large, small, other = (timm.create_model(f"mobilenetv3_small_{name}") for name in ("100", "050", "075"))
    assert small.blocks[3][0].has_skip and not large.blocks[3][0].has_skip
    assert not other.blocks[3][0].has_skip
    assert not plan_selection(large, small).verified
    assert not plan_selection(large.state_dict(), small.state_dict()).verified
    assert plan_selection(large.state_dict(), other).verified


def test_equal_streams_without_a_residual_connection_are_consistent() -> None:
    with torch.device("meta"):
        large, small = (timm.create_model("tf_efficientnet_lite0") for _ in range(2))
        small.blocks = small.blocks[:2]
        small.blocks[1][0].conv_pwl, small.blocks[1][0].bn3 = nn.Conv2d(96, 16, 1, bias=False), nn.BatchNorm2d(16)
        small.blocks[1] = small.blocks[1][:1]
    assert plan_selection(large, small).verified  # the stride is 2
    assert not plan_selection(large, small.state_dict()).verified


@EXAMPLES
@given(st.data())
def test_a_resnet_keeps_one_index_set_per_axis(data: st.DataObject) -> None:
    draw, spatial, bottleneck = data.draw, data.draw(LARGE_SPATIAL_SMALL), data.draw(st.booleans())
    stages = draw(st.integers(1, 4))
    widths, mids, depths = (shrunk_list(draw, stages, 2, high) for high in (16, 24, 3))
    stem = shrunk(draw, 2, 16)
    if draw(st.booleans()):  # as in ResNet-18: no projection in the first stage
        stem = (widths[0][0], widths[1][0])
    nets = [
        wiring.resnet(
            stem=stem[i], widths=widths[i], mids=mids[i], depths=depths[i], bottleneck=bottleneck, spatial=spatial[i]
        )
        for i in range(2)
    ]
    has_projection = ["layer1.0.downsample.0.weight" in net.dims for net in nets]
    assume(has_projection[0] == has_projection[1])  # otherwise: the next test
    assert_consistent(*nets, draw, spatial)


def test_a_resnet_that_drops_a_projection_is_not_called_consistent() -> None:
    sizes = {"mids": [4], "depths": [1], "bottleneck": False, "spatial": 2}
    large = wiring.resnet(stem=8, widths=[6], **sizes)
    small = wiring.resnet(stem=3, widths=[3], **sizes)
    assert not plan_selection(large.state(), small.state()).verified


def test_every_tensor_of_the_real_networks_is_in_a_table() -> None:
    with torch.device("meta"):
        cases = {
            "efficientnet": [timm.create_model(name) for name in (
                "tf_efficientnet_lite2", "efficientnet_b0", "tf_efficientnetv2_b0", "mobilenetv3_small_100")],
            "convnext": [timm.create_model(name) for name in ("convnext_tiny", "convnextv2_atto")],
            "vit": [
                *(timm.create_model(name, depth=2) for name in (
                    "vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2")),
                nets.ViT(1, (16, 16, 16), 8, hidden_size=12, mlp_dim=12, num_layers=2, num_heads=2),
            ],
            "resnet": [
                *(timm.create_model(name) for name in ("resnet18", "resnet50", "resnet18d")),
                nets.resnet18(spatial_dims=3, n_input_channels=1), nets.resnet50(spatial_dims=2),
            ],
        }  # fmt: skip
    for family, networks in cases.items():
        for network in networks:
            shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
            assert find_family(list(shapes)).name == family
            assert set(describe(FAMILIES[family], shapes).unknown) <= view_of(network).classifier


LATER_VITS = {  # what its table has to know beside a plain ViT, on tiny networks
    "beit_base_patch16_224": 16, "beitv2_base_patch16_224": 16, "eva02_small_patch14_224": 14,
    "eva02_base_patch14_224": 14, "vit_base_patch16_rope_reg1_gap_256": 16, "vit_base_patch16_dinov3": 16,
    "vit_small_plus_patch16_dinov3": 16, "vit_base_patch16_siglip_224": 16, "deit_small_distilled_patch16_224": 16,
    "cait_xxs24_224": 16, "vit_relpos_small_patch16_224": 16, "vit_giant_patch14_dinov2": 14,
    "aimv2_large_patch14_224": 14,
}  # fmt: skip


@pytest.mark.parametrize("name", LATER_VITS)
def test_later_vits_keep_one_index_set_per_axis(name: str) -> None:
    size = {"img_size": 2 * LATER_VITS[name], "num_classes": 2}
    large, small = (
        timm.create_model(name, embed_dim=8 * heads, num_heads=heads, depth=depth, **size)
        for heads, depth in ((6, 3), (3, 2))
    )
    plan = plan_selection(
        large.state_dict(), small.state_dict(), elements="random", layers="last", large_heads=6, small_heads=3
    )
    assert plan.verified and plan.family == "vit"
    reasons = {reason for reason in plan.skipped if not reason.startswith("classifier")}
    assert reasons <= {"made from the network's sizes, not learned"}
    stays_embedded(large, small, plan, 2 * LATER_VITS[name])


def test_a_swin_v2_with_fewer_heads_is_consistent() -> None:
    large, small = (
        timm.create_model(
            "swinv2_tiny_window8_256", img_size=32, window_size=4, num_classes=2, embed_dim=8 * heads,
            num_heads=(heads, 2 * heads), depths=(depth, depth),
        )
        for heads, depth in ((4, 3), (2, 2))
    )  # fmt: skip
    plan = plan_selection(large.state_dict(), small.state_dict(), elements="random")
    assert plan.verified and plan.family == "swinv2"
    assert len(plan.axes["layers.1.blocks.0.head"]) == 4
    stays_embedded(large, small, plan, 32)


@pytest.mark.parametrize("layers", LAYER_RULES)
@pytest.mark.parametrize("spatial", [2, 3])
def test_what_a_densenet_joins_keeps_its_parts(layers: str, spatial: int) -> None:
    large, small = (
        nets.DenseNet(spatial, 3, 2, init_features=stem, growth_rate=growth, block_config=blocks)
        for stem, growth, blocks in ((12, 7, (3, 4, 3)), (5, 3, (2, 3, 2)))
    )
    plan = plan_selection(large.state_dict(), small.state_dict(), elements="random", layers=layers)
    assert plan.verified and list(plan.skipped.values()) == [["class_layers.out.weight", "class_layers.out.bias"]]
    stays_embedded(large, small, plan, 32)


def test_torchvision_s_densenet_gives_monai_s_its_features() -> None:
    large, small = DenseNet(8, (2, 2), 8, num_classes=2).eval(), nets.DenseNet(2, 3, 2, 8, 8, (2, 2)).eval()
    small.load_state_dict(plan_selection(large, small).apply(), strict=False)
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(large.features(image), small.features(image))


def test_a_densenet_deeper_than_the_large_one_leaves_what_reads_the_new_layers() -> None:
    large, small = (nets.DenseNet(2, 3, 2, 8, *shape).state_dict() for shape in ((4, (2, 2)), (2, (3, 2))))
    reasons = plan_selection(large, small).skipped
    assert "features.transition1.conv.weight" in reasons["the large network has only 2 blocks here, none is left"]


def stays_embedded(large: nn.Module, small: nn.Module, plan: SelectionPlan, size: int) -> None:
    """The large network, zero but for the small one's values at the places that the plan names, gives its features.

    Norms are replaced by scales, because zeros change their statistics; attention has one temperature in both.
    """
    for network in (large, small):
        network.double().eval()
        for module in network.modules():
            if isinstance(module, nn.LayerNorm | timm.layers.RmsNorm):
                module.forward = lambda x, own=module: (
                    x * own.weight + (0 if getattr(own, "bias", None) is None else own.bias)
                )
            if isinstance(getattr(module, "scale", None), float):
                module.scale = 0.5
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
    generator, state = torch.Generator().manual_seed(0), small.state_dict()
    parameters = dict(small.named_parameters())
    for name, value in state.items():
        if name in parameters or name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) - (0.3 if value.dim() > 1 else -0.5))
    flat, places, start = [], {}, 0
    for name, value in large.state_dict().items():
        places[name] = torch.arange(start, start + value.numel()).reshape(value.shape)
        start += value.numel()
        is_kept = name not in dict(large.named_parameters())
        flat.append(value.double().flatten() if is_kept else torch.zeros(value.numel()).double())
    filled = torch.cat(flat)
    for name, place in plan.apply(places).items():
        filled[place.flatten()] = state[name].double().flatten()
    large.load_state_dict({name: filled[place].to(large.state_dict()[name].dtype) for name, place in places.items()})
    image = torch.rand(
        1, 3, *[size] * (2 if next(iter(parameters.values())).dim() < 5 else 3), generator=generator
    ).double()
    found, expected = (classifier_inputs(network, image) for network in (large, small))
    assert expected.abs().max() > 1e-6
    is_found = (expected[:, None] - found[None]).abs() < 1e-8 * expected.abs().max()
    assert is_found.any(1).all()


def classifier_inputs(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    caught = []
    layer = network.get_classifier() if hasattr(network, "get_classifier") else network.class_layers.out
    for each in layer if isinstance(layer, tuple) else [layer]:
        each.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].flatten()))
    with torch.no_grad():
        network(image)
    return torch.cat(caught)


def test_a_wrapper_module_s_prefix_is_stripped() -> None:
    state = wiring.vit(embed=4, heads=2, head_dim=2, mlp=4, depth=1, monai=False, spatial=2).state()
    wrapped = {f"net.{name}": value for name, value in state.items()} | {"classifier.weight": torch.zeros(2, 4)}
    plan = plan_selection(wrapped, state, large_heads=2, small_heads=2)
    assert plan.verified and plan.skipped == {}
    assert {row.name: row.source for row in plan.report()} == {name: f"net.{name}" for name in state}


def test_heads_are_composed_axes_and_blocks_of_stages_are_named_by_path() -> None:
    shapes = {"blocks.0.attn.qkv.weight": (36, 8), "blocks.11.attn.proj.weight": (8, 12)}
    axes = describe(FAMILIES["vit"], shapes)
    assert axes.tensors["blocks.0.attn.qkv.weight"].dims[0] == ("qkv", "blocks.0.head", "blocks.0.head_dim")
    assert axes.depths == {"": 12}


def test_table_rows_name_axes_only_by_known_words() -> None:
    words = re.compile(r"\{(s|b|n|block|in|out|last|before|joined)\}")
    for family in FAMILIES.values():
        rows = [*family.tensors.values(), *(dims for table in family.blocks.values() for dims in table.values())]
        assert all("{" not in words.sub("", dims) for dims in rows)


def test_a_network_with_transformer_blocks_in_several_stages_is_no_vit() -> None:
    names = [f"layers{stage}.0.blocks.0.attn.qkv.weight" for stage in range(4)]  # as in MONAI's Swin
    assert find_family(names) is None
    assert find_family([f"layers.{stage}.blocks.0.attn.qkv.weight" for stage in range(4)]) is FAMILIES["swin"]
    assert find_family(["vit.blocks.0.attn.qkv.weight"]) is FAMILIES["vit"]


def test_a_new_family_is_one_entry_of_the_table(monkeypatch) -> None:
    rows = {"up.weight": "{block}.hidden width", "down.weight": "width {block}.hidden"}
    family = Family(
        "mixer", r"(.*?)mixer\.0\.up\.weight", tensors={}, blocks={("mixer", "up.weight"): rows}, block="mixer.{b}",
        stream="width", stem="width",
    )  # fmt: skip
    monkeypatch.setitem(FAMILIES, family.name, family)
    large, small = (
        {"mixer.0.up.weight": torch.zeros(2 * n, n), "mixer.0.down.weight": torch.zeros(n, 2 * n)} for n in (4, 2)
    )
    plan = plan_selection(large, small)
    assert plan.verified and plan.family == "mixer"
    assert plan.axes == {"mixer.0.hidden": [0, 2, 4, 6], "width": [0, 2]}
