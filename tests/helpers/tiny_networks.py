# SPDX-License-Identifier: Apache-2.0
"""Tiny networks of each family with a table of axes, in two widths and depths."""

from __future__ import annotations

from monai.networks.nets import ResNet, ViT
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


def lite(scale: int = 1, blocks: int = 2, *, se: bool = False, image: int = 3, classes: int = 3) -> nn.Module:
    """An EfficientNet with every kind of block: separable, inverted, fused, plain."""
    suffix = "_se0.25" if se else ""
    arch = [
        ["ds_r2_k3_s1_e1_c8" + suffix],
        [f"ir_r{blocks}_k3_s2_e2_c8" + suffix],
        ["er_r2_k3_s1_e2_c16"],
        ["cn_r1_k1_s1_c24"],
    ]
    return EfficientNet(
        decode_arch_def(arch), num_classes=classes, in_chans=image, stem_size=8 * scale, num_features=16 * scale,
        round_chs_fn=lambda channels, **kwargs: channels * scale, fix_stem=True,
    )  # fmt: skip


def vit(scale: int = 1, blocks: int = 2, *, image: int = 3, classes: int = 3, **options) -> nn.Module:
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 12 * scale, "num_heads": 2 * scale, "init_values": 0.5}
    return VisionTransformer(depth=blocks, in_chans=image, num_classes=classes, **sizes | options)


def convnext(scale: int = 1, blocks: int = 2, *, image: int = 3, classes: int = 3, **options) -> nn.Module:
    dims = [6 * scale, 8 * scale, 10 * scale, 12 * scale]
    return ConvNeXt(image, classes, dims=dims, depths=[1, 1, blocks, 1], **{"ls_init_value": 0.5} | options)


def resnet(
    scale: int = 1, blocks: int = 2, *, image: int = 3, classes: int = 3, spatial: int = 2, **options
) -> nn.Module:
    sizes = {"block": "basic", "layers": [1, blocks, 1, 1], "block_inplanes": [scale * w for w in (4, 6, 8, 10)]}
    return ResNet(spatial_dims=spatial, n_input_channels=image, num_classes=classes, **sizes | options)


def bottleneck(scale: int = 1, blocks: int = 2, **options) -> nn.Module:
    return resnet(scale, blocks, block="bottleneck", **options)


class MonaiViT(ViT):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[0]


def monai_vit(scale: int = 1, blocks: int = 2, *, image: int = 3, classes: int = 3, spatial: int = 2) -> nn.Module:
    return MonaiViT(
        image, (16,) * spatial, 4, hidden_size=12 * scale, mlp_dim=24 * scale, num_layers=blocks, num_heads=2 * scale,
        classification=True, num_classes=classes, spatial_dims=spatial, post_activation="none",
    )  # fmt: skip


FAMILIES = {
    "efficientnet": lite,
    "efficientnet_se": lambda *sizes, **options: lite(*sizes, se=True, **options),
    "vit": vit,
    "vit_registers": lambda *sizes, **options: vit(*sizes, reg_tokens=2, no_embed_class=True, **options),
    "vit_qk_norm": lambda *sizes, **options: vit(*sizes, qk_norm=True, **options),
    "convnext": convnext,
    "convnext_v2": lambda *sizes, **options: convnext(*sizes, use_grn=True, ls_init_value=None, **options),
    "resnet": resnet,
    "bottleneck": bottleneck,
    "monai_vit": monai_vit,
    "resnet_3d": lambda *sizes, **options: resnet(*sizes, spatial=3, **options),
    "monai_vit_3d": lambda *sizes, **options: monai_vit(*sizes, spatial=3, **options),
}
