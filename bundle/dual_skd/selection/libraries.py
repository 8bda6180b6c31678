# SPDX-License-Identifier: Apache-2.0
"""Tensor names of other libraries, and of the same network in another form, beside timm's.

Each row has their name on the left and timm's on the right. ``{s}`` is timm's number of the stage, ``{b}`` that of the
block, ``{2s+1}`` a number made of it; ``name.*`` stands for weight, bias and running statistics. Tensors joined by
``+`` are stacked to one tensor of timm's, alternatives (older versions) are separated by ``|``, and ``flat`` drops
dimensions of size one. A new library or family is one more :class:`Library`.
DenseNets have names of their own, which count from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Library:
    """The names of one family in one library.

    Args:
        name: library and family, for readers.
        signature: regular expression of a tensor name that only this library has; group 1 is a prefix to strip.
        tensors: their name -> timm's, outside of blocks.
        block: path of a block.
        timm_block: timm's path of the same block.
        blocks: name that marks a kind of block -> {their name -> timm's}, both without the block's path; the first
            marker that a block has decides.
    """

    name: str
    signature: str
    tensors: Mapping[str, str]
    block: str
    timm_block: str
    blocks: Mapping[str, Mapping[str, str]]


MONAI_SE = {"_se_reduce.*": "se.conv_reduce.*", "_se_expand.*": "se.conv_expand.*"}
HF_ATTENTION = {
    "attention.q_proj.* + attention.k_proj.* + attention.v_proj.*"
    "| attention.attention.query.* + attention.attention.key.* + attention.attention.value.*"
    "| attention.self.query.* + attention.self.key.* + attention.self.value.*": "attn.qkv.*",
    "attention.o_proj.*|attention.output.dense.*": "attn.proj.*",
}
HF_MLP = {
    "mlp.fc1.*|intermediate.dense.*": "mlp.fc1.*",
    "mlp.fc2.*|output.dense.*": "mlp.fc2.*",
}
HF_EMBEDDINGS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.*": "patch_embed.proj.*",
    "embeddings.norm.*": "patch_embed.norm.*",
    "layernorm.*": "norm.*",
}
HF_CONVNEXT = {
    "layer_scale_parameter": "gamma",
    "dwconv.*": "conv_dw.*",
    "layernorm.*": "norm.*",
    "pwconv1.*": "mlp.fc1.*",
    "pwconv2.*": "mlp.fc2.*",
    "grn.*": "mlp.grn.* flat",
}
HF_VIT = {**HF_ATTENTION, **HF_MLP, "layernorm_before.*": "norm1.*", "layernorm_after.*": "norm2.*"}
TORCHVISION_SWIN = {
    "mlp.0.*": "mlp.fc1.*",
    "mlp.3.*": "mlp.fc2.*",
    "norm1.*": "norm1.*",
    "norm2.*": "norm2.*",
    "attn.qkv.*": "attn.qkv.*",
    "attn.proj.*": "attn.proj.*",
    "attn.cpb_mlp.0.*": "attn.cpb_mlp.0.*",
    "attn.cpb_mlp.2.*": "attn.cpb_mlp.2.*",
    "attn.logit_scale": "attn.logit_scale",
    "attn.relative_position_bias_table": "attn.relative_position_bias_table",
    "attn.relative_position_index": "attn.relative_position_index",
    "attn.relative_coords_table": "attn.relative_coords_table",
}

LIBRARIES = (
    Library(
        name="torchvision ViT",
        signature=r"(.*?)encoder\.layers\.encoder_layer_0\.self_attention\.in_proj_weight",
        tensors={
            "class_token": "cls_token",
            "conv_proj.*": "patch_embed.proj.*",
            "encoder.pos_embedding": "pos_embed",
            "encoder.ln.*": "norm.*",
        },
        block="encoder.layers.encoder_layer_{b}",
        timm_block="blocks.{b}",
        blocks={
            "self_attention.in_proj_weight": {
                "ln_1.*": "norm1.*",
                "self_attention.in_proj_weight": "attn.qkv.weight",
                "self_attention.in_proj_bias": "attn.qkv.bias",
                "self_attention.out_proj.*": "attn.proj.*",
                "ln_2.*": "norm2.*",
                "mlp.0.*|mlp.linear_1.*": "mlp.fc1.*",
                "mlp.3.*|mlp.linear_2.*": "mlp.fc2.*",
            }
        },
    ),
    Library(
        name="torchvision Swin",
        signature=r"(.*?)features\.1\.0\.attn\.qkv\.weight",
        tensors={
            "features.0.0.*": "patch_embed.proj.*",
            "features.0.2.*": "patch_embed.norm.*",
            "features.{2s}.norm.*": "layers.{s}.downsample.norm.*",
            "features.{2s}.reduction.*": "layers.{s}.downsample.reduction.*",
        },
        block="features.{2s+1}.{b}",
        timm_block="layers.{s}.blocks.{b}",
        blocks={"attn.qkv.weight": TORCHVISION_SWIN},
    ),
    Library(
        name="torchvision ConvNeXt",
        signature=r"(.*?)features\.1\.0\.layer_scale",
        tensors={
            "features.0.0.*": "stem.0.*",
            "features.0.1.*": "stem.1.*",
            "features.{2s}.0.*": "stages.{s}.downsample.0.*",
            "features.{2s}.1.*": "stages.{s}.downsample.1.*",
            "classifier.0.*": "head.norm.*",
            "classifier.2.*": "head.fc.*",
        },
        block="features.{2s+1}.{b}",
        timm_block="stages.{s}.blocks.{b}",
        blocks={
            "layer_scale": {
                "layer_scale": "gamma flat",
                "block.0.*": "conv_dw.*",
                "block.2.*": "norm.*",
                "block.3.*": "mlp.fc1.*",
                "block.5.*": "mlp.fc2.*",
            }
        },
    ),
    Library(
        name="torchvision EfficientNet",
        signature=r"(.*?)features\.1\.0\.block\.0\.0\.weight",
        tensors={
            "features.0.0.*": "conv_stem.*",
            "features.0.1.*": "bn1.*",
            "features.{s}.0.*": "conv_head.*",
            "features.{s}.1.*": "bn2.*",
            "classifier.1.*": "classifier.*",
        },
        block="features.{s+1}.{b}",
        timm_block="blocks.{s}.{b}",
        blocks={
            "block.3.0.weight": {
                "block.0.0.*": "conv_pw.*",
                "block.0.1.*": "bn1.*",
                "block.1.0.*": "conv_dw.*",
                "block.1.1.*": "bn2.*",
                "block.2.fc1.*": "se.conv_reduce.*",
                "block.2.fc2.*": "se.conv_expand.*",
                "block.3.0.*": "conv_pwl.*",
                "block.3.1.*": "bn3.*",
            },
            "block.2.0.weight": {
                "block.0.0.*": "conv_dw.*",
                "block.0.1.*": "bn1.*",
                "block.1.fc1.*": "se.conv_reduce.*",
                "block.1.fc2.*": "se.conv_expand.*",
                "block.2.0.*": "conv_pw.*",
                "block.2.1.*": "bn2.*",
            },
            "block.1.0.weight": {
                "block.0.0.*": "conv_exp.*",
                "block.0.1.*": "bn1.*",
                "block.1.0.*": "conv_pwl.*",
                "block.1.1.*": "bn2.*",
            },
            "block.0.0.weight": {"block.0.0.*": "conv.*", "block.0.1.*": "bn1.*"},
        },
    ),
    Library(
        name="MONAI EfficientNetBN",
        signature=r"(.*?)_blocks\.0\.0\._depthwise_conv\.weight",
        tensors={
            "_conv_stem.*": "conv_stem.*",
            "_bn0.*": "bn1.*",
            "_conv_head.*": "conv_head.*",
            "_bn1.*": "bn2.*",
            "_fc.*": "classifier.*",
        },
        block="_blocks.{s}.{b}",
        timm_block="blocks.{s}.{b}",
        blocks={
            "_expand_conv.weight": {
                "_expand_conv.*": "conv_pw.*",
                "_bn0.*": "bn1.*",
                "_depthwise_conv.*": "conv_dw.*",
                "_bn1.*": "bn2.*",
                **MONAI_SE,
                "_project_conv.*": "conv_pwl.*",
                "_bn2.*": "bn3.*",
            },
            "_depthwise_conv.weight": {
                "_depthwise_conv.*": "conv_dw.*",
                "_bn1.*": "bn1.*",
                **MONAI_SE,
                "_project_conv.*": "conv_pw.*",
                "_bn2.*": "bn2.*",
            },
        },
    ),
    Library(
        name="DenseNet of timm, torchvision and MONAI",
        signature=r"(.*?)features\.denseblock1\.denselayer1\.(?:layers\.)?norm\.?1\.weight",
        tensors={
            "features.conv0.*": "stem.conv.*",
            "features.norm0.*": "stem.norm.*",
            "features.transition{s}.norm.*": "transition.{s}.norm.*",
            "features.transition{s}.conv.*": "transition.{s}.conv.*",
            "features.norm5.*": "norm.*",
        },
        block="features.denseblock{s+1}.denselayer{b+1}",
        timm_block="dense.{s}.{b}",
        blocks={
            marker: {
                "norm1.*|layers.norm1.*|norm.1.*": "norm1.*",
                "conv1.*|layers.conv1.*|conv.1.*": "conv1.*",
                "norm2.*|layers.norm2.*|norm.2.*": "norm2.*",
                "conv2.*|layers.conv2.*|conv.2.*": "conv2.*",
            }
            for marker in ("norm1.weight", "layers.norm1.weight", "norm.1.weight")
        },
    ),
    Library(
        name="Hugging Face ViT",
        signature=r"(.*?)layers\.0\.attention\.q_proj\.weight",
        tensors=HF_EMBEDDINGS,
        block="layers.{b}",
        timm_block="blocks.{b}",
        blocks={"layernorm_before.weight": HF_VIT},
    ),
    Library(
        name="Hugging Face ViT of earlier versions, DINOv2",
        signature=r"(.*?)encoder\.layer\.0\.attention\.(?:q_proj|attention\.query)\.weight",
        tensors=HF_EMBEDDINGS,
        block="encoder.layer.{b}",
        timm_block="blocks.{b}",
        blocks={
            "layernorm_before.weight": HF_VIT,
            "norm1.weight": {
                **HF_ATTENTION,
                **HF_MLP,
                "norm1.*": "norm1.*",
                "norm2.*": "norm2.*",
                "layer_scale1.lambda1": "ls1.gamma",
                "layer_scale2.lambda1": "ls2.gamma",
                "mlp.gate_proj.* + mlp.up_proj.*|mlp.weights_in.*": "mlp.fc1.*",
                "mlp.down_proj.*|mlp.weights_out.*": "mlp.fc2.*",
            },
        },
    ),
    Library(
        name="Hugging Face Swin",
        signature=r"(.*?)encoder\.layers\.0\.blocks\.0\.attention\.(?:q_proj|self\.query)\.weight",
        tensors={
            **HF_EMBEDDINGS,
            "encoder.layers.{s-1}.downsample.norm.*": "layers.{s}.downsample.norm.*",
            "encoder.layers.{s-1}.downsample.reduction.*": "layers.{s}.downsample.reduction.*",
        },
        block="encoder.layers.{s}.blocks.{b}",
        timm_block="layers.{s}.blocks.{b}",
        blocks={
            "layernorm_before.weight": {
                **HF_VIT,
                "attention.relative_position_bias.relative_position_bias_table"
                "|attention.self.relative_position_bias_table": "attn.relative_position_bias_table",
                "attention.self.relative_position_index": "attn.relative_position_index",
            }
        },
    ),
    Library(
        name="Hugging Face ConvNeXt",
        signature=r"(.*?)encoder\.stages\.0\.layers\.0\.dwconv\.weight",
        tensors={
            "embeddings.patch_embeddings.*": "stem.0.*",
            "embeddings.layernorm.*": "stem.1.*",
            "encoder.stages.{s}.downsampling_layer.0.*": "stages.{s}.downsample.0.*",
            "encoder.stages.{s}.downsampling_layer.1.*": "stages.{s}.downsample.1.*",
            "layernorm.*": "head.norm.*",
        },
        block="encoder.stages.{s}.layers.{b}",
        timm_block="stages.{s}.blocks.{b}",
        blocks={"dwconv.weight": HF_CONVNEXT},
    ),
    Library(
        name="Swin before timm 0.9, and its authors'",
        signature=r"(.*?)layers\.0\.downsample\.reduction\.weight",
        tensors={
            "layers.{s-1}.downsample.norm.*": "layers.{s}.downsample.norm.*",
            "layers.{s-1}.downsample.reduction.*": "layers.{s}.downsample.reduction.*",
        },
        block="layers.{s}.blocks.{b}",
        timm_block="layers.{s}.blocks.{b}",
        blocks={},
    ),
    Library(
        name="timm EVA with separate q, k, v",
        signature=r"(\D*?)blocks\.0\.attn\.q_proj\.weight",
        tensors={},
        block="blocks.{b}",
        timm_block="blocks.{b}",
        blocks={
            "attn.q_proj.weight": {
                "attn.q_proj.weight + attn.k_proj.weight + attn.v_proj.weight": "attn.qkv.weight",
                "attn.q_proj.bias": "attn.q_bias",
                "attn.v_proj.bias": "attn.v_bias",
                "mlp.fc1_g.* + mlp.fc1_x.*": "mlp.fc1.*",
            }
        },
    ),
    Library(
        name="timm with a gated MLP in two layers, DINOv2's own",
        signature=r"(\D*?)blocks\.0\.mlp\.(?:fc1_g|w12)\.weight",
        tensors={},
        block="blocks.{b}",
        timm_block="blocks.{b}",
        blocks={
            "mlp.fc1_g.weight": {"mlp.fc1_g.* + mlp.fc1_x.*": "mlp.fc1.*"},
            "mlp.w12.weight": {"mlp.w12.*": "mlp.fc1.*", "mlp.w3.*": "mlp.fc2.*"},
        },
    ),
)
