# SPDX-License-Identifier: Apache-2.0
"""Names of other libraries: the weights of one give the features of the other, in every direction."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import timm
import torch
from monai.networks import nets
from timm.models import convnext, eva, swin_transformer, vision_transformer
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig

from dual_skd.errors import SelectionError
from dual_skd.selection import plan_selection
from dual_skd.selection.naming import in_names_of
from dual_skd.selection.view import view_of

HEADS = {"large_heads": 2, "small_heads": 2}
WIDTHS = (8, 16, 24, 32)


def timm_vit(width: int = 16, depth: int = 2, **options) -> nn.Module:
    options = {"mlp_ratio": 1.5, **options}
    return vision_transformer.VisionTransformer(
        32, 8, embed_dim=width, depth=depth, num_heads=2, num_classes=3, **options
    )


def torchvision_vit(width: int = 16, depth: int = 2) -> nn.Module:
    return models.VisionTransformer(32, 8, depth, 2, width, width * 3 // 2, num_classes=3)


def timm_swin(heads: tuple[int, int] = (2, 4), width: int = 16) -> nn.Module:
    return swin_transformer.SwinTransformer(
        32, 4, embed_dim=width, depths=(2, 2), num_heads=heads, window_size=4, num_classes=3
    )


def torchvision_swin(heads: tuple[int, int] = (2, 4), width: int = 16) -> nn.Module:
    return models.SwinTransformer([4, 4], width, [2, 2], list(heads), [4, 4], num_classes=3)


def timm_convnext(depth: int = 2, **options) -> nn.Module:
    return convnext.ConvNeXt(num_classes=3, depths=(depth, 1, 1, 1), dims=WIDTHS, **options)


def torchvision_convnext(depth: int = 2) -> nn.Module:
    after = (*WIDTHS[1:], None)
    blocks = [CNBlockConfig(a, b, n) for a, b, n in zip(WIDTHS, after, (depth, 1, 1, 1), strict=True)]
    return models.ConvNeXt(blocks, num_classes=3)


def torchvision_efficientnet(depth: int = 2) -> nn.Module:
    blocks = [
        FusedMBConvConfig(1, 3, 1, 8, 8, 1),
        FusedMBConvConfig(2, 3, 2, 8, 16, depth),
        MBConvConfig(4, 3, 2, 16, 24, depth),
    ]
    return models.EfficientNet(blocks, 0.0, num_classes=3, last_channel=24)


def monai_efficientnet() -> nn.Module:
    blocks = ["r1_k3_s11_e1_i32_o16_se0.25", "r2_k3_s22_e6_i16_o24_se0.25", "r3_k5_s22_e6_i24_o24_se0.25"]
    return nets.EfficientNet(blocks, num_classes=3, image_size=64)


def timm_efficientnet_b() -> nn.Module:
    arch = [["ds_r1_k3_s1_e1_c16_se0.25"], ["ir_r2_k3_s2_e6_c24_se0.25"], ["ir_r3_k5_s2_e6_c24_se0.25"]]
    return timm.models.efficientnet.EfficientNet(
        timm.models._efficientnet_builder.decode_arch_def(arch), num_classes=3, num_features=1280, pad_type="same",
        act_layer=nn.SiLU, norm_layer=partial(nn.BatchNorm2d, eps=1e-3),
    )  # fmt: skip


def timm_efficientnet(depth: int = 2) -> nn.Module:
    arch = [["cn_r1_k3_s1_e1_c8_skip"], [f"er_r{depth}_k3_s2_e2_c16"], [f"ir_r{depth}_k3_s2_e4_c24_se0.25"]]
    return timm.models.efficientnet.EfficientNet(
        timm.models._efficientnet_builder.decode_arch_def(arch), num_classes=3, num_features=24, stem_size=8,
        round_chs_fn=partial(timm.models._efficientnet_builder.round_channels, multiplier=1.0, divisor=8),
        act_layer=nn.SiLU, se_layer=partial(timm.models._efficientnet_blocks.SqueezeExcite, rd_round_fn=round),
    )  # fmt: skip


# (theirs, layer of its classifier), (timm's, layer of its classifier), family
PAIRS: dict[str, tuple] = {
    "torchvision ViT": ((torchvision_vit, "heads.head"), (timm_vit, "head"), "vit"),
    "torchvision Swin": ((torchvision_swin, "head"), (timm_swin, "head.fc"), "swin"),
    "torchvision ConvNeXt": ((torchvision_convnext, "classifier.2"), (timm_convnext, "head.fc"), "convnext"),
    "torchvision EfficientNet": (
        (torchvision_efficientnet, "classifier.1"), (timm_efficientnet, "classifier"), "efficientnet"
    ),
    "MONAI EfficientNetBN": (
        (monai_efficientnet, "_fc"), (timm_efficientnet_b, "classifier"), "efficientnet"
    ),
}  # fmt: skip


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that no initialisation makes, so that a missing one is seen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                draw = torch.rand(value.shape, generator=generator)
                value.copy_(draw + 0.5 if value.dim() < 2 and "bias" not in name else (draw - 0.5) * 0.4)
    return network.eval()


def features(network: nn.Module, layer: str, image: Tensor) -> Tensor:
    """What enters a layer."""
    caught: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        network(image)
    handle.remove()
    return caught[0].flatten(1)


def assert_equal_features(large: tuple, small: tuple, family: str, *, as_state: bool, size: int = 32) -> None:
    (large, large_layer), (small, small_layer) = large, small
    heads = HEADS if as_state and family == "vit" else {}
    pair = [network.state_dict() if as_state else network for network in (large, small)]
    plan = plan_selection(*pair, **heads)
    assert plan.verified and plan.family == family
    small.load_state_dict(plan.apply(), strict=False)
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        features(small, small_layer, image), features(large, large_layer, image), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(("name", "as_state"), product(PAIRS, (True, False)))
def test_the_weights_of_one_library_give_the_features_of_the_other(name: str, as_state: bool) -> None:
    (theirs, their_layer), (ours, our_layer), family = PAIRS[name]
    size = 64 if "MONAI" in name else 32
    large, small = randomised(theirs(), 1), randomised(ours(), 2)
    assert_equal_features((large, their_layer), (small, our_layer), family, as_state=as_state, size=size)
    small, large = randomised(theirs(), 3), large
    assert_equal_features(
        (randomised(ours(), 4), our_layer), (small, their_layer), family, as_state=as_state, size=size
    )


def test_a_narrower_and_shallower_network_of_another_library_gets_what_timm_s_gets() -> None:
    theirs, ours, small = randomised(torchvision_vit(32, 4)), timm_vit(32, 4), timm_vit(16, 2).state_dict()
    ours.load_state_dict(plan_selection(theirs, ours).apply(), strict=False)
    options = {"layers": "last", "elements": "random", "seed": 3, **HEADS}
    expected = plan_selection(ours.state_dict(), small, **options)
    plan = plan_selection(theirs.state_dict(), small, **options)
    assert plan.axes == expected.axes
    for name, value in expected.apply().items():
        assert torch.equal(plan.apply()[name], value), name


def test_a_swin_with_fewer_heads_keeps_whole_heads_and_their_biases() -> None:
    large, small = randomised(timm_swin((4, 8), 32)).state_dict(), timm_swin((2, 4), 16).state_dict()
    plan = plan_selection(large, small, elements="random", seed=1)
    assert plan.verified and plan.family == "swin"
    kept, width = plan.axes["layers.0.blocks.0.head"], plan.axes["layers.0.blocks.0.head_dim"]
    assert len(kept) == 2 and width == list(range(8))
    selected = plan.apply()
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    assert torch.equal(selected[table], large[table][:, kept])
    rows = [(part * 4 + head) * 8 + channel for part in range(3) for head in kept for channel in width]
    bias = "layers.0.blocks.0.attn.qkv.bias"
    assert torch.equal(selected[bias], large[bias][rows])
    merged = [part * 32 + channel for part in range(4) for channel in plan.axes["stage0"]]
    assert torch.equal(selected["layers.1.downsample.norm.weight"], large["layers.1.downsample.norm.weight"][merged])


def test_swin_checkpoints_of_before_timm_0_9_are_read_too() -> None:
    small = timm_swin().state_dict()
    old = {name.replace("layers.1.downsample", "layers.0.downsample"): value for name, value in small.items()}
    assert plan_selection(old, small).skipped.keys() == plan_selection(small, small).skipped.keys()


# Hugging Face, by names and shapes alone; the next test compares the features where transformers is installed.
def hugging_face_vit(embed: int, depth: int, *, old: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(embed)
    shapes = {
        "vit.embeddings.cls_token": (1, 1, embed),
        "vit.embeddings.position_embeddings": (1, 17, embed),
        "vit.embeddings.patch_embeddings.projection.weight": (embed, 3, 8, 8),
        "vit.embeddings.patch_embeddings.projection.bias": (embed,),
        "vit.layernorm.weight": (embed,),
        "vit.layernorm.bias": (embed,),
        "classifier.weight": (3, embed),
        "classifier.bias": (3,),
    }
    linear = {
        "attention.q_proj|attention.attention.query": (embed, embed),
        "attention.k_proj|attention.attention.key": (embed, embed),
        "attention.v_proj|attention.attention.value": (embed, embed),
        "attention.o_proj|attention.output.dense": (embed, embed),
        "mlp.fc1|intermediate.dense": (2 * embed, embed),
        "mlp.fc2|output.dense": (embed, 2 * embed),
        "layernorm_before|layernorm_before": (embed,),
        "layernorm_after|layernorm_after": (embed,),
    }
    path = "vit.encoder.layer" if old else "vit.layers"
    for block, (names, shape) in product(range(depth), linear.items()):
        layer = f"{path}.{block}.{names.split('|')[old]}"
        shapes |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("old", [False, True])
def test_hugging_face_s_separate_query_key_and_value_become_timm_s_and_back(old: bool) -> None:
    theirs = hugging_face_vit(16, 2, old=old)
    query, key, value = (
        f"vit.encoder.layer.1.attention.attention.{word}.weight"
        if old
        else f"vit.layers.1.attention.{word[0]}_proj.weight"
        for word in ("query", "key", "value")
    )
    plan = plan_selection(theirs, timm_vit(mlp_ratio=2).state_dict(), **HEADS)
    assert plan.verified and list(plan.skipped.values()) == [["head.weight", "head.bias"]]
    fused = plan.apply()["blocks.1.attn.qkv.weight"]
    assert torch.equal(fused, torch.cat([theirs[query], theirs[key], theirs[value]]))
    row = next(row for row in plan.report() if row.name == "blocks.1.attn.qkv.weight")
    assert row.source == f"{query} + {key} + {value}" and row.source_shape == (48, 16)

    ours = randomised(timm_vit(mlp_ratio=2)).state_dict()
    plan = plan_selection(ours, theirs, **HEADS)
    back = plan.apply()
    assert set(back) == {name for name in theirs if not name.startswith("classifier")}
    assert torch.equal(back[key], ours["blocks.1.attn.qkv.weight"][16:32])
    row = next(row for row in plan.report() if row.name == key)
    assert row.source == "blocks.1.attn.qkv.weight" and row.note == "part 2 of 3" and row.shape == (16, 16)


def test_weights_of_another_library_for_a_network_that_is_known_have_its_heads() -> None:
    large, theirs = view_of(timm_vit(mlp_ratio=2)), hugging_face_vit(16, 2, old=False)
    plan = plan_selection(large.with_values(in_names_of(large, theirs)), timm_vit(mlp_ratio=2))
    assert plan.verified and plan.axes["blocks.1.head"] == [0, 1]
    assert torch.equal(plan.apply()["blocks.0.norm1.bias"], theirs["vit.layers.0.layernorm_before.bias"])


def test_a_plan_between_two_hugging_face_networks_has_their_names_on_both_sides() -> None:
    large, small = hugging_face_vit(32, 4, old=True), hugging_face_vit(16, 2, old=False)
    plan = plan_selection(large, small, layers="last", large_heads=4, small_heads=2)
    selected, value = plan.apply(), "attention.attention.value.weight"
    rows = {row.name: row for row in plan.report()}
    assert list(rows) == list(small)
    row = rows["vit.layers.0.attention.v_proj.weight"]
    assert row.source == f"vit.encoder.layer.2.{value}" and row.source_shape == (32, 32)
    source, kept = large[row.source], [head * 8 + channel for head in (0, 2) for channel in range(8)]
    expected = source[kept][:, plan.axes["embed"]]
    assert torch.equal(selected[row.name], expected)
    assert row.norm_share == pytest.approx((expected.square().sum() / source.square().sum()).item(), rel=1e-5)
    doubled = plan.apply({name: 2 * tensor for name, tensor in large.items()})
    assert torch.equal(doubled[row.name], 2 * expected)


def hugging_face_pairs(transformers) -> dict[str, tuple]:
    vit = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
        "num_labels": 3, "layer_norm_eps": 1e-6, "attn_implementation": "eager",
    }  # fmt: skip
    stages = {"depths": [2, 1, 1, 1], "hidden_sizes": list(WIDTHS), "num_labels": 3}
    of, scaled = transformers, {"init_values": 1.0}
    gated = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    return {
        "ViT": (of.ViTForImageClassification(of.ViTConfig(**vit, intermediate_size=24)), timm_vit()),
        "DINOv2": (
            of.Dinov2ForImageClassification(of.Dinov2Config(**vit, mlp_ratio=2)), timm_vit(mlp_ratio=2, **scaled)
        ),
        "DINOv2 gated": (
            of.Dinov2ForImageClassification(of.Dinov2Config(**vit, mlp_ratio=3, use_swiglu_ffn=True)),
            timm_vit(mlp_ratio=4, **scaled, **gated),
        ),
        "DINOv2 with registers": (
            of.Dinov2WithRegistersForImageClassification(
                of.Dinov2WithRegistersConfig(**vit, mlp_ratio=2, num_register_tokens=4)
            ),
            timm_vit(mlp_ratio=2, reg_tokens=4, **scaled),
        ),
        "Swin": (
            of.SwinForImageClassification(of.SwinConfig(
                image_size=32, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4, num_labels=3)),
            timm_swin(),
        ),
        "ConvNeXt": (of.ConvNextForImageClassification(of.ConvNextConfig(**stages)), timm_convnext()),
        "ConvNeXt V2": (
            of.ConvNextV2ForImageClassification(of.ConvNextV2Config(**stages)),
            timm_convnext(use_grn=True, ls_init_value=None),
        ),
    }  # fmt: skip


def test_hugging_face_s_networks_and_timm_s_give_equal_features() -> None:
    pairs = hugging_face_pairs(pytest.importorskip("transformers"))
    image = torch.rand(2, 3, 32, 32)
    for name, (theirs, ours) in pairs.items():
        randomised(theirs), randomised(ours, 2)
        plan = plan_selection(theirs, ours)
        assert plan.verified, name
        ours.load_state_dict(plan.apply(), strict=False)
        with torch.no_grad():
            expected, found = theirs.base_model(image).last_hidden_state, ours.forward_features(image)
        if name.startswith("ConvNeXt"):
            expected, found = expected.mean((2, 3)), found.mean((2, 3))
            layer = ours.head.norm
            norm = theirs.base_model.layernorm
            torch.testing.assert_close(layer.weight, norm.weight)
        torch.testing.assert_close(found.flatten(), expected.flatten(), atol=1e-5, rtol=1e-4, msg=name)
        back = plan_selection(ours.state_dict(), theirs.state_dict(), **(HEADS if plan.family == "vit" else {}))
        state = theirs.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in back.apply().items()), name


def test_block_numbers_that_count_through_the_stages_start_anew_in_each() -> None:
    with torch.device("meta"):
        theirs, ours = monai_efficientnet(), timm_efficientnet_b()
    rows = {row.name: row.source for row in plan_selection(theirs, ours).report()}
    assert rows["blocks.2.1.conv_pw.weight"] == "_blocks.2.4._expand_conv.weight"


def test_the_names_of_monai_s_own_b0_are_those_of_timm_s() -> None:
    with torch.device("meta"):
        large, small = nets.EfficientNetBN("efficientnet-b3", pretrained=False), timm.create_model("tf_efficientnet_b0")
    for pair in ((large, small), (small, nets.EfficientNetBN("efficientnet-b0", pretrained=False))):
        plan = plan_selection(*pair)
        assert plan.verified and list(plan.skipped) == ["classifier: belongs to the old classes"]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "backbone.", "encoder."])
def test_a_prefix_on_one_side_only_is_stripped_and_the_plan_keeps_the_network_s_own_names(prefix: str) -> None:
    plain = {"a.0.weight": torch.arange(8.0).reshape(4, 2), "b.weight": torch.arange(4.0).reshape(1, 4)}
    plain |= {"classifier.weight": torch.ones(2, 1), "classifier.bias": torch.ones(2)}
    wrapped = {prefix + name: value for name, value in plain.items() if not name.startswith("classifier")}
    wrapped |= {"classifier.weight": torch.ones(3, 1)}
    for large, small in ((wrapped, plain), (plain, wrapped), (wrapped, wrapped)):
        plan = plan_selection(large, small)
        selected = plan.apply()
        assert set(selected) == {name for name in small if not name.startswith("classifier")}
        rows = {row.name: row.source for row in plan.report() if row.selected}
        assert set(rows.values()) == {name for name in large if not name.startswith("classifier")}
        for name, source in rows.items():
            assert torch.equal(selected[name], large[source])


@pytest.mark.parametrize("prefix", ["module.", "backbone.vit."])
def test_a_prefix_in_front_of_a_known_family_is_stripped_in_a_module_as_well(prefix: str) -> None:
    inside = timm_vit()
    wrapper = inside
    for part in reversed(prefix.strip(".").split(".")):
        outer = nn.Module()
        outer.add_module(part, wrapper)
        wrapper = outer
    for large, small in ((wrapper, timm_vit()), (timm_vit(), wrapper)):
        plan = plan_selection(large, small)
        assert plan.verified and set(plan.apply()) == {
            name for name in small.state_dict() if not name.endswith(("head.weight", "head.bias"))
        }


def test_pieces_of_a_stacked_tensor_that_are_missing_are_told() -> None:
    theirs = hugging_face_vit(16, 2, old=False)
    del theirs["vit.layers.1.attention.k_proj.weight"]
    with pytest.raises(SelectionError, match=r"q_proj|qkv"):
        plan_selection({**theirs, "vit.layers.1.attention.q_proj.weight": torch.zeros(8, 16)}, theirs, **HEADS)


def eva_of(width: int, heads: int, **options) -> nn.Module:
    options = {"swiglu_mlp": True, "scale_mlp": True, "use_rot_pos_emb": True, "depth": 2, **options}
    return eva.Eva(32, 8, embed_dim=width, num_heads=heads, num_classes=3, mlp_ratio=2, **options)


CASES: dict[str, Callable[[int, int], nn.Module]] = {
    "EVA, separate": partial(eva_of, qkv_fused=False),
    "EVA, fused": partial(eva_of, qkv_fused=True),
    "DINOv3": partial(eva_of, swiglu_mlp=False, scale_mlp=False, init_values=1.0, num_reg_tokens=2, qkv_bias=False),
}


@pytest.mark.parametrize("name", CASES)
def test_an_eva_keeps_the_same_channels_in_weights_and_biases(name: str) -> None:
    large, small = randomised(CASES[name](32, 4)), CASES[name](16, 2)
    plan = plan_selection(
        large.state_dict(), small.state_dict(), elements="random", seed=2, **{**HEADS, "large_heads": 4}
    )
    assert plan.verified and plan.family == "vit"
    assert list(plan.skipped.values()) == [["head.weight", "head.bias"]]
    selected, kept = plan.apply(), plan.axes["blocks.0.head"]
    rows = [head * 8 + channel for head in kept for channel in plan.axes["blocks.0.head_dim"]]
    state = large.state_dict()
    for bias in ("blocks.0.attn.q_bias", "blocks.0.attn.q_proj.bias"):
        if bias in state:
            assert torch.equal(selected[bias], state[bias][rows])
    if "blocks.0.gamma_1" in state:
        assert torch.equal(selected["blocks.0.gamma_1"], state["blocks.0.gamma_1"][plan.axes["embed"]])
