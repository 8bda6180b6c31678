# SPDX-License-Identifier: Apache-2.0
"""Whole networks: identity, exact cases, the published rule, reports, errors."""

from __future__ import annotations

import csv
import doctest
import logging
import math
import re
import time
from collections.abc import Callable

import pytest
import timm
import torch
from timm.models.hiera import Hiera
from tiny_networks import FAMILIES, bottleneck, convnext, lite, monai_vit, resnet, vit
from torch import Tensor, nn

from dual_skd.selection import ELEMENT_RULES, SelectionError, plan_selection, select_weights

NETWORKS = pytest.mark.parametrize("build", FAMILIES.values(), ids=FAMILIES.keys())


def seeded(network: nn.Module, seed: int = 0) -> nn.Module:
    """Every tensor random (norms and running statistics too), so that a mistake shows; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            fan_in = math.prod(value.shape[1:]) or 1
            value.copy_(
                noise + 0.5 if value.dim() == 1 and "bias" not in name else (noise - 0.5) * 3 / math.sqrt(fan_in)
            )
            if name.endswith("running_var"):
                value.copy_(noise + 0.5)
    return network.eval()


def images(build: Callable, channels: int = 3) -> Tensor:
    spatial = 3 if any(value.dim() == 5 for value in build().state_dict().values()) else 2
    side = 32 if build in (FAMILIES["convnext"], FAMILIES["convnext_v2"]) else 16  # ConvNeXt halves it five times
    return torch.randn(2, channels, *(side,) * spatial, generator=torch.Generator().manual_seed(3))


def classifier(network: nn.Module) -> list[str]:
    words = ("head.", "fc.", "classifier.", "classification_head.")
    return [name for name in network.state_dict() if name.startswith(words) and not name.startswith("head.norm")]


@NETWORKS
def test_equal_networks_get_bit_equal_weights_but_for_the_classifier(build: Callable) -> None:
    large, small = seeded(build(1), 1), seeded(build(1), 2)
    for rule in ELEMENT_RULES:
        for layers in ("first", "last", "even"):
            plan = plan_selection(large, small, elements=rule, layers=layers)
            selected, source = plan.apply(), large.state_dict()
            assert plan.verified
            assert all(torch.equal(selected[name], source[name]) for name in selected)
            assert set(source) - set(selected) == set(classifier(large))


@NETWORKS
@pytest.mark.parametrize("elements", ELEMENT_RULES)
def test_the_selected_network_runs(build: Callable, elements: str) -> None:
    large, small = seeded(build(2, 3)), build(1, 2, image=1, classes=5).eval()
    assert select_weights(large, small, elements=elements, layers="last").verified
    logits = small(images(build, 1))
    assert logits.shape == (2, 5)
    assert bool(logits.isfinite().all())


def widen(small: nn.Module, large: nn.Module, share: tuple[float, float]) -> None:
    """Fills ``large``, twice as wide, with ``small``: each channel (head, hidden unit) has a copy right after it.

    A layer that sums over such an axis weights original and copy by ``share``, whose sum is 1. What is doubled follows
    from the shapes; only an attention's rows and columns are known to be (qkv, head, channel) with the head doubled.
    """
    heads = {path: module.num_heads for path, module in small.named_modules() if hasattr(module, "num_heads")}
    target = large.state_dict()
    for name, value in small.state_dict().items():
        wanted = target[name].shape
        attention = heads.get(re.sub(r"\.(qkv|proj|out_proj)\.\w+$", "", name))
        for dim in range(value.dim()):
            if wanted[dim] == value.shape[dim]:
                continue
            assert wanted[dim] == 2 * value.shape[dim]
            count = value.shape[dim]
            if attention and "qkv" in name and dim == 0:
                value = value.unflatten(0, (3, attention, -1)).repeat_interleave(2, 1).flatten(0, 2)
            elif attention and "proj.weight" in name and dim == 1:
                parts = value.unflatten(1, (attention, -1))
                value = torch.stack([parts * share[0], parts * share[1]], 2).flatten(1, 3)
            else:
                sums_over_it = value.dim() > 1 and dim == 1 and not name.endswith(("token", "pos_embed", "embeddings"))
                first, second = share if sums_over_it else (1, 1)
                value = torch.stack([value * first, value * second], dim + 1).flatten(dim, dim + 1)
            assert value.shape[dim] == 2 * count
        target[name].copy_(value)


@NETWORKS
@pytest.mark.parametrize(("share", "elements"), [((1.0, 0.0), "uniform"), ((0.0, 1.0), "complement")])
def test_a_parent_of_duplicated_channels_is_reproduced_exactly(
    build: Callable, share: tuple[float, float], elements: str
) -> None:
    original, large, small = seeded(build(1), 1).double(), build(2).double().eval(), seeded(build(1), 2).double()
    widen(original, large, share)
    inputs = images(build).double()
    expected = large(inputs)
    torch.testing.assert_close(expected, original(inputs))  # the construction is right
    assert select_weights(large, small, elements=elements).verified
    for name in classifier(small):
        small.state_dict()[name].copy_(original.state_dict()[name])
    torch.testing.assert_close(small(inputs), expected)


def test_a_volume_of_constant_depth_gives_the_output_of_the_image() -> None:
    """Depth padding would end the constancy: circular padding makes the statement exact."""
    large, small = seeded(resnet()).double(), resnet(spatial=3).double().eval()
    for module in [*large.modules(), *small.modules()]:
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            module.padding_mode = "circular"
            module._reversed_padding_repeated_twice = [p for p in reversed(module.padding) for _ in range(2)]
    report = select_weights(large, small)
    assert report.verified
    for name in classifier(small):
        small.state_dict()[name].copy_(large.state_dict()[name])
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(small(image.unsqueeze(-1).expand(-1, -1, -1, -1, 32)), large(image))


def test_a_volumetric_vit_embeds_a_constant_volume_like_the_image() -> None:
    large, small = seeded(monai_vit()), monai_vit(spatial=3, image=1).eval()
    select_weights(large, small)
    grey = torch.randn(1, 1, 16, 16)
    tokens = small.patch_embedding(grey.unsqueeze(-1).expand(-1, -1, -1, -1, 16)).unflatten(1, (4, 4, 4))
    expected = large.patch_embedding(grey.expand(-1, 3, -1, -1)).unflatten(1, (4, 4))
    torch.testing.assert_close(tokens, expected.unsqueeze(3).expand(-1, -1, -1, 4, -1), atol=1e-5, rtol=1e-4)


def test_a_timm_vit_fits_into_monai_s_with_its_class_position() -> None:
    large = seeded(vit(init_values=None, qkv_bias=False, mlp_ratio=2))
    small = monai_vit().eval()
    select_weights(large, small)
    for name, source in (("weight", large.head.weight), ("bias", large.head.bias)):
        getattr(small.classification_head, name).data.copy_(source.data)
    for norm in [module for module in small.modules() if isinstance(module, nn.LayerNorm)]:
        norm.eps = 1e-6  # timm's
    inputs = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(small(inputs), large(inputs), atol=1e-5, rtol=1e-4)


def published(weight: Tensor, shape: torch.Size) -> Tensor:
    """The published element selection, restated: every dimension by itself."""
    for dim, (large, small) in enumerate(zip(weight.shape, shape, strict=True)):
        if large % small == 0:
            index = torch.arange(0, large, large // small)
        else:
            index = torch.linspace(0, large - 1, small).round().long()
        weight = weight.index_select(dim, index)
    return weight


@pytest.mark.parametrize("build", [vit, convnext, lite, bottleneck], ids=["vit", "convnext", "efficientnet", "resnet"])
@pytest.mark.parametrize("scale", [2, 3])
def test_reference_mode_equals_the_published_formula(build: Callable, scale: int) -> None:
    large, small = seeded(build(scale, 3)), seeded(build(2, 2))
    plan = plan_selection(large, small, mode="reference")
    selected, source = plan.apply(), large.state_dict()
    skipped = {name for name in small.state_dict() if "head" in name} | set(classifier(small))
    assert set(selected) == set(small.state_dict()) - skipped
    assert all(torch.equal(value, published(source[name], value.shape)) for name, value in selected.items())
    assert not plan.verified


def test_reference_mode_mixes_q_k_and_v_where_ours_does_not() -> None:
    """Ratio 4/3 on 3 heads of 4: the published rule takes other channels for Q than for K."""
    large, small = vit(embed_dim=16, num_heads=4), vit(embed_dim=12, num_heads=3)
    for mode, expected in (("reference", False), ("structured", True)):
        marked = {name: value.clone() for name, value in large.state_dict().items()}
        name = "blocks.0.attn.qkv.bias"
        marked[name] = torch.arange(48.0)
        plan = plan_selection(marked, small, mode=mode, large_heads=4)
        query, key, value = plan.apply()[name].reshape(3, 12) % 16
        assert bool((query == key).all() and (key == value).all()) is expected


def test_whole_heads_are_kept() -> None:
    large, small = vit(embed_dim=24, num_heads=6), vit(embed_dim=12, num_heads=3)
    axes = plan_selection(large, small).axes
    assert axes["blocks.1.head"] == [0, 2, 4]
    assert axes["blocks.1.head_dim"] == [0, 1, 2, 3]


def test_a_hiera_is_no_vit() -> None:
    large, small = (
        Hiera(img_size=(64, 64), num_classes=2, embed_dim=width, num_heads=2, stages=(1, 1, 1, 1)) for width in (32, 16)
    )
    plan = plan_selection(large, small)
    kept = {row.name: row.kept for row in plan.report()}
    heads = [list(kept[f"blocks.{block}.attn.qkv.weight"].items())[1] for block in range(4)]
    assert [len(indices) for _, indices in heads] == [2, 4, 8, 16]
    assert all(axis in kept[f"blocks.{block}.attn.proj.weight"] for block, (axis, _) in enumerate(heads))
    assert set(plan.apply()) == {name for name in small.state_dict() if not name.startswith("head.fc.")}
    select_weights(large, small)
    assert small(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


def test_more_heads_than_the_large_network_has_are_refused() -> None:
    large, small = vit(embed_dim=24, num_heads=2), vit(embed_dim=12, num_heads=4)
    with pytest.raises(SelectionError, match="give the small network at most as many heads"):
        plan_selection(large, small)


def test_state_dicts_are_read_as_heads_of_64_unless_told() -> None:
    large, small = vit(embed_dim=192, num_heads=3), vit(embed_dim=64, num_heads=1)
    told = plan_selection(large, small).axes
    assert plan_selection(large.state_dict(), small.state_dict()).axes == told
    narrow = vit(embed_dim=24, num_heads=3).state_dict()
    with pytest.raises(SelectionError, match="24 attention channels aren't a multiple of 64.*give large_heads"):
        plan_selection(narrow, vit(embed_dim=12, num_heads=2))


def test_importance_keeps_the_channels_of_the_largest_norm() -> None:
    large, small = seeded(resnet(2)), resnet(1)
    state = large.state_dict()
    strong = [1, 4, 6, 7]
    for channel in strong:
        state["layer1.0.conv1.weight"][channel] *= 10
    state["layer1.0.bn1.running_var"][0] = 1e9  # statistics say nothing about strength
    assert plan_selection(large, small, elements="importance").axes["layer1.0.mid1"] == strong


def test_complement_and_uniform_cover_the_parent_at_ratio_two() -> None:
    large, small = vit(2), vit(1)
    uniform, complement = (plan_selection(large, small, elements=rule).axes for rule in ("uniform", "complement"))
    sizes = {"embed": 24, "blocks.0.mlp": 96, "blocks.1.head": 4}
    for axis, size in sizes.items():
        assert sorted(uniform[axis] + complement[axis]) == list(range(size))


@pytest.mark.parametrize(
    ("layers", "blocks"), [("first", [0, 1]), ("last", [3, 4]), ("even", [0, 4]), ([4, 1], [4, 1])]
)
def test_blocks_come_from_the_layers_asked_for(layers: str | list[int], blocks: list[int]) -> None:
    rows = {row.name: row for row in plan_selection(vit(2, 5), vit(1, 2), layers=layers).report()}
    assert [rows[f"blocks.{i}.norm1.weight"].source for i in range(2)] == [f"blocks.{b}.norm1.weight" for b in blocks]


def test_staged_networks_take_a_list_of_layers_per_stage() -> None:
    large, small = convnext(2, 4), convnext(1, 2)
    for layers in ([[0], [0], [1, 3], [0]], {2: [1, 3]}):
        rows = {row.name: row for row in plan_selection(large, small, layers=layers).report()}
        assert rows["stages.2.blocks.1.gamma"].source == "stages.2.blocks.3.gamma"
    with pytest.raises(SelectionError, match="one list of blocks for each of the 4 stages"):
        plan_selection(large, small, layers=[1, 3])
    with pytest.raises(SelectionError, match="layers names stages"):
        plan_selection(large, small, layers={7: [0]})


@pytest.mark.parametrize("layers", [[[0, 2]], {"0": [0, 2]}])
def test_a_network_without_stages_takes_one_list_of_layers(layers) -> None:
    with pytest.raises(SelectionError, match=re.escape("no stages; list its blocks alone, as [0, 2, 5]")):
        plan_selection(vit(2, 4), vit(1, 2), layers=layers)


def test_the_hidden_layer_of_a_head_is_selected() -> None:
    large, small = seeded(convnext(2, head_hidden_size=10)), convnext(1, head_hidden_size=5)
    plan = plan_selection(large, small)
    assert plan.verified
    assert {row.name for row in plan.report() if not row.selected} == {"head.fc.weight", "head.fc.bias"}
    hidden = plan.apply()["head.pre_logits.fc.weight"]
    assert torch.equal(hidden, large.head.pre_logits.fc.weight[::2, ::2])


def test_relative_positions_are_resampled_to_another_window() -> None:
    name = "attn.relative_position_bias_table"
    centre = torch.zeros(13 * 13, 4)
    centre[6 * 13 + 6] = torch.arange(1.0, 5.0)  # a token and itself
    rows = torch.cat([centre, torch.arange(12.0).reshape(3, 4)])  # BEiT: three rows of the class token come last
    plan = plan_selection({name: rows}, {name: torch.zeros(11 * 11 + 3, 2)})
    found = plan.apply()[name]
    assert found[:121].argmax(0).tolist() == [60, 60]  # still the centre
    assert torch.equal(found[121:], rows[169:, ::2])
    assert plan.report()[0].note == "relative positions of windows 7x7 -> 6x6"
    plan = plan_selection({name: centre, "b": centre}, {name: torch.zeros(11 * 9, 4), "b": centre})
    assert plan.report()[0].reason == "other window: 99 relative positions here, 169 in the large network"


def test_the_first_block_of_a_strided_stage_stays_first() -> None:
    rows = {row.name: row for row in plan_selection(resnet(2, 4), resnet(1, 2), layers="last").report()}
    assert rows["layer2.0.conv1.weight"].source == "layer2.0.conv1.weight"
    assert rows["layer2.1.conv1.weight"].source == "layer2.3.conv1.weight"


def test_a_deeper_small_network_keeps_its_other_blocks_with_a_reason() -> None:
    small = vit(1, 3)
    before = small.blocks[2].mlp.fc1.weight.clone()
    rows = {row.name: row for row in select_weights(vit(2, 2), small)}
    assert rows["blocks.2.mlp.fc1.weight"].reason == "the large network has only 2 blocks here, none is left"
    assert torch.equal(small.blocks[2].mlp.fc1.weight, before)


def test_a_network_cut_in_depth_leaves_the_head_that_reads_another_stage_alone() -> None:
    large = timm.create_model("tf_efficientnet_lite0", num_classes=2)
    small = timm.create_model("tf_efficientnet_lite0", num_classes=2)
    small.blocks = small.blocks[:5]
    small.conv_head = nn.Conv2d(112, 1280, 1, bias=False)
    plan = plan_selection(large, small)
    left = {row.name: row.reason for row in plan.report() if not row.selected}
    assert left.pop("conv_head.weight") == (
        "the networks end in different stages (stage4 here, stage6 in the large network)"
    )
    assert {left.pop(f"bn2.{leaf}") for leaf in ("weight", "bias", "running_mean", "running_var",
                                                 "num_batches_tracked")} == {
        "belongs to conv_head.weight, which isn't selected"
    }  # fmt: skip
    assert set(left) == {"classifier.weight", "classifier.bias"}
    assert plan.verified
    assert torch.equal(plan.apply()["blocks.4.2.conv_pwl.weight"], large.blocks[4][2].conv_pwl.weight)


def test_a_bottleneck_has_no_basic_blocks_to_give() -> None:
    rows = {row.name: row for row in plan_selection(bottleneck(2), resnet(1)).report()}
    assert rows["conv1.weight"].selected
    assert rows["layer1.0.conv1.weight"].reason == "block of another kind: basic here, bottleneck in the large network"


def test_kernels_of_another_size_are_left_alone_with_a_reason() -> None:
    rows = {row.name: row for row in plan_selection(resnet(2), resnet(1, conv1_t_size=3)).report()}
    assert rows["conv1.weight"].reason == "other kernel: 3x3 here, 7x7 in the large network"


def test_a_bias_that_the_large_network_lacks_is_zero_and_a_missing_layer_scale_one() -> None:
    large, small = seeded(vit(init_values=None, qkv_bias=False)), seeded(vit())
    rows = {row.name: row for row in select_weights(large, small)}
    assert bool((small.blocks[0].attn.qkv.bias == 0).all()) and bool((small.blocks[0].ls1.gamma == 1).all())
    assert rows["blocks.0.ls1.gamma"].note == "absent in the large network, which equals 1"
    inputs = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(small.forward_features(inputs), large.forward_features(inputs))


def test_patches_and_positions_are_resampled() -> None:
    large, small = seeded(vit()), vit(img_size=30, patch_size=6)
    rows = {row.name: row for row in select_weights(large, small)}
    assert rows["patch_embed.proj.weight"].note == "kernel 4x4 -> 6x6"
    assert rows["pos_embed"].note == "positions 4x4 -> 5x5, 1 leading"
    assert torch.equal(small.pos_embed[:, 0], large.pos_embed[:, 0])


def test_apply_copies_and_leaves_the_large_network_as_it_was() -> None:
    large, small = seeded(lite(1)), lite(1)
    before = {name: value.clone() for name, value in large.state_dict().items()}
    selected = plan_selection(large, small).apply()
    for value in selected.values():
        value.zero_()
    assert all(torch.equal(value, before[name]) for name, value in large.state_dict().items())


def test_a_plan_applies_to_other_weights_of_the_same_shapes() -> None:
    large, other, small = seeded(lite(2), 1), seeded(lite(2), 2), lite(1)
    plan = plan_selection(large, small)
    expected = plan_selection(other, small).apply()
    assert all(torch.equal(value, expected[name]) for name, value in plan.apply(other.state_dict()).items())
    with pytest.raises(SelectionError, match="planned for shape"):
        plan.apply(lite(1).state_dict())
    with pytest.raises(SelectionError, match="lack 'conv_stem.weight'"):
        plan.apply({})


def test_normalisation_statistics_and_counters_are_taken_over() -> None:
    large, small = seeded(resnet(2)), resnet(1)
    large.bn1.num_batches_tracked.fill_(7)
    select_weights(large, small)
    assert torch.equal(small.bn1.running_var, large.bn1.running_var[::2])
    assert small.bn1.num_batches_tracked.item() == 7


def test_half_precision_is_kept_in_the_copies_and_cast_when_loaded() -> None:
    large, small = seeded(vit(2)).half(), vit(1)
    plan = plan_selection(large, small)
    assert plan.apply()["norm.weight"].dtype == torch.float16
    select_weights(large, small)
    assert small.norm.weight.dtype == torch.float32


def test_the_report_tells_source_indices_and_share_of_the_norm(tmp_path) -> None:
    large, small = seeded(resnet(2)), resnet(1)
    plan = plan_selection(large, small)
    row = next(row for row in plan.report() if row.name == "layer2.0.conv2.weight")
    source = large.layer2[0].conv2.weight
    assert row.kept == {"stage2": [0, 2, 4, 6, 8, 10], "layer2.0.mid1": [0, 2, 4, 6, 8, 10]}
    assert (row.shape, row.source_shape) == ((6, 6, 3, 3), (12, 12, 3, 3))
    kept = source[::2, ::2].square().sum() / source.square().sum()
    assert row.norm_share == pytest.approx(kept.item(), rel=1e-5)
    assert row.source == "layer2.0.conv2.weight"
    with plan.write_report(tmp_path / "new" / "report.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(small.state_dict())
    line = next(line for line in lines if line["name"] == "layer2.0.conv2.weight")
    assert line["kept"] == '{"stage2": "0:11:2", "layer2.0.mid1": "0:11:2"}'
    assert lines[-1]["reason"] == "classifier: belongs to the old classes"


def test_a_wider_small_network_is_refused_with_layer_shapes_rule_and_remedy() -> None:
    with pytest.raises(SelectionError) as caught:
        plan_selection(resnet(1), resnet(2), elements="consecutive")
    message = str(caught.value)
    for part in ("conv1.weight", "8x3x7x7", "4x3x7x7", "rule 'consecutive'", "axis 'stem'", "narrower"):
        assert part in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"elements": "best"}, "elements='best' is unknown; choose one of uniform"),
        ({"layers": "middle"}, "layers='middle' is unknown"),
        ({"mode": "flat"}, "mode='flat' is unknown; choose one of structured, reference"),
        ({"family": "vgg"}, "family='vgg' is unknown"),
        ({"large_heads": 5}, "can't be 5 heads; correct large_heads"),
        ({"small_heads": 5}, "can't be 5 heads; correct small_heads"),
    ],
)
def test_unknown_words_are_refused(options: dict, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        plan_selection(vit(2), vit(1), **options)


def test_networks_of_two_families_have_nothing_in_common() -> None:
    with pytest.raises(SelectionError, match="nothing can be selected.*take both from one family"):
        plan_selection(vit(2), convnext(1))


def test_something_else_than_weights_is_refused() -> None:
    with pytest.raises(SelectionError, match="expected a module or a state dict of tensors, got str"):
        plan_selection("vit", vit(1))


def test_weights_of_an_unknown_network_follow_sizes_and_say_so(caplog) -> None:
    large = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3))
    small = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3))
    with caplog.at_level(logging.WARNING):
        report = select_weights(large.state_dict(), small)
    assert not report.verified
    assert "not verified" in caplog.text
    torch.testing.assert_close(small[0].weight, large[0].weight[::2].sum(1, keepdim=True))
    assert torch.equal(small[2].weight, large[2].weight[::2, ::2])
    with pytest.raises(SelectionError, match="needs a known family"):
        plan_selection(large.state_dict(), small, layers="last")


def reasons(large: nn.Module, small: nn.Module, **options) -> dict[str, str]:
    return {row.name: row.reason for row in plan_selection(large, small, **options).report()}


def test_the_published_rule_on_a_network_without_a_table_takes_each_tensor_by_itself() -> None:
    large, small = seeded(vit(2)), seeded(vit(1))
    found = reasons(large, small, family="generic", mode="reference")
    assert found["blocks.0.attn.qkv.weight"] == "" and found["head.weight"].startswith("classifier")
    extra = {**small.state_dict(), "overhead": torch.zeros(2)}
    assert (
        reasons({**large.state_dict(), "overhead": torch.zeros(4)}, extra, family="generic", mode="reference")[
            "overhead"
        ]
        == "the published code skips names with 'head'"
    )
    plan = plan_selection(large, small, family="generic", mode="reference")
    source = large.state_dict()
    assert all(torch.equal(value, published(source[name], value.shape)) for name, value in plan.apply().items())


def test_a_family_can_be_named() -> None:
    assert plan_selection(resnet(2), resnet(1), family="resnet").verified


def test_tensors_of_another_form_are_left_with_the_reason() -> None:
    large = {"a": torch.zeros(8), "b": torch.zeros(8, 4, 5, 5), "c": torch.zeros(8, 4), "d": torch.zeros(4, 4)}
    small = {"a": torch.zeros(4, 2), "b": torch.zeros(4, 2, 3, 3), "c": torch.zeros(4, 2), "e": torch.zeros(2, 2)}
    assert reasons(large, small) == {
        "a": "other form: 4x2 here, 8 in the large network",
        "b": "other kernel: 3x3 here, 5x5 in the large network",
        "c": "",
        "e": "the large network has no such tensor",
    }
    deeper = {"b": torch.zeros(8, 4, 5, 5, 5), "c": torch.zeros(8, 4)}
    in_reference = reasons(deeper, {name: small[name] for name in "bc"}, mode="reference")
    assert in_reference == {"b": "other kernel: 3x3 here, 5x5x5 in the large network", "c": ""}


def test_a_tensor_that_the_family_does_not_know_is_copied_whole_or_refused() -> None:
    large, small = resnet(2).state_dict(), resnet(1).state_dict()
    large["gate"], small["gate"] = torch.arange(8.0), torch.zeros(8)
    plan = plan_selection(large, small)
    assert plan.verified and torch.equal(plan.apply()["gate"], large["gate"])
    small["gate"] = torch.zeros(4)
    with pytest.raises(SelectionError, match=r"gate: the table of family 'resnet' doesn't have .* \(4 from 8\)"):
        plan_selection(large, small)
    plan = plan_selection(large, small, family="generic")
    assert not plan.verified and torch.equal(plan.apply()["gate"], torch.tensor([0.0, 2.0, 4.0, 6.0]))


def test_an_unknown_tensor_of_a_block_comes_from_the_block_that_gives_the_others() -> None:
    large, small = vit(1, 3).state_dict(), vit(1, 1).state_dict()
    large |= {f"blocks.{block}.gate": torch.full((2,), float(block)) for block in range(3)}
    small["blocks.0.gate"] = torch.zeros(2)
    plan = plan_selection(large, small, layers="last", large_heads=2, small_heads=2)
    assert plan.apply()["blocks.0.gate"].tolist() == [2.0, 2.0]


def test_weights_without_values_have_no_norm_and_give_no_importance() -> None:
    with torch.device("meta"):
        large = resnet(2)
    report = plan_selection(large, resnet(1)).report()
    assert {row.norm_share for row in report} == {None} and report[0].selected
    with pytest.raises(SelectionError, match="needs the large network's values, not only shapes"):
        plan_selection(large, resnet(1), elements="importance")


def test_the_table_shows_kept_indices_as_a_range_where_they_are_evenly_spaced(tmp_path) -> None:
    large = seeded(resnet(2))
    kept = {}
    for rule in ("uniform", "random"):
        report = plan_selection(large, resnet(1), elements=rule, seed=1).report()
        with report.write(tmp_path / rule).open() as file:
            kept[rule] = next(csv.DictReader(file))["kept"]
    assert '"stem": "0:7:2"' in kept["uniform"]
    assert re.search(r'"stem": \[\d, \d, \d, \d\]', kept["random"])


def test_the_example_in_the_documentation_runs() -> None:
    from dual_skd.selection import plan

    assert doctest.testmod(plan).failed == 0


def test_vit_large_to_tiny_takes_under_a_second_and_little_memory() -> None:
    with torch.device("meta"):
        large = timm.create_model("vit_large_patch16_224").state_dict()
        small = timm.create_model("vit_tiny_patch16_224").state_dict()
    large = {name: torch.zeros(()).expand(value.shape) for name, value in large.items()}  # no gigabyte for a test
    seconds = []
    for _ in range(3):
        start = time.process_time()
        selected = plan_selection(large, small).apply()
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1
    size = sum(value.untyped_storage().nbytes() for value in selected.values())
    assert size < 0.05 * sum(value.nbytes for value in large.values())
